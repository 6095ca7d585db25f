"""Pickle what `multiprocessing` gives to the processes that it starts itself: locks, events, queues, pipes, arrays.

Such objects can only be pickled while a process is being started, by whom it is. So it is pretended that one is:

    coordinator   dumps(obj) ── "starting a process" ──▶ name of a semaphore, or (pid, descriptor, what it refers to)
    worker        pickle.loads ──▶ opens the semaphore by its name, and the descriptor by /proc/PID/fd/NUMBER

A worker, and the successor of one that died, can do so for as long as the coordinator keeps the object.
"""

import fcntl
import io
import os
import sys
from collections import ChainMap
from typing import Any, ClassVar, NamedTuple

from fabric.errors import EncodingError
from fabric.pickling import dump_pickle
from fabric.reopening import identity_of, reopen

_REMEDY = 'make them with multiprocessing.get_context("forkserver"), whose objects have names that others can open'


def dumps(obj: Any) -> bytes:
    """Pickle constructor arguments for workers, where `pickle.loads` makes them again.

    What is no object of multiprocessing goes as by fabric.pickling.dump_pickle. Keep `obj` while it may be loaded.

    Raises:
        EncodingError: something cannot be pickled, or is of multiprocessing and only a forked child can have it.
    """
    context: Any = sys.modules.get("multiprocessing.context")
    if context is None:  # then there are no such objects
        return dump_pickle(obj)
    before = context.get_spawning_popen()
    context.set_spawning_popen(_Starting())
    try:
        return _dump(obj)
    finally:
        context.set_spawning_popen(before)


def _dump(obj: Any) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    buffer = io.BytesIO()
    forking = ForkingPickler(buffer, 5)
    try:
        forking.dump(obj)
        data = buffer.getvalue()
        if b"__main__" not in data:
            return data
    except EncodingError:  # ours: see below
        raise
    except (Exception, SystemExit):  # a lambda, a local class, or what cannot be pickled at all: cloudpickle knows
        pass
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = ChainMap(cloudpickle.Pickler.dispatch_table, forking.dispatch_table)

    buffer = io.BytesIO()
    try:
        Pickler(buffer, 5).dump(obj)
    except EncodingError:
        raise
    except (Exception, SystemExit) as error:
        raise EncodingError(f"{type(obj).__name__} cannot be pickled: {_why(error)}") from error
    return buffer.getvalue()


def _why(error: BaseException) -> str:
    if isinstance(error, RuntimeError) and "fork context" in str(error):
        return f"locks, events and queues of multiprocessing's fork context have no name: {_REMEDY}"
    return f"{type(error).__name__}: {error}"


class _Starting:
    """What multiprocessing takes for a process that is being started."""

    inherits = False  # what has better ways to be opened over there (fabric.queue_holder) looks at this

    def duplicate_for_child(self, descriptor: int) -> int:
        """Nothing is inherited: it is opened over there."""
        return descriptor

    def DupFd(self, descriptor: int) -> "Descriptor":  # noqa: N802 - multiprocessing calls it so
        """Return what a worker gets in the place of a descriptor."""
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.startswith(("socket:", "anon_inode:")):  # those cannot be opened by a path
            raise EncodingError(
                f"descriptor {descriptor} ({name}) can only be inherited: what is needed is a pipe or a file; "
                "multiprocessing.Pipe(duplex=False) makes pipes"
            )
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        return Descriptor(os.getpid(), descriptor, identity_of(descriptor), access)


class Descriptor(NamedTuple):
    """A descriptor of the process that pickled it, to be opened in the one that does not."""

    pid: int
    number: int
    identity: tuple[int, int]  # of what it refers to
    access: int  # O_RDONLY, O_WRONLY or O_RDWR

    def detach(self) -> int:
        """Open it here, as multiprocessing does once for each that it rebuilds.

        Raises:
            OSError: the other process has closed it, or is gone.
        """
        return reopen(self.pid, self.number, self.identity, self.access)
