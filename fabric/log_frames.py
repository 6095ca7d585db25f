"""Log records as frames: JSON, so that reading what a worker sent runs nothing; in pieces that a datagram holds.

    LogRecord ──encode──▶ {"record": {...}, "extra": {...}, "lost": n} ──cut──▶ flags, 32 KiB | flags, 32 KiB | ...
                                                             flags: 1 the first piece, 2 the last

A datagram arrives whole or not at all, whatever kills the one who sends it; a frame of which pieces are missing is
dropped. What is decoded is checked field by field: a worker may have gone mad.
"""

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

_PIECE_BYTES = 32 << 10
_MOST_BYTES = 4 << 20  # of a frame
_MOST_CHARACTERS = 256 << 10  # of a message, a traceback, an extra attribute; the rest is left out, and that is said
_FIRST, _LAST = 1, 2
_MOST_LEVEL = 1000  # a logger remembers each level that it was asked about
_YEAR_10000 = 253_402_300_800.0
_TEXT, _MAYBE_TEXT, _NUMBER, _MAYBE_NUMBER = (str,), (str, type(None)), (int,), (int, type(None))
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": _TEXT,
    "levelno": _NUMBER,
    "levelname": _TEXT,
    "msg": _TEXT,
    "exc_text": _MAYBE_TEXT,
    "stack_info": _MAYBE_TEXT,
    "pathname": _TEXT,
    "lineno": _NUMBER,
    "funcName": _MAYBE_TEXT,
    "created": (float, int),
    "process": _MAYBE_NUMBER,
    "thread": _MAYBE_NUMBER,
    "threadName": _MAYBE_TEXT,
    "taskName": _MAYBE_TEXT,  # Python 3.12
}
_OWN = {*_FIELDS, *vars(logging.makeLogRecord({})), *dir(logging.LogRecord), "message", "asctime", "worker"}
_formatter = logging.Formatter()


def encode_record(record: logging.LogRecord, lost: int = 0) -> bytes:
    """Return a frame of this record and of how many were lost before it. What is no plain data is rendered, or left.

    Raises:
        Exception: the arguments do not fit the message, or rendering one failed.
    """
    fields = {name: getattr(record, name, None) for name in _FIELDS}
    fields["levelno"] = min(max(record.levelno, 0), _MOST_LEVEL)
    fields["msg"] = _clip(record.getMessage())
    exc_text = record.exc_text
    if record.exc_info and not exc_text:
        exc_text = _formatter.formatException(record.exc_info)
    fields["exc_text"] = exc_text and _clip(exc_text)
    fields["stack_info"] = record.stack_info and _clip(record.stack_info)
    extra = {name: value for name, value in vars(record).items() if name not in _OWN and _is_plain(value)}
    return json.dumps({"record": fields, "extra": extra, "lost": lost}).encode()


def encode_loss(lost: int) -> bytes:
    """Return a frame that says only how many records were lost."""
    return json.dumps({"lost": lost}).encode()


def cut(frame: bytes) -> Iterator[bytes]:
    """Yield the pieces of a frame, each for one datagram."""
    for begin in range(0, len(frame), _PIECE_BYTES):
        end = begin + _PIECE_BYTES
        flags = (_FIRST if begin == 0 else 0) | (_LAST if end >= len(frame) else 0)
        yield bytes([flags]) + frame[begin:end]


class Assembler:
    """Puts the frames of one worker together again."""

    def __init__(self) -> None:
        self._parts: bytearray | None = None

    def add(self, piece: bytes) -> bytes | None:
        """Take a piece, which is not empty; return the frame that it completes, or None.

        Raises:
            ValueError: it belongs to no frame, and is dropped.
        """
        parts, self._parts = self._parts, None
        flags = piece[0]
        if flags & _FIRST:
            parts = bytearray()  # what lay here has no end: the worker gave it up, and counts it
        if parts is None or flags > _FIRST | _LAST or len(parts) + len(piece) > _MOST_BYTES:
            raise ValueError("no piece of a frame, or one of a frame that is too long")
        parts += piece[1:]
        if flags & _LAST:
            return bytes(parts)
        self._parts = parts
        return None


def decode_record(frame: bytes, worker: int) -> tuple[logging.LogRecord | None, int]:
    """Return the record of a frame, as if `worker` had logged here, and how many were lost before it.

    Raises:
        ValueError: this is no frame.
    """
    try:
        content = json.loads(frame)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("no frame")
    lost, fields, extra = content.get("lost"), content.get("record"), content.get("extra")
    if type(lost) is not int or not 0 <= lost < 2**53:
        raise ValueError("no count of what was lost")
    if fields is None:
        return None, lost
    if not isinstance(fields, dict) or not isinstance(extra, dict):
        raise ValueError("no record")
    values = {name: value for name, value in extra.items() if name.isidentifier() and name not in _OWN}
    for name, kinds in _FIELDS.items():
        value = values[name] = fields.get(name)
        if type(value) not in kinds:
            raise ValueError(f"{name} is of type {type(value).__name__}")
    if not 0 <= values["levelno"] <= _MOST_LEVEL or not 0 <= values["created"] < _YEAR_10000:
        raise ValueError("no such level or time")
    return make_record(worker, **values), lost


def make_record(worker: int, **values: Any) -> logging.LogRecord:
    """Make a record of this process's factory that names the worker; what is not given is as of now."""
    record = logging.makeLogRecord({"worker": worker, "processName": f"fabric-worker-{worker}"})
    created = record.created
    vars(record).update(values)
    record.relativeCreated += (record.created - created) * 1000
    record.msecs = float(int(record.created % 1 * 1000))
    record.filename = os.path.basename(record.pathname)
    record.module = os.path.splitext(record.filename)[0]
    return record


def _is_plain(value: object) -> bool:
    try:
        return len(json.dumps(value)) <= _MOST_CHARACTERS
    except (TypeError, ValueError, RecursionError):
        return False


def _clip(text: str) -> str:
    more = len(text) - _MOST_CHARACTERS
    return text if more <= 0 else f"{text[:_MOST_CHARACTERS]}... ({more:,} more characters)"
