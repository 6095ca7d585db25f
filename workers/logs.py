"""Send what is logged in a worker to the coordinator, and what is written to its stdout and stderr.

    logging ──▶ root logger ──▶ ForwardHandler ──datagrams──▶ coordinator: the logger of the same name
    print, C ──▶ descriptors 1 and 2 ──pipes────────────────▶ coordinator: logger "fabric.output"

Nothing is kept here: a record is on its way when the call that logged it returns, whoever is killed next.
"""

import io
import logging
import os
import select
import socket
import sys
import time

from fabric.config import FabricConfig
from fabric.log_frames import cut, encode_loss, encode_record

_PATIENCE = 1.0  # seconds to wait for a coordinator that does not read; then records are dropped until it does


class ForwardHandler(logging.Handler):
    """Sends records to the coordinator at once, or counts those that it did not take in time."""

    def __init__(self, link: socket.socket, patience: float = _PATIENCE) -> None:
        super().__init__()
        self._link = link
        self._patience = patience
        self._lost = 0
        self._stuck = False  # has it not read for so long that it is not waited for again?

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. Waits for room, but not for ever."""
        try:
            frame = encode_record(record, self._lost)
        except Exception:
            self.handleError(record)
            return
        self._lost = 0 if self._send(frame) else self._lost + 1

    def flush(self) -> None:
        """Say how many records were lost, where no later one has said it."""
        if self._lost and self._send(encode_loss(self._lost)):
            self._lost = 0

    def _send(self, frame: bytes) -> bool:
        deadline = time.monotonic() + (0 if self._stuck else self._patience)
        for piece in cut(frame):
            while not self._sent(piece):
                left = deadline - time.monotonic()
                if left <= 0 or not self._wait(left):
                    self._stuck = True
                    return False
        self._stuck = False
        return True

    def _sent(self, piece: bytes) -> bool:
        try:
            self._link.send(piece, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except ConnectionError:  # the coordinator is gone, and nobody will ever read it
            return True
        except OSError:
            return False
        return True

    def _wait(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._link, select.POLLOUT)
        return bool(poller.poll(seconds * 1000))


def connect(config: FabricConfig, levels: dict[str, int], descriptors: list[int]) -> None:
    """Put to use the channels that the coordinator opened for this worker."""
    channels = list(descriptors)
    if config.forward_logs:
        forward_logs(channels.pop(0), levels)
    if config.capture_output:
        capture_output(*channels)


def forward_logs(descriptor: int, levels: dict[str, int]) -> None:
    """Send records from here on, those that the coordinator's `levels` (by logger, "" the root) let pass."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    logging.getLogger().addHandler(ForwardHandler(socket.socket(fileno=descriptor)))


def capture_output(stdout: int, stderr: int) -> None:
    """Make these two pipes what everybody here writes to, C code and child processes too, line by line."""
    for pipe, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(pipe, descriptor)
        os.close(pipe)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # else a line may lie here when we are killed
        else:  # the coordinator has none
            setattr(sys, name, open(descriptor, "w", buffering=1, closefd=False))  # noqa: SIM115 - stays open
    _buffer_lines_in_c()


def _buffer_lines_in_c() -> None:
    import ctypes  # 5 ms, and only here

    libc = ctypes.CDLL(None)
    try:
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, ctypes.c_size_t(0))  # 1 is _IOLBF
    except (AttributeError, ValueError):  # a libc without them: its lines come when its buffer is full
        pass
