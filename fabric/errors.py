"""Name every failure of the fabric by whose fault it is.

    FabricError
    ├── ClosedError             the caller: it closed this fabric, pool or queue, then used it
    ├── BackpressureError       the pace: a send that must not wait found no room
    ├── MessageTooLargeError    the message: more bytes than a lane or an arena takes
    ├── EncodingError           the message: it cannot be encoded, or may not be decoded here
    ├── AgentError              the agent: its code raised
    ├── AgentNotFoundError      the address: the agent stopped, or never was
    ├── WorkerLostError         the process: it died with the message in its hands
    ├── PoisonMessageError      the message: it killed its worker too often
    ├── SpawnError              the batch: some of its agents were not made
    └── LayoutError             the segment: not ours, or another version's

A wrong argument is the builtin ValueError or TypeError, and a wait that took too long the builtin
TimeoutError; they are not here. All of these errors travel between processes, so each survives pickling with
its attributes.
"""

import errno
import signal
from collections.abc import Mapping
from typing import Any

_SHOWN_FAILURES = 3

_SIGNAL_HINTS = {
    "SIGKILL": "the kernel sends SIGKILL when memory runs out (see dmesg)",
    "SIGSEGV": "PYTHONFAULTHANDLER=1 shows where",
    "SIGBUS": "a mapped file or the memory behind it ran out (see dmesg)",
}


class FabricError(Exception):
    """Catch this to catch every error that the fabric itself raises.

    Pickling keeps the text and the attributes of any subclass, whatever its constructor takes. As with all
    Python exceptions, `__cause__` and `__traceback__` stay behind.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), self.__dict__ or None


class ClosedError(FabricError):
    """Tell the caller that it already closed what it now uses."""


class BackpressureError(FabricError):
    """Tell a sender that must not wait that the lane is full or the agent paused; it may try again later."""


class MessageTooLargeError(FabricError):
    """Refuse a message of `size` bytes where `limit` is the most; `what` names what was too large."""

    def __init__(self, size: int, limit: int, what: str = "message") -> None:
        super().__init__(
            f"a {what} of {size:,} bytes is over the limit of {limit:,} bytes: "
            "send it in parts, lend it with loan() or share(), or raise the limit in FabricConfig"
        )
        self.size = size
        self.limit = limit


class EncodingError(FabricError):
    """Tell the sender that a body cannot be encoded, or the receiver that it cannot or may not be decoded."""


class AgentError(FabricError):
    """Report that an agent's own code raised.

    `str()` shows the remote traceback under the message. Whoever raises this sets the original exception as
    `__cause__` where it could be pickled; `agent` is the agent's name or address, "" where it is not known.
    """

    def __init__(self, message: str, remote_traceback: str = "", agent: str = "") -> None:
        super().__init__(message)
        self.remote_traceback = remote_traceback
        self.agent = agent

    def __str__(self) -> str:
        message = super().__str__()
        if not self.remote_traceback:
            return message
        return f"{message}\n\nRemote traceback:\n{self.remote_traceback.rstrip()}"


class AgentNotFoundError(FabricError):
    """Tell the sender that nobody is at this address: the agent stopped, or never was."""


class WorkerLostError(FabricError):
    """Report that a worker process died, and how.

    `exitcode` follows `multiprocessing`: 0 or more is an exit status, below 0 a signal's number, None not
    known. `signal_name` is "" unless a signal ended it; `message` says which message it was in, "" for none.
    A `pid` of 0 is that of a worker that could not be started; then `message` says why.
    """

    def __init__(self, worker: int, pid: int, exitcode: int | None, message: str = "") -> None:
        self.worker = worker
        self.pid = pid
        self.exitcode = exitcode
        self.signal_name = _signal_name(exitcode)
        self.message = message
        hint = _SIGNAL_HINTS.get(self.signal_name, "")
        ending = f"; {hint}" if hint else ""
        if pid == 0:
            super().__init__(f"worker {worker} could not be started: {message}")
        else:
            during = f" while it handled {message}" if message else ""
            super().__init__(f"worker {worker} (pid {pid}) {self._how()}{during}{ending}")

    def _how(self) -> str:
        if self.exitcode is None:
            return "died (exit status not known)"
        if self.signal_name:
            return f"was killed by {self.signal_name}"
        return f"exited with code {self.exitcode}"


class PoisonMessageError(FabricError):
    """Give up on a message because `attempts` workers died of it; `message` says which message it was."""

    def __init__(self, message: str, attempts: int) -> None:
        super().__init__(
            f"{message} killed its worker {attempts} times and will not be tried again: "
            "look for a crash in native code or for memory use in its handler, or raise max_attempts"
        )
        self.message = message
        self.attempts = attempts


class SpawnError(FabricError):
    """Report that agents of a batch were not made.

    `failures` maps an agent's index in the batch to the reason, an exception or a text. It is empty when the
    batch was refused as a whole. The text names the first three.
    """

    def __init__(self, message: str, failures: Mapping[int, BaseException | str] | None = None) -> None:
        self.failures: dict[int, BaseException | str] = dict(failures or {})
        super().__init__(message + _first_failures(self.failures))


class LayoutError(FabricError):
    """Refuse a segment that is not ours, is damaged, or was laid out by another version."""


def advice(error: OSError) -> str:
    """Say what to do about an error that the machine's limits cause; "" where it is none of those."""
    return _LIMITS.get(error.errno or 0, "")


_LIMITS = {
    errno.EMFILE: "; raise the limit of open files, ulimit -n, or lower max_workers",
    errno.ENFILE: "; the machine has no more open files to give, see fs.file-max",
    errno.ENOMEM: "; free memory, lower arena_bytes, lane_bytes or max_workers, or raise the address space, ulimit -v",
    errno.EFBIG: "; lower arena_bytes, lane_bytes or max_workers, or raise the limit of file sizes, ulimit -f",
    errno.EAGAIN: "; raise the limit of processes, ulimit -u, or of address space, ulimit -v",
    errno.EPERM: "; a container's seccomp profile may forbid it",
    errno.ENOSYS: "; this kernel is too old, or a container's seccomp profile forbids it",
}


def _rebuild(kind: type[FabricError], args: tuple[Any, ...]) -> FabricError:
    """Make an unpickled error without its constructor, whose arguments need not be those in `args`."""
    return kind.__new__(kind, *args)


def _signal_name(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return ""
    try:
        return signal.Signals(-exitcode).name
    except ValueError:  # real-time signals between the first and the last have no name
        return f"signal {-exitcode}"


def _first_failures(failures: Mapping[int, BaseException | str]) -> str:
    if not failures:
        return ""
    shown = [f"agent {index}: {_reason(failures[index])}" for index in sorted(failures)[:_SHOWN_FAILURES]]
    rest = len(failures) - len(shown)
    return ": " + "; ".join(shown) + (f"; and {rest:,} more" if rest else "")


def _reason(failure: BaseException | str) -> str:
    text = failure if isinstance(failure, str) else f"{type(failure).__name__}: {failure}"
    return text.partition("\n")[0].rstrip(": ")
