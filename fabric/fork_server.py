"""The fork server as the coordinator sees it: asked for workers, heard of births and ends, replaced once it was killed.

coordinator process                                      fork server           worker k
  asked(k) ----- orders and descriptors ---------------> fork ------------->  waits at its gate
  hear     <---- born: pid, its pidfd, the gate's key --                      |
           ----- born() watches it, then the gate is opened ----------------> runs
  hear     <---- ended: pid, exit status, which only its parent can know

Where the server dies instead of doing what it was asked for, that is told of each worker as of one that died.
"""

import contextlib
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from fabric.launch import launch
from fabric.messages import Boot
from fabric.wire import receive_frame, send_frame

_PATIENCE = 5.0  # seconds that it has to leave once its socket has ended
_STATUS_PATIENCE = 1.0  # seconds that the exit status of a dead worker may take


class ForkServer:
    """The process that forks the workers of one fabric, while there is one, and the socket to it."""

    def __init__(
        self,
        starting: threading.Lock,
        born: Callable[[int, int, int], None],
        stillborn: Callable[[int, str], None],
    ) -> None:
        """`born(slot, pid, pidfd)` or `stillborn(slot, why)` is told of each worker asked for, by whoever hears.

        `starting` is held by whoever starts the server or asks it: one frame at a time on the socket.
        """
        self._starting = starting
        self._born = born
        self._stillborn = stillborn
        self.process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._noting = threading.Lock()
        self.expected: set[int] = set()  # slots whose worker it has been asked for
        self._statuses: dict[int, int] = {}

    @property
    def pid(self) -> int | None:
        """The process, None when there is none."""
        process = self.process
        return None if process is None else process.pid

    @property
    def linked(self) -> bool:
        """Can it be asked? It may have been killed, and nobody have heard of that yet."""
        return self._link is not None

    def start(self, boot: Boot) -> None:
        """Launch it. OSError: there is no process or no descriptor to be had."""
        self.process, self._link = launch(boot)
        with contextlib.suppress(ConnectionError):  # it is dead already: whoever hears, or sends next, finds out
            send_frame(self._link, boot)

    def kill(self) -> None:
        """Kill it; its end of the socket tells, and another one is started when it is needed."""
        process = self.process
        if process is not None:
            process.kill()

    @contextlib.contextmanager
    def asked(self, slot: int) -> Iterator[socket.socket]:
        """Give the socket to ask for the worker of a slot. An OSError meanwhile ends the server, and is not raised."""
        assert self._link is not None
        with self._noting:
            self.expected.add(slot)
        try:
            yield self._link
        except OSError:  # killed: the watcher reads what it had still to say, then takes note of what it left undone
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_WR)
        except BaseException:
            with self._noting:
                self.expected.discard(slot)
            raise

    def watched(self) -> dict[int, Callable[[], object]]:
        """Return what to call when which descriptor can be read."""
        if self._link is not None and self._link.fileno() >= 0:
            return {self._link.fileno(): self._hear}
        return {}

    def exit_status(self, pid: int) -> int | None:
        """Return how a dead worker ended; waits for word of it, and hears what comes before. None: nobody can know."""
        deadline = time.monotonic() + _STATUS_PATIENCE
        while pid not in self._statuses and time.monotonic() < deadline:
            link = self._link
            if link is None or link.fileno() < 0:
                return None  # the fork server, its parent, is dead: nobody can know
            if select.select([link], [], [], _STATUS_PATIENCE)[0]:
                self._hear()
        return self._statuses.pop(pid, None)

    def close(self) -> None:
        """Have it leave, and wait for that. Safe to call twice, and it may be started again."""
        if self._link is not None:
            self._link.close()
        if self.process is not None:
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:  # stopped by somebody: it would never leave
                self.process.kill()
                self.process.wait()
        self.process = self._link = None

    def _hear(self) -> None:
        link = self._link
        if link is None or not select.select([link], [], [], 0)[0]:  # read meanwhile, by exit_status
            return
        try:
            (event, slot, pid, *rest), descriptors = receive_frame(link)
        except (EOFError, OSError):
            self._ended(link)
            return
        if event == "born":
            self._greet(slot, pid, descriptors)
            return
        self._statuses[pid] = rest[0]

    def _ended(self, link: socket.socket) -> None:
        """Take note that the fork server was killed, and of what it left undone; it is replaced when it is needed."""
        with self._starting:
            if self._link is link:
                self.close()
            with self._noting:
                undone, self.expected = self.expected, set()
        for slot in sorted(undone):
            self._stillborn(slot, "the fork server died before it had done so")

    def _greet(self, slot: int, pid: int, descriptors: list[int]) -> None:
        """Have a worker that was forked watched, and only then open its gate."""
        with self._noting:
            self.expected.discard(slot)
        if len(descriptors) < 2:  # our table of descriptors is full: without its key it ends at the gate
            for descriptor in descriptors:
                os.close(descriptor)
            self._stillborn(slot, "there is no descriptor left to watch it by; raise the limit, ulimit -n")
            return
        pidfd, key = descriptors
        self._born(slot, pid, pidfd)
        with contextlib.suppress(OSError):  # it is dead: its pidfd says so
            os.write(key, b"\0")
        os.close(key)
