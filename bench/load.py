"""An open-loop load: messages are sent when an absolute timetable says, whatever becomes of those before them.

::

    Timetable ──▶ sender A   has the turn: sleeps until something is due, takes all that is, gives the turn away,
                              sends it as one batch, waits for the replies, records
                   sender B   has the turn meanwhile ...
                   sender C   waits for the turn

So no thread hands messages to another. When all senders wait for replies, what is due waits for a sender, and as
latency is counted from when it was due, that wait is in the figures. Nothing is ever skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.timetable import Timetable

Send = Callable[[int, Any], None]  # (number of the first, when each is due, by the monotonic clock in ns)
MOST = 4_096  # messages in a batch
_LEAD_NS = 50_000_000  # until the first message is due: all senders run by then
_NAP_NS = 100_000_000  # looked at now and then: has another sender failed?


@dataclass(frozen=True)
class Pace:
    """How the messages of a timetable are sent."""

    senders: int = 4  # batches under way at a time
    every_ms: float = 1.0  # what falls due within so long is sent together; 0: each as soon as it is due
    most: int = MOST


class OpenLoop:
    """Sends what a timetable says from threads of its own. `start` is the timetable's 0, by the monotonic clock.

    It begins soon after this was made, ready or not.
    """

    def __init__(self, timetable: Timetable, pace: Pace) -> None:
        self.start = time.monotonic_ns() + _LEAD_NS
        self._timetable, self._pace = timetable, pace
        self._turn = threading.Lock()
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._send: Send | None = None
        self._last = 0
        self.batches = 0

    def run(self, send: Send, pause_s: float = 0.0, at_pause: Callable[[], None] = lambda: None) -> int:
        """Send all of it and return how many messages that were; `at_pause` is called so long after the start.

        `send` is called from several threads at once. What one of them raises ends the load and is raised here.
        """
        self._send = send
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._pace.senders)]
        for thread in threads:
            thread.start()
        if not self._failed.wait(max(0.0, (self.start - time.monotonic_ns()) / 1e9 + pause_s)):
            at_pause()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return self._timetable.taken

    def _work(self) -> None:
        try:
            while not self._failed.is_set():
                with self._turn:
                    first, due = self._timetable.taken, self._next()
                if not len(due):
                    return
                assert self._send is not None
                self._send(first, due + self.start)
        except BaseException as error:
            self._error = self._error or error
            self._failed.set()

    def _next(self) -> Any:
        """Sleep until something is due; return when each of it is. Empty: it is over. The holder of the turn only."""
        due = self._timetable.next_due
        if due is None:
            return ()
        due = max(self.start + due, self._last + int(self._pace.every_ms * 1e6))
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(min(left, _NAP_NS) / 1e9)  # which wakes up sooner than Event.wait does
            if self._failed.is_set():
                return ()
        self._last = time.monotonic_ns()
        self.batches += 1
        return self._timetable.take(self._last - self.start, self._pace.most)
