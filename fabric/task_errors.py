"""Say what went wrong with a task in the standard library's terms, and in ours: errors here are both.

what the worker tells                              what the future raises
  the task raised, the exception came              that exception, its cause a _RemoteTraceback
  its result cannot be pickled                     the pickling's own error, likewise
  it cannot be unpickled, on either side           BrokenEncodingError        (EncodingError, BrokenProcessPool)
  its worker died                                  BrokenWorkerLostError      (WorkerLostError, BrokenProcessPool)
  ... once too often                               BrokenPoisonMessageError   (PoisonMessageError, BrokenProcessPool)
"""

from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import Any

from fabric.errors import EncodingError, FabricError, PoisonMessageError, WorkerLostError
from fabric.messages import ErrorInfo
from fabric.pending import NO_REPLIES, error_in
from fabric.remote_errors import revive


class BrokenEncodingError(EncodingError, BrokenProcessPool):
    """Report that a task or its result could not be read where it arrived. Other tasks go on."""


class BrokenWorkerLostError(WorkerLostError, BrokenProcessPool):
    """Report that the worker that ran a task died. Other tasks go on."""


class BrokenPoisonMessageError(PoisonMessageError, BrokenProcessPool):
    """Report that a task killed its worker too often. Other tasks go on."""


def outcome(body: Any, name: str) -> tuple[Any, BaseException | None]:
    """Return (result, None) of a reply, or (None, what its future is to raise). `name` is the task's function."""
    if type(body) not in NO_REPLIES:
        return body, None
    if type(body) is ErrorInfo:
        return None, error_of(body, name)
    error = error_in(body)
    if isinstance(error, EncodingError):
        return None, _like(BrokenEncodingError, error, f"the result of {name}: {error}")
    return None, broken(error, name)


def error_of(info: ErrorInfo, name: str) -> BaseException:
    """Return what the future of a task raises of which a worker told this."""
    error = revive(info)
    original = error.__cause__
    if info.what == "agent" and original is not None:
        original.__cause__ = _remote(info.traceback)
        return original
    if isinstance(error, EncodingError):
        if original is not None and str(error).startswith("the reply"):
            original.__cause__ = _remote(str(error))
            return original
        return _like(BrokenEncodingError, error, f"{name}: {error}")
    return broken(error, name)


def _remote(text: str) -> BaseException:
    """Return what the standard library shows a traceback of another process by."""
    wrapped: BaseException = _RemoteTraceback(f'\n"""\n{text}"""')  # type: ignore[arg-type]  # typeshed errs
    return wrapped


def broken(error: BaseException | None, name: str) -> BaseException:
    """Return an error of the fabric's as one that is a BrokenProcessPool too, and names the task."""
    if isinstance(error, WorkerLostError):
        during = _in_words_of_tasks(error.message, name)
        return _noted(BrokenWorkerLostError(error.worker, error.pid, error.exitcode, during), error)
    if isinstance(error, PoisonMessageError):
        return _noted(BrokenPoisonMessageError(_in_words_of_tasks(error.message, name), error.attempts), error)
    if isinstance(error, FabricError):
        return BrokenProcessPool(f"the task {name} is lost: {error}")
    return error or BrokenProcessPool(f"the task {name} is lost")


def _in_words_of_tasks(message: str, name: str) -> str:
    """Name the task where an error says "a message asked of agent 3 (last: ...)": whose task it is knows no agents."""
    _, bracket, rest = message.partition(" (")
    return f"the task {name}{bracket}{rest}"


def _like(kind: Any, error: BaseException, text: str) -> BaseException:
    made: BaseException = kind(text)
    made.__cause__ = error.__cause__
    return made


def _noted(made: BaseException, error: BaseException) -> BaseException:
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
