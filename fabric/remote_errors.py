"""Errors on their way: described where they are raised, as what can travel, and rebuilt where they are told.

                       describe(error)                      revive(info)
    of a user's code ───────────────────▶ ErrorInfo: texts, ─────────────▶ AgentError, its cause the exception itself
    of the fabric's  ───────────────────▶ and a pickle of   ─────────────▶ the same error again
                       refusal(error)     the exception       revive(info)

The texts travel without pickles; where those are not allowed, the exception itself stays behind.
"""

import json
import pickle
import traceback as tracebacks
from collections.abc import Callable
from typing import Any

from fabric.errors import (
    AgentError,
    AgentNotFoundError,
    EncodingError,
    FabricError,
    MessageTooLargeError,
    PoisonMessageError,
    WorkerLostError,
)
from fabric.messages import ErrorInfo, show
from fabric.pickling import CRASHES, dump_pickle

_CAUSE_LIMIT = 65_536  # bytes of what caused an error: it must never be why the error itself is too large to be sent
_TEXT_LIMIT = 16_384  # of an error's message or traceback on its way


class Undecodable:
    """Stands for a body that could not be decoded, or is not to be handled, so that the rest can go on."""

    __slots__ = ("error",)

    def __init__(self, error: FabricError) -> None:
        self.error = error


def refusal(error: FabricError, cause: BaseException | None = None) -> ErrorInfo:
    """Describe an error of the fabric's own, which is rebuilt at the other end without any pickle.

    But for what caused it (by default its `__cause__`): that goes with an EncodingError, for who takes pickles.
    """
    what = next((name for name, kind in _OURS.items() if type(error) is kind), "encoding")
    arguments = _ARGUMENTS[what](error) if what in _ARGUMENTS else [str(error)]
    cause = cause or error.__cause__
    data = _dump_exception(cause) if what == "encoding" and cause is not None else None
    return ErrorInfo(what, _dump_line(arguments).decode(), "", 0, data if len(data or b"") <= _CAUSE_LIMIT else None)


# Errors of the fabric that travel as the arguments of their constructors, by the name they travel under.
_OURS: dict[str, type[FabricError]] = {
    "not_found": AgentNotFoundError,
    "encoding": EncodingError,
    "too_large": MessageTooLargeError,
    "poison": PoisonMessageError,
    "lost": WorkerLostError,
}
_ARGUMENTS: dict[str, Callable[[Any], list[Any]]] = {
    "too_large": lambda error: [error.size, error.limit, "reply"],
    "poison": lambda error: [error.message, error.attempts],
    "lost": lambda error: [error.worker, error.pid, error.exitcode, error.message],
}


def describe(error: BaseException, what: str = "agent", agent: int = 0, frames_to_skip: int = 1) -> ErrorInfo:
    """Make of an exception what can travel. One that cannot be pickled travels as text alone."""
    frame = error.__traceback__
    for _ in range(frames_to_skip):
        frame = frame.tb_next if frame is not None and frame.tb_next is not None else frame
    try:
        lines = tracebacks.format_exception(type(error), error, frame)
        message = f"{type(error).__name__}: {error}"
    except CRASHES as problem:  # an exception whose __str__ raises
        lines, message = [], f"{type(error).__name__} (its text cannot be shown: {type(problem).__name__})"
    return ErrorInfo(what, _clipped(message), _clipped("".join(lines)), agent, _dump_exception(error))


def _dump_exception(error: BaseException) -> bytes | None:
    """Pickle an exception; None where that cannot be done, or not be undone."""
    try:
        data = dump_pickle(error)
        pickle.loads(data)  # an exception whose constructor wants more than its args fails only here
    except CRASHES:
        return None
    return data


def _clipped(text: str) -> str:
    """Return a text, or its beginning and its end when it is too long to travel."""
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"


def revive(info: ErrorInfo, allow_pickle: bool = True) -> FabricError:
    """Make of a described error what the one who asked gets raised."""
    if info.what in _OURS:
        try:
            error: FabricError = _OURS[info.what](*json.loads(info.message))
        except Exception as problem:  # no worker of ours writes such arguments
            return EncodingError(f"an error ({info.what}) arrived that cannot be read: {type(problem).__name__}")
    else:
        error = AgentError(f"{show(info.agent)} raised {info.message}", info.traceback, show(info.agent))
    if info.exception is not None and allow_pickle:
        try:
            error.__cause__ = pickle.loads(info.exception)
        except CRASHES as problem:  # its class cannot be had here: the text has to do
            error.add_note(f"(the original exception cannot be rebuilt here: {type(problem).__name__}: {problem})")
    return error


def dump_error(info: ErrorInfo) -> bytes:
    """Lay out an error: its texts as JSON, so that no pickle is read to learn them, then the exception."""
    return _dump_line([*info[:-1]]) + (info.exception or b"")


def _dump_line(values: list[Any]) -> bytes:
    """Say texts and numbers in a line of JSON, by the slow module: orjson dies where it is first imported too late.

    Its import is a SIGSEGV when the table of descriptors is full, which is when there are errors to be told.
    Lone surrogates, as in names of files, are shown as escapes.
    """
    shown = [v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v for v in values]
    return json.dumps(shown).encode() + b"\n"


def load_error(data: bytes) -> ErrorInfo:
    """Read what `dump_error` laid out, but for the pickle of the exception.

    Raises:
        EncodingError: its parts are not of the types they should be. What is no JSON raises whatever that raises.
    """
    head, _, exception = data.partition(b"\n")  # JSON of this kind has no newline but the one at its end
    what, message, traceback, agent = json.loads(head)
    if [*map(type, (what, message, traceback, agent))] != [str, str, str, int]:
        raise EncodingError("an error arrived whose parts are not of the types they should be")
    return ErrorInfo(what, message, traceback, agent, exception or None)
