"""Hand what workers log and print to the coordinator's logging, in the supervisor thread.

    worker 3: logging ─────datagrams──▶ Records ──┐
              stdout, stderr ──pipes──▶ Lines ────┴──▶ logging.getLogger(name).handle(record), record.worker = 3

Each worker has channels of its own, so that who says something is known and not believed. They are read when the
supervisor's poll says so, a share at a time, and once more to their end when their worker is dead, before that is told.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from fabric.config import FabricConfig
from fabric.guarded_log import print_problem
from fabric.log_frames import Assembler, decode_record, make_record

_log = logging.getLogger("fabric")
_output = logging.getLogger("fabric.output")
_SHARE = 256  # datagrams, or reads of a pipe, that are handled before the supervisor looks at the other workers
_LAST_SHARES = 64  # for one that is dead: a child of it may write for ever
_PIECE_BYTES = 64 << 10  # more than log_frames cuts
_LINE_BYTES = 64 << 10  # a longer line is cut
_MOST_NAMES = 1000  # of loggers that workers alone know: a logger is never forgotten
_NAME_CHARACTERS = 200


class Reader(Protocol):
    """One channel of a worker."""

    ended: bool

    def fileno(self) -> int:
        """Return the descriptor to poll."""

    def read(self) -> bool:
        """Hand on what is there; False: that was all for now, or there is nothing more to come (`ended`)."""

    def finish(self) -> None:
        """Hand on what was kept back, as no more will come."""

    def close(self) -> None:
        """Close our end. Safe to call twice."""


class WorkerOutput:
    """The channels of all workers of one fabric."""

    def __init__(self, config: FabricConfig, pid_of: Callable[[int], int | None]) -> None:
        self._forward = config.forward_logs
        self._capture = config.capture_output
        self._pid_of = pid_of
        self._readers: dict[int, list[Reader]] = {}
        self._new_names = 0
        self.dropped = 0  # records that were lost, or that nobody could read

    @contextlib.contextmanager
    def opened(self, slot: int) -> Iterator[list[int]]:
        """Open the channels of a worker that is about to start; its ends are ours until the context is left."""
        self._close(self._readers.pop(slot, []))  # of one that never came to be
        readers = self._readers[slot] = []
        theirs: list[int] = []
        try:
            if self._forward:
                link, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                readers.append(Records(slot, link, self._deliver, self._lose))
                theirs.append(end.detach())
            for level in (logging.INFO, logging.WARNING) if self._capture else ():
                pipe, writer = os.pipe2(os.O_CLOEXEC)
                theirs.append(writer)
                readers.append(Lines(slot, pipe, level, self._deliver, self._pid_of))
            yield theirs
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def watched(self) -> dict[int, Callable[[], object]]:
        """Return what to poll, and what to call when there is something."""
        readers = [reader for readers in list(self._readers.values()) for reader in readers if not reader.ended]
        return {reader.fileno(): reader.read for reader in readers}

    def finish(self, slot: int) -> None:
        """Read the channels of a dead worker to their end, and close them."""
        readers = self._readers.pop(slot, [])
        for reader in readers:
            shares = _LAST_SHARES
            while shares and not reader.ended and reader.read():
                shares -= 1
            reader.finish()
        self._close(readers)

    def close(self) -> None:
        """Close all that is open. Safe to call twice."""
        for slot in list(self._readers):
            self._close(self._readers.pop(slot, []))

    def _close(self, readers: list[Reader]) -> None:
        for reader in readers:
            reader.close()

    def _deliver(self, record: logging.LogRecord) -> None:
        """Have the logger of that name handle a record, by the levels that hold here. Raises nothing."""
        logger = self._logger_of(record.name)
        try:
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        except Exception:  # of a handler or filter of the user: this thread has workers to watch
            print_problem()

    def _logger_of(self, name: str) -> logging.Logger:
        known = name in logging.root.manager.loggerDict or name == logging.root.name
        if not known and (self._new_names >= _MOST_NAMES or len(name) > _NAME_CHARACTERS):
            return logging.root
        self._new_names += not known
        return logging.getLogger(name)

    def _lose(self, slot: int, count: int, why: str) -> None:
        """Count records that are lost, and say so if `why` does."""
        self.dropped += count
        if why:
            values = {"name": _log.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": why, "worker": slot}
            self._deliver(logging.makeLogRecord(values))


def coordinator_levels() -> dict[str, int]:
    """Return the level of the root logger ("") and of each that has one of its own: workers need send no less."""
    floor = logging.root.manager.disable + 1 if logging.root.manager.disable else 0
    loggers = [("", logging.root), *logging.root.manager.loggerDict.copy().items()]
    levels = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger)}
    return {name: max(level, floor) for name, level in levels.items() if level or not name}


class Records:
    """The log records of one worker."""

    def __init__(
        self,
        slot: int,
        link: socket.socket,
        deliver: Callable[[logging.LogRecord], None],
        lose: Callable[[int, int, str], None],
    ) -> None:
        self._slot = slot
        self._link = link
        self._deliver = deliver
        self._lose = lose
        self._assembler = Assembler()
        self._unreadable = 0
        self.ended = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._link.fileno()

    def read(self) -> bool:
        """Hand on a share of what is there. False: that was all."""
        for _ in range(_SHARE):
            try:
                piece = self._link.recv(_PIECE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                piece = b""
            if not piece:  # its end is closed, or it says that it has nothing to say
                self.ended = True
                return False
            self._take(piece)
        return True

    def finish(self) -> None:
        """Do nothing: a frame that is not whole is no record."""

    def close(self) -> None:
        """Close our end. Safe to call twice."""
        self.ended = True
        self._link.close()

    def _take(self, piece: bytes) -> None:
        try:
            frame = self._assembler.add(piece)
            record, lost = (None, 0) if frame is None else decode_record(frame, self._slot)
        except ValueError:
            self._unreadable += 1
            seldom = str(self._unreadable).strip("0") == "1"  # the 1st, 10th, 100th: whoever sends these sends many
            why = f"worker {self._slot} sent what is no log record, {self._unreadable:,} times now: dropped"
            self._lose(self._slot, 1, why if seldom else "")
            return
        if lost:
            why = f"worker {self._slot} dropped {lost:,} log records: they were not read in time"
            self._lose(self._slot, lost, why)
        if record is not None:
            self._deliver(record)


class Lines:
    """What one worker writes to stdout or stderr, line by line."""

    def __init__(
        self,
        slot: int,
        pipe: int,
        level: int,
        deliver: Callable[[logging.LogRecord], None],
        pid_of: Callable[[int], int | None],
    ) -> None:
        self._slot = slot
        os.set_blocking(pipe, False)
        self._pipe = open(pipe, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._level = level
        self._deliver = deliver
        self._pid_of = pid_of
        self._rest = b""
        self.ended = False

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._pipe.fileno()

    def read(self) -> bool:
        """Hand on the lines of what is there, a buffer full. False: there is nothing."""
        try:
            data = self._pipe.read(_LINE_BYTES)
        except (OSError, ValueError):
            data = b""
        if not data:
            self.ended = data is not None
            return False
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE_BYTES:
            lines.append(rest[:_LINE_BYTES])
            rest = rest[_LINE_BYTES:]
        self._rest = rest
        for line in lines:
            self._say(line)
        return True

    def finish(self) -> None:
        """Hand on a last line that has no end."""
        rest, self._rest = self._rest, b""
        if rest:
            self._say(rest)

    def close(self) -> None:
        """Close our end. Safe to call twice."""
        self.ended = True
        self._pipe.close()

    def _say(self, line: bytes) -> None:
        if _output.isEnabledFor(self._level):
            text = line.decode("utf-8", "replace").rstrip("\r")
            kind = logging.getLevelName(self._level)
            pid = self._pid_of(self._slot)
            values = {"name": _output.name, "levelno": self._level, "levelname": kind, "msg": text, "process": pid}
            self._deliver(make_record(self._slot, **values))
