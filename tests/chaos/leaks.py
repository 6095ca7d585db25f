"""Compare what this process holds before and after: processes, threads, descriptors, memfds, /dev/shm, memory.

The lists are those of the tests' own guard (tests/conftest.py); memory is counted besides, for long runs.
"""

import gc
import time

import psutil

from tests import conftest

_MEMORY = 24 << 20  # bytes that a run may leave: the allocator gives little back


class Leaks:
    """What there is now, to be compared later. `memory`: compare that too; only after a run that warmed up."""

    def __init__(self, memory: bool = True) -> None:
        gc.collect()
        self._held = conftest._held()
        self._uss = psutil.Process().memory_full_info().uss if memory else None

    def found(self) -> list[str]:
        """Wait a while for all to go that is new; return what did not, one line each."""
        deadline = time.monotonic() + conftest.SETTLE_SECONDS
        while True:
            gc.collect()
            left = {name: detail for name, detail in conftest._held().items() if name not in self._held}
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        lines = [f"left behind: {name}: {detail}" for name, detail in sorted(left.items())]
        if self._uss is not None:
            grown = psutil.Process().memory_full_info().uss - self._uss
            if grown > _MEMORY:
                lines.append(f"left behind: {grown / 1e6:.1f} MB of memory")
        return lines
