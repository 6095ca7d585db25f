"""Show the workers of a pool as the standard library shows its own: a dict of processes by pid."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any


class WorkerProcess:
    """One worker: the part of multiprocessing.Process that others look at. It may outlive the worker."""

    def __init__(self, pid: int, slot: int) -> None:
        self.pid = pid
        self.name = f"fabric-worker-{slot}"
        self.daemon = True
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:  # it is gone already
            self._pidfd = None

    @property
    def ident(self) -> int:
        """The pid."""
        return self.pid

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable when the process has ended; -1 when it ended long ago."""
        return -1 if self._pidfd is None else self._pidfd

    def is_alive(self) -> bool:
        """Does it run?"""
        return not self._ended(0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._ended(left) or left == 0:
                return

    def terminate(self) -> None:
        """End it (SIGTERM)."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._pidfd is not None and not self._ended(0):
            signal.pidfd_send_signal(self._pidfd, number)

    def _ended(self, timeout: float | None) -> bool:
        if self._pidfd is None:
            return True
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))

    def __del__(self) -> None:
        if getattr(self, "_pidfd", None) is not None:
            os.close(self._pidfd)  # type: ignore[arg-type]
            self._pidfd = None

    def __repr__(self) -> str:
        return f"<WorkerProcess name={self.name!r} pid={self.pid} {'started' if self.is_alive() else 'stopped'}>"


class Processes(dict[int, Any]):
    """The workers that run now, by pid. It brings itself up to date whenever it is looked at."""

    def __init__(self, look: Callable[[], dict[int, int]]) -> None:
        """`look` returns pids by slot."""
        super().__init__()
        self._look = look

    def _update(self) -> None:
        pids = {pid: slot for slot, pid in self._look().items()}
        for pid in set(super().keys()) - pids.keys():
            super().pop(pid, None)
        for pid, slot in sorted(pids.items(), key=lambda item: item[1]):
            if not super().__contains__(pid):
                super().__setitem__(pid, WorkerProcess(pid, slot))

    def __len__(self) -> int:
        self._update()
        return super().__len__()

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[int]:
        self._update()
        return super().__iter__()

    def __contains__(self, pid: object) -> bool:
        self._update()
        return super().__contains__(pid)

    def __getitem__(self, pid: int) -> Any:
        self._update()
        return super().__getitem__(pid)

    def keys(self) -> Any:
        """See dict."""
        self._update()
        return super().keys()

    def values(self) -> Any:
        """See dict."""
        self._update()
        return super().values()

    def items(self) -> Any:
        """See dict."""
        self._update()
        return super().items()
