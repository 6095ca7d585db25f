"""Run what may take long, beside the thread that drains and the pump: a few threads, which end when all is done."""

import collections
import threading
from collections.abc import Callable

from fabric.guarded_log import GuardedLogger

_log = GuardedLogger("fabric")
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
        try:
            while (job := self._next()) is not None:
                try:
                    job()
                except Exception:  # the next has nothing to do with it
                    _log.exception("a request of an agent failed")
        except BaseException:  # SystemExit, or what was raised into this thread: another may take its place
            with self._lock:
                self._running -= 1
            raise

    def _next(self) -> Callable[[], None] | None:
        """Return what is to be run next; None, and this thread is counted no more, when there is nothing."""
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._running -= 1
            return None
