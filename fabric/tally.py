"""Count in the coordinator what is rare, where monitors read it: its threads share one writer's words."""

import threading

from fabric.layout import COUNTERS


class Tally:
    """The coordinator's counters that Python keeps. Any thread."""

    def __init__(self, counters: memoryview | None = None) -> None:
        """`counters` are those of the coordinator's block; None: nobody reads them."""
        self._counters = _unread() if counters is None else counters
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the segment; what comes still is counted for nobody."""
        with self._lock:
            self._counters = _unread()

    def add(self, counter: int, by: int = 1) -> None:
        """Add to one of fabric.counters."""
        with self._lock:
            self._counters[counter] += by


def _unread() -> memoryview:
    return memoryview(bytearray(8 * COUNTERS)).cast("Q")
