"""Say what went wrong with a task of a Pool in multiprocessing's terms, and in ours.

what the worker tells                              what `get` raises
  the task raised, the exception came              that exception, its cause a RemoteTraceback
  ... but cannot be pickled                        MaybeEncodingError, likewise
  its result cannot be pickled                     MaybeEncodingError
  its worker died                                  WorkerLostError, PoisonMessageError (fabric.task_errors)
  (the pool was terminated)                        ClosedError
"""

import multiprocessing
from concurrent.futures.process import _RemoteTraceback
from multiprocessing.pool import MaybeEncodingError, RemoteTraceback  # type: ignore[attr-defined]  # they are there
from typing import Any

from fabric.errors import ClosedError, EncodingError
from fabric.messages import ErrorInfo
from fabric.pool_runner import Unsendable
from fabric.task_errors import error_of


class TimedOutError(multiprocessing.TimeoutError, TimeoutError):
    """Report that a result did not come in time: multiprocessing's TimeoutError, and the builtin one too."""


def pool_error(reported: Any, name: str) -> BaseException:
    """Return what is raised for an item or a task with this outcome; `name` is its function."""
    if type(reported) is Unsendable:
        refused: BaseException = MaybeEncodingError(reported.error, reported.value)
        if reported.traceback:
            refused.__cause__ = RemoteTraceback(reported.traceback)
        return refused
    error: BaseException = error_of(reported, name) if type(reported) is ErrorInfo else reported
    if type(error) is EncodingError:  # it was never sent
        return error.__cause__ or error
    cause = error.__cause__
    if type(cause) is ClosedError:
        return ClosedError(str(cause))
    if type(cause) is _RemoteTraceback:
        error.__cause__ = RemoteTraceback(cause.tb)
    return error
