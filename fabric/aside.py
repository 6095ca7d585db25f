"""Run what may take long, beside the thread that drains and the pump: a few threads, which end when all is done."""

import collections
import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("fabric")
_MOST = 8  # threads: what they run waits for workers, and never for one another


class Aside:
    """Jobs, and the threads that run them. Any thread; never waits."""

    def __init__(self, otherwise: Callable[[Callable[[], None]], None], most: int = _MOST) -> None:
        """`otherwise` runs a function where no thread can be had."""
        self._otherwise = otherwise
        self._most = most
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._running = 0
        self._lock = threading.Lock()

    def run(self, job: Callable[[], None]) -> None:
        """Run a function soon, in a thread of ours."""
        with self._lock:
            self._jobs.append(job)
            if self._running == self._most:
                return
            self._running += 1
        try:
            threading.Thread(target=self._work, name="fabric-request", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._otherwise(self._work)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running -= 1
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # the next has nothing to do with it
                _log.exception("a request of an agent failed")
