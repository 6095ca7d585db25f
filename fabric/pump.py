"""Run users' functions, and drain while nobody waits: the thread of a coordinator's Replies for that.

It exists while futures are outstanding, or functions wait to be run, and half a second after, because a thread
costs 60 us to start. Callbacks of futures and on_error always run here, never on another caller's thread.
"""

import collections
import threading
from collections.abc import Callable

from fabric.errors import FabricError
from fabric.guarded_log import GuardedLogger

_log = GuardedLogger("fabric")
LINGER = 0.5  # seconds that the pump stays without work: the next future then finds a running thread


class Pump:
    """The part of Replies that is a thread. `_lead_as_pump` says what draining is."""

    _closed: FabricError | None
    _promised: set[int]

    def __init__(self) -> None:
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._pump: threading.Thread | None = None
        self._pump_bell = threading.Event()
        self._pump_guard = threading.Lock()

    def run_later(self, job: Callable[[], None]) -> None:
        """Run a user's function in the pump."""
        self._jobs.append(job)
        self.wake_pump()

    def run_left(self) -> None:
        """Run what came too late for the pump: nobody else would."""
        if self._closed is not None:
            self._run_jobs()

    def wake_pump(self) -> None:
        """See to it that somebody drains although nobody waits."""
        with self._pump_guard:
            if self._closed is not None:
                return
            if self._pump is None:
                self._pump = threading.Thread(target=self._run_pump, name="fabric-pump", daemon=True)
                self._pump.start()
        self._pump_bell.set()

    @property
    def pump(self) -> threading.Thread | None:
        """The thread, while there is one."""
        return self._pump

    def _lead_as_pump(self) -> bool:
        """Drain until there are functions to run, or no futures any more. False: another thread drains."""
        raise NotImplementedError

    def _run_pump(self) -> None:
        while True:
            self._run_jobs()
            if self._closed is not None:
                return
            if self._promised:
                self._pump_bell.clear()
                if not self._lead_as_pump():
                    self._pump_bell.wait()  # whoever leaves the lead with futures outstanding rings it
                continue
            self._pump_bell.clear()
            if not self._jobs and not self._pump_bell.wait(LINGER):
                with self._pump_guard:
                    if not self._jobs and not self._promised and not self._pump_bell.is_set():
                        self._pump = None
                        return

    def _run_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # SystemExit too: it would end the pump, and with it all futures
                _log.exception("a callback raised")
