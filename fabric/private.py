"""See other processes' memory as one's own: writable views that a receiver may change and the sender never sees.

    pages = Pages(mapping)                    what another process writes, mapped privately (MAP_PRIVATE)
    view = pages.view(offset, size, gone)     a buffer over part of it; gone() runs when the last view of it dies

One of the few modules that see the C core (tests/test_exports.py lists them). Nothing here waits.
"""

from collections.abc import Callable
from typing import Any

from fabric._native import ffi, lib

PAGE_BYTES = 4096  # FAB_PAGE
_UNKNOWN = 2**64 - 1


def address_of(buffer: Any) -> int:
    """Return where a buffer lies in this process."""
    with ffi.from_buffer(buffer) as pointer:
        return int(ffi.cast("uintptr_t", pointer))


class Pages:
    """A mapping, and the views of it that are in use."""

    def __init__(self, mapping: Any, pagemap: int = -1) -> None:
        """`pagemap` is a descriptor of /proc/self/pagemap, which spares pages nobody wrote to; -1: without."""
        self.pagemap = pagemap
        self._base = ffi.cast("uint8_t *", ffi.from_buffer(mapping, require_writable=True))
        self._keep = ffi.from_buffer(mapping)

    def view(self, offset: int, size: int, gone: Callable[[], None]) -> Any:
        """Return a writable buffer over these bytes. `gone` runs once no view of it is left, in whichever thread."""
        keep = self._keep  # the mapping lives as long as its views, whatever is closed

        def forget(_: Any, keep: Any = keep) -> None:
            gone()

        return ffi.buffer(ffi.gc(self._base + offset, forget), size)

    def renew(self, offset: int, size: int) -> bool:
        """Drop the pages here that this process wrote to: what the owner puts there next is to be seen.

        False: the kernel refused, and the bytes there cannot be relied on any more.
        """
        return bool(lib.fab_view_renew(self.pagemap, self._base + offset, size) == 0)


def page_faults() -> int:
    """Return how many page faults this process has had; -1 when that cannot be known."""
    count = int(lib.fab_view_faults())
    return -1 if count == _UNKNOWN else count


def pages_apart(descriptor: int, offset: int, size: int, gone: Callable[[], None]) -> Any:
    """Return a writable buffer over these bytes in a private mapping of its own; None where there is no room for one.

    For those who look at pages that somebody looks at already: neither sees what the other writes. `gone` runs when
    the last view of it is gone, and with it the mapping.
    """
    start = offset // PAGE_BYTES * PAGE_BYTES
    length = (offset + size - start + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
    at = lib.fab_view_map(descriptor, start, length)
    if at == ffi.NULL:
        return None

    def forget(_: Any) -> None:
        lib.fab_view_unmap(at, length)
        gone()

    return ffi.buffer(ffi.gc(ffi.cast("uint8_t *", at) + (offset - start), forget), size)
