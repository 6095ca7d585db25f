"""Fork workers that have the imports done, and tell the coordinator of their birth and death.

    coordinator                      fork server                      worker k
      start(k, orders) ---socket---> fork ---------------------------> waits at its gate
                       <--pid, pidfd, key of the gate
      watches the pidfd, opens ---------------------------------------> worker_main
      pidfd readable                  waitid --status--socket-->
      (end of socket)  -------------> leaves; its workers go on, or end with their lifeline

It runs no user code and one thread, so that forking is safe.
"""

import os
import select
import signal
import socket
from typing import Any, NoReturn

from fabric.wire import receive_frame, send_frame


class ForkServer:
    """Forks on demand until its socket ends."""

    def __init__(self, link: socket.socket, boot: Any, worker_main: Any) -> None:
        self._link = link
        self._boot = boot
        self._worker_main = worker_main
        self._children: dict[int, tuple[int, int]] = {}  # pidfd: slot, pid

    def run(self) -> None:
        """Serve until the coordinator closes its end or dies."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor != self._link.fileno():
                    poller.unregister(descriptor)
                    self._reap(descriptor)
                    continue
                try:
                    (slot, orders), descriptors = receive_frame(self._link)
                except (EOFError, ConnectionError):
                    return
                pidfd = self._fork(slot, orders, descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
                if pidfd is None:
                    return
                poller.register(pidfd, select.POLLIN)

    def _fork(self, slot: int, orders: Any, descriptors: list[int]) -> int | None:
        """Fork a worker and tell the coordinator; None when that is gone, and the worker with it."""
        gate, key = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            os.close(key)
            self._become_worker(gate, slot, orders, descriptors)
        os.close(gate)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = slot, pid
        try:
            send_frame(self._link, ("born", slot, pid), (pidfd, key))
        except OSError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        finally:
            os.close(key)
        return pidfd

    def _become_worker(self, gate: int, slot: int, orders: Any, descriptors: list[int]) -> NoReturn:
        status = 1
        try:
            self._link.close()
            for pidfd in self._children:
                os.close(pidfd)
            if os.read(gate, 1):  # else the key was lost: nobody watches us
                os.close(gate)
                status = self._worker_main(self._boot, slot, orders, descriptors)
        finally:
            os._exit(status)

    def _reap(self, pidfd: int) -> None:
        slot, pid = self._children.pop(pidfd)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        try:
            send_frame(self._link, ("ended", slot, pid, os.waitstatus_to_exitcode(status)))
        except OSError:  # the coordinator is gone; so are we, soon
            pass


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the coordinator, which shuts its processes down in order. It came blocked from there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
