"""The files that workers leave their Python stack in: when they crash, and when they are asked where they hang.

    shm-fabric-stack   made by the coordinator, which reads it: crashes, STACK_SIGNAL before a hung worker is killed
    shm-fabric-look    made by the worker: LOOK_SIGNAL, for whoever looks on from outside and empties it again

Two, so that what an onlooker asked for is never taken for what a worker died of.
"""

import contextlib
import faulthandler
import fcntl
import os
import time

from fabric.messages import LOOK_SIGNAL

LOOK_FILE = "shm-fabric-look"

_MOST_BYTES = 64 << 10
_PATIENCE = 0.5  # seconds that a hung worker has to say where it hangs
_LOOK = 0.02


def answer_onlookers() -> None:
    """Have this worker leave its Python stack in a file of its own whenever LOOK_SIGNAL comes, whatever it does then.

    Without a descriptor to spare it leaves none, and the signal is not caught; an onlooker sees both.
    """
    try:
        file = os.memfd_create(LOOK_FILE, os.MFD_CLOEXEC)
        os.fchmod(file, 0o600)
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)  # others empty it
    except OSError:
        return
    faulthandler.register(LOOK_SIGNAL, file)


class Stacks:
    """One anonymous file for the worker of each slot, which faulthandler writes to there and nobody else."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}

    def new(self, slot: int) -> int:
        """Return an empty file for a worker that is about to start; that of its predecessor is closed."""
        old = self._files.pop(slot, None)
        if old is not None:
            os.close(old)
        self._files[slot] = os.memfd_create("shm-fabric-stack", os.MFD_CLOEXEC)
        return self._files[slot]

    def read(self, slot: int) -> str:
        """Return what was left, "" for nothing."""
        stack = self._files.get(slot)
        return "" if stack is None else os.pread(stack, _MOST_BYTES, 0).decode("utf-8", "replace")

    def wait(self, slot: int) -> None:
        """Wait a little for a worker that was asked for its stack. One that is stopped leaves none."""
        stack = self._files.get(slot)
        if stack is None:
            return
        deadline = time.monotonic() + _PATIENCE
        size = -1
        while time.monotonic() < deadline and not 0 < size == os.fstat(stack).st_size:
            size = os.fstat(stack).st_size
            time.sleep(_LOOK)

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        files, self._files = self._files, {}
        for stack in files.values():
            with contextlib.suppress(OSError):
                os.close(stack)
