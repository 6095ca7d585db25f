"""Time what is too short to be timed each time: all of what is large, and of what is small each 16th for all 16."""

import time
from collections.abc import Callable, MutableSequence

_EACH = 16
_LARGE = 64  # messages
_clock = time.perf_counter_ns


class Stopwatch:
    """Times encoding, or decoding, of batches. Threads may share it, and lose a sample at worst."""

    def __init__(self, count: Callable[[int], None]) -> None:
        """`count` is called with nanoseconds."""
        self._count = count
        self._turn = 0

    def start(self, messages: int) -> int:
        """Return when a batch began, or 0: it is not timed."""
        if messages < _LARGE:
            self._turn = turn = (self._turn + 1) % _EACH
            if turn:
                return 0
        return _clock()

    def stop(self, started: int, messages: int) -> None:
        """Count a batch that was timed."""
        took = _clock() - started
        self._count(took if messages >= _LARGE else _EACH * took)


def add(counters: MutableSequence[int] | memoryview, counter: int, by: int) -> None:
    """Add to a counter that nobody else writes to."""
    counters[counter] += by
