"""Count how long the event loop of a worker sleeps, as the C core counts its own waits: it is time without work."""

import selectors
import time
from collections.abc import MutableSequence
from typing import Any

from fabric.counters import WAITED_NS, WAITING_SINCE_NS


class IdleSelector(selectors.EpollSelector):
    """What an event loop waits with."""

    def __init__(self, counters: MutableSequence[int] | memoryview) -> None:
        """`counters` are the worker's."""
        super().__init__()
        self._counters = counters

    def select(self, timeout: float | None = None) -> Any:
        """Wait as the loop asks for, and count that."""
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        counters = self._counters
        start = counters[WAITING_SINCE_NS] = time.monotonic_ns()
        try:
            return super().select(timeout)
        finally:
            counters[WAITED_NS] += time.monotonic_ns() - start
            counters[WAITING_SINCE_NS] = 0
