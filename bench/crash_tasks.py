"""The tasks that are lost or not when a worker is killed, and how a program keeps count of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

WORKERS = 2
TASKS, SECONDS = 200, 0.01


class Tally(NamedTuple):
    """What became of the tasks. The rest hangs."""

    finished: int
    errors: int


def work(number: int, seconds: float, data: Any = None) -> int:
    """The task."""
    time.sleep(seconds)
    return number


class Futures:
    """Gathers futures; what a user of them starts from."""

    def begin(self, count: int, seconds: float) -> None:
        """Start tasks 0 to count - 1."""
        self._refused = 0
        self._futures: list[Future[int]] = []
        for number in range(count):
            try:
                self._futures.append(self.submit(number, seconds))
            except Exception:  # a pool that is broken takes no more
                self._refused += 1

    def submit(self, number: int, seconds: float) -> Future[int]:
        """Start one task."""
        raise NotImplementedError

    def gather(self, deadline: float) -> Tally:
        """Wait for the tasks until then."""
        done, _ = wait(self._futures, max(0.0, deadline - time.monotonic()))
        right = [
            future.exception() is None and future.result() == number
            for number, future in enumerate(self._futures)
            if future in done
        ]
        return Tally(sum(right), len(right) - sum(right) + self._refused)


class Called:
    """Iterates over the results of one call, in a thread: calls that hang do so there."""

    def begin(self, count: int, seconds: float) -> None:
        """Start tasks 0 to count - 1."""
        self._count, self._results, self._failed = count, [], False
        self._thread = threading.Thread(target=self._collect, args=(count, seconds), daemon=True)
        self._thread.start()

    def _collect(self, count: int, seconds: float) -> None:
        try:
            for result in self.call(count, seconds):
                self._results.append(result)
        except BaseException:
            self._failed = True

    def call(self, count: int, seconds: float) -> Iterable[int]:
        """Make the call."""
        raise NotImplementedError

    def gather(self, deadline: float) -> Tally:
        """Wait for the call until then."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        finished = len(set(self._results))
        return Tally(finished, self._count - finished if self._failed else 0)
