"""Receive what others lent: writable views of their arenas, private to this process, and given back in time.

    record in a lane            owner's arena                          here
    | loan, offset, bytes | --> hold() in our block: HELD, lane's end   view over a private mapping
                                ...                                     the last view of a view dies
                                done(): DONE, once the lane is committed behind the record

Not before the commit: whoever succeeds us gets uncommitted records again, and has to find what they name.
What is small is copied instead, unless nobody is to write there: a view costs two page faults once it is written to.
Pages are private to this process, not to one of its agents: who receives what lies on a page that is looked at
already (a broadcast, slices of one loan) gets a mapping of its own, or a copy if it is not large, likewise.
"""

import functools
import itertools
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

from fabric.errors import EncodingError
from fabric.lending import Receipts
from fabric.looks import Looks
from fabric.parcel import READ_ONLY, Entry
from fabric.private import PAGE_BYTES, Pages, page_faults, pages_apart
from fabric.segment import Segment

_WORTH_A_VIEW = 128 << 10  # bytes: up to here a copy takes less time than a view that is written to, and no more else
_WORTH_A_MAPPING = 256 << 10  # bytes: up to here a copy takes less time than mapping and faults
_MAP_NORESERVE = 0x4000  # as Linux has it; the mmap module names it from 3.13 on


class Views:
    """What this process holds of others' arenas. `take` is for the thread that receives; views die anywhere."""

    def __init__(self, segment: Segment, receipts: Receipts, head_of: Callable[[int], int]) -> None:
        """`head_of(lane)` is how far this process has committed one of its incoming lanes."""
        self._segment = segment
        self._receipts = receipts
        self._head_of = head_of
        self._pagemap = _open_pagemap()
        self._pages: Pages | None = Pages(_map_privately(segment), self._pagemap)
        self._looks = Looks()
        layout = segment.layout
        self._starts = [layout.arena_range(owner)[0] for owner in range(layout.processes)]
        self._pid = os.getpid()
        self._serials = itertools.count(1)
        self._latest: dict[tuple[int, int], int] = {}  # by (owner, loan): which time it was taken
        # (owner, loan, end, serial): views gone, records not committed
        self.unsettled: list[tuple[int, int, int, int]] = []

    def take(self, owner: int, entries: Sequence[Entry], end: int, copied: bool = False) -> list[Any]:
        """Return a view of each part that a record named, whose lane ends at counter `end` behind it.

        `copied`: each part as bytes of its own, and nobody looks at the arena.

        Raises:
            EncodingError: the owner has lent no such thing to us. Nothing of it was read.
        """
        taken: list[Any] = []
        for entry in entries:
            if not self._receipts.hold(owner, entry.loan, entry.offset, entry.bytes, end):
                raise EncodingError(
                    f"a message names {entry.bytes:,} bytes at {entry.offset:,} in the arena of process {owner}, "
                    "which lent us no such thing"
                )
            # After an interrupt while decoding the record comes again: then only the later views give it back.
            serial = self._latest[owner, entry.loan] = next(self._serials)
            if copied:
                taken.append(self._copy(owner, entry, end, serial, bytes))
            else:
                view = self._look(owner, entry, end, serial)
                taken.append(view.toreadonly() if entry.flags & READ_ONLY else view)
        return taken

    def _look(self, owner: int, entry: Entry, end: int, serial: int) -> memoryview:
        """Return a view of what we hold, or a copy where its pages are others' too."""
        assert self._pages is not None
        at, read_only = self._starts[owner] + entry.offset, bool(entry.flags & READ_ONLY)
        pages = at // PAGE_BYTES, (at + entry.bytes - 1) // PAGE_BYTES
        if (read_only or entry.bytes >= _WORTH_A_VIEW) and self._looks.add(*pages, read_only):
            gone = functools.partial(self._gone, (owner, entry.loan, end, serial), pages, page_faults())
            return memoryview(self._pages.view(at, entry.bytes, gone))
        if entry.bytes >= _WORTH_A_MAPPING:
            apart = pages_apart(
                self._segment.descriptor,
                at,
                entry.bytes,
                functools.partial(self._gone_apart, owner, entry.loan, end, serial),
            )
            if apart is not None:
                return memoryview(apart)
        return memoryview(self._copy(owner, entry, end, serial, bytearray))

    def _copy(self, owner: int, entry: Entry, end: int, serial: int, kind: type[bytes] | type[bytearray]) -> Any:
        """Return a copy of what we hold, as it was sent: not of our own pages."""
        at = self._starts[owner] + entry.offset
        try:
            return kind(memoryview(self._segment.whole)[at : at + entry.bytes])
        finally:  # also where there is no memory for it
            self._give_back(owner, entry.loan, end, serial)

    def settle(self) -> None:
        """Give back what could not be given back before its record was committed."""
        waiting = list(self.unsettled)
        del self.unsettled[: len(waiting)]  # not what other threads have appended since
        for taken in waiting:
            self._give_back(*taken)

    def close(self) -> None:
        """Let go of what nobody looks at; views that are in use stay good, and are told to nobody when they go."""
        self._pid = -1
        self._pages = None
        self._receipts.close()
        if self._pagemap >= 0:
            os.close(self._pagemap)
            self._pagemap = -1

    def _gone(self, taken: tuple[int, int, int, int], pages: tuple[int, int], faults: int) -> None:
        """Nobody looks at it any more. In whichever thread; in a forked child it is not ours to say.

        `faults` are those of this process when it was taken, its pages being as sent. None since: they still are,
        unless there never were any: some kernels (gVisor's) do not count them.
        """
        mapping = self._pages
        if os.getpid() != self._pid or mapping is None:
            return
        first, last = pages
        unwritten = faults > 0 and page_faults() == faults
        if unwritten or mapping.renew(
            first * PAGE_BYTES, (last - first + 1) * PAGE_BYTES
        ):  # else it is never used again
            self._looks.remove(first)  # not before: what others come to write there must not be dropped
            self._give_back(*taken)

    def _gone_apart(self, *taken: int) -> None:
        """As `_gone`, where the pages went with the view."""
        if os.getpid() == self._pid:
            self._give_back(*taken)

    def _give_back(self, owner: int, loan: int, end: int, serial: int) -> None:
        if self._latest.get((owner, loan)) != serial:
            return  # it came again, and whoever looks at it now gives it back
        if self._head_of(owner) >= end:
            del self._latest[owner, loan]
            self._receipts.done(owner, loan)
        else:
            self.unsettled.append((owner, loan, end, serial))


def copy_of(segment: Segment, owner: int, entries: Sequence[Entry]) -> list[bytes]:
    """Return copies of what a record in somebody else's lane names: for those who tell what happened to it.

    Raises:
        EncodingError: it names what is not in the arena.
    """
    offset, size = segment.layout.arena_range(owner)
    copies = []
    for entry in entries:
        if entry.offset > size or entry.bytes > size - entry.offset:
            raise EncodingError(f"a message names {entry.bytes:,} bytes at {entry.offset:,} of an arena of {size:,}")
        start = offset + entry.offset
        copies.append(bytes(memoryview(segment.whole)[start : start + entry.bytes]))
    return copies


def _map_privately(segment: Segment) -> mmap.mmap:
    """Map the whole segment once more, so that what is written here is written to copies of its pages."""
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    size = segment.layout.segment_bytes
    return mmap.mmap(segment.descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _open_pagemap() -> int:
    """Open the list of this process's pages; -1 where it cannot be had, which costs time and nothing else."""
    try:
        return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
