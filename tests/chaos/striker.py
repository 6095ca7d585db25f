"""Deal the blows of a schedule to a running fabric, in a thread."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from fabric import AgentRef, Fabric
from tests.chaos.schedule import Blow

STALLED = 5.0  # seconds without a completed message after which the next blow falls all the same
_LOOK = 0.001


class Striker(threading.Thread):
    """Strikes until the schedule is done, or `over` is set. `done` says what was dealt."""

    def __init__(
        self,
        fabric: Fabric,
        blows: Sequence[Blow],
        completed: Callable[[], int],
        over: threading.Event,
        bombers: Sequence[AgentRef],
    ) -> None:
        super().__init__(name="chaos-striker")
        self._crew = fabric._supervisor.crew
        self._blows = blows
        self._completed = completed
        self._over = over
        self._bombers = bombers  # one on each worker
        self.bombs = [0] * len(bombers)
        self.dealt: dict[str, int] = {}
        self.kills = 0
        self.stalls = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Deal all blows."""
        try:
            for blow in self._blows:
                self._await(self._completed() + blow.messages)
                if self._over.wait(blow.pause):
                    return
                self._strike(blow)
                self.dealt[blow.act] = self.dealt.get(blow.act, 0) + 1
        except BaseException as error:
            self.error = error

    def _await(self, count: int) -> None:
        deadline = time.monotonic() + STALLED
        while self._completed() < count and not self._over.wait(_LOOK):
            if time.monotonic() > deadline:
                self.stalls += 1
                return

    def _strike(self, blow: Blow) -> None:
        match blow.act:
            case "bomb":
                where = blow.rank % len(self._bombers)
                self._bombers[where].tell((self.bombs[where], blow.calls))
                self.bombs[where] += 1
                self.kills += 1
            case "kill":
                self._kill(blow.rank)
            case "kill all":
                for rank in range(len(self._crew.workers)):
                    self._kill(rank)
            case "kill twice":
                before = self._kill(blow.rank)
                if self._reborn(before):
                    self._kill(blow.rank)
            case "stop":
                with self._worker(blow.rank) as pidfd:
                    self._pause(pidfd, blow.lasting)
            case "kill server":
                self._signal_server(signal.SIGKILL)
            case "kill with server":
                self._kill(blow.rank)
                self._over.wait(blow.pause)
                self._signal_server(signal.SIGKILL)
            case "stop server":
                self._signal_server(signal.SIGSTOP)
                self._over.wait(blow.lasting)
                self._signal_server(signal.SIGCONT)

    def _kill(self, rank: int) -> int:
        """Kill a worker; return its pid, 0 when none runs."""
        with self._worker(rank) as pidfd:
            if pidfd is None:
                return 0
            _send(pidfd, signal.SIGKILL)
            self.kills += 1
            return self._pid

    @contextlib.contextmanager
    def _worker(self, rank: int) -> Iterator[int | None]:
        """Give a pidfd of our own to a running worker: its number may be another's by the time we strike."""
        with self._crew._changed:
            workers = sorted(self._crew._workers.values())
            worker = workers[rank % len(workers)] if workers else None
            pidfd = None if worker is None else os.dup(worker.pidfd)
        self._pid = 0 if worker is None else worker.pid
        try:
            yield pidfd
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _reborn(self, before: int) -> bool:
        """Wait until a worker that was killed has its successor, for a while."""
        with self._crew._changed:
            return self._crew._changed.wait_for(
                lambda: (
                    before not in {worker.pid for worker in self._crew._workers.values()}
                    and len(self._crew._workers) > 0
                ),
                timeout=1.0,
            )

    def _pause(self, pidfd: int | None, lasting: float) -> None:
        if pidfd is not None:
            _send(pidfd, signal.SIGSTOP)
            self._over.wait(lasting)
            _send(pidfd, signal.SIGCONT)

    def _signal_server(self, what: int) -> None:
        server = self._crew.server.process
        if server is not None and server.poll() is None:  # not yet waited for: the pid is still its own
            server.send_signal(what)
            self.kills += what == signal.SIGKILL


def _send(pidfd: int, what: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, what)
