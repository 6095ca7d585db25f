"""The supervisor thread: wait for what is watched and for what is due, and see to it, whatever fails.

    watched descriptors ──┐
    its own bell ─────────┼─▶ poll ─▶ what is said of each that is readable
    what is due next ─────┘

The bell says that there is something new to watch, that something is due, or that it is time to leave.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from fabric.guarded_log import GuardedLogger

_log = GuardedLogger("fabric")
_PAUSE = 0.1  # seconds until it goes on after what the machine refused


class Lookout:
    """One thread that nobody else can stand in for: no failure ends it."""

    def __init__(self, bell: int, watched: Callable[[], dict[int, Callable[[], object]]]) -> None:
        """`watched()` says anew before each wait which descriptors to look at, and what to call for each.

        `bell` is a non-blocking eventfd, which whoever made it closes when the thread has ended.
        """
        self._bell = bell
        self._watched = watched
        self._noting = threading.RLock()  # reentrant: a finalizer may run anywhere
        self._due: list[tuple[float, Callable[[], None]]] = []
        self.leaving = False
        self.thread = threading.Thread(target=self._watch, name="fabric-supervisor", daemon=True)

    def ring(self) -> None:
        """Have it look again at what is to be watched, and at what is due. Any thread."""
        os.eventfd_write(self._bell, 1)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Run a function in this thread after so many seconds, unless it leaves before. Any thread."""
        with self._noting:
            self._due.append((time.monotonic() + seconds, function))
        self.ring()

    def leave(self) -> None:
        """End the thread, and wait for that; in the thread itself it ends when what it does now is done."""
        self.leaving = True
        self.ring()
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _watch(self) -> None:
        while not self.leaving:
            try:
                self._look()
            except Exception:  # memory may be short, so that nothing is certain: look again soon
                _log.exception("the supervisor thread goes on after")
                time.sleep(_PAUSE)

    def _look(self) -> None:
        """Wait until something happens, and see to it."""
        watched = self._watched()
        watched[self._bell] = lambda: clear(self._bell)
        poller = select.poll()
        for descriptor in watched:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(self._run_due()):
            try:
                watched[descriptor]()
            except Exception:  # whatever it was: the other workers are to be watched on
                _log.exception("the supervisor thread goes on after")

    def _run_due(self) -> float | None:
        """Run what is due; return milliseconds until the next, None when there is none."""
        while not self.leaving:
            with self._noting:
                self._due.sort(key=lambda item: item[0])
                if not self._due:
                    return None
                wait = self._due[0][0] - time.monotonic()
                if wait > 0:
                    return wait * 1000 + 1
                _, function = self._due.pop(0)
            function()
        return 0


def clear(eventfd: int) -> None:
    """Take what was rung on a non-blocking eventfd, if it was."""
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(eventfd)
