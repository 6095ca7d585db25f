"""pyzmq over ipc://: PUSH to PULL one way, REQ to REP there and back."""

from __future__ import annotations

import importlib
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.bodies import SIZE
from bench.latency import ping
from bench.peers import stream
from bench.sample import Sample

zmq: Any = importlib.import_module("zmq")

HIGH_WATER = 65_536  # messages, as many as a lane of ours holds
STOP = b"stop"


def tell(messages: int, *, size: int = SIZE) -> Sample:
    """Stream the messages from a PUSH socket to a PULL socket."""
    with tempfile.TemporaryDirectory(prefix="zmq-") as folder:
        address = f"ipc://{Path(folder, 'stream')}"
        with stream.consumer(_consume, address, messages) as verdicts, zmq.Context() as context:
            verdicts.recv_bytes()  # it has bound its socket
            with context.socket(zmq.PUSH) as push:
                push.set_hwm(HIGH_WATER)
                push.connect(address)

                def send_all(bodies: list[bytes]) -> None:
                    for body in bodies:
                        push.send(body)

                return stream.send(verdicts, messages, send_all, size=size)


def ask(trips: int, silence_us: float) -> Sample:
    """Send one message from a REQ socket and wait for the reply of a REP socket."""
    with tempfile.TemporaryDirectory(prefix="zmq-") as folder:
        address = f"ipc://{Path(folder, 'echo')}"
        process = multiprocessing.Process(target=_echo, args=(address,), daemon=True)
        process.start()
        with zmq.Context() as context, context.socket(zmq.REQ) as request:
            request.connect(address)  # waits for the other side if it has not bound yet

            def there_and_back(body: bytes) -> bytes:
                request.send(body)
                reply: bytes = request.recv()
                return reply

            try:
                return ping(there_and_back, trips, silence_us)
            finally:
                request.send(STOP)
                request.recv()
                process.join()


def _consume(verdicts: Connection, address: str, messages: int) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.set_hwm(HIGH_WATER)
        pull.bind(address)
        verdicts.send_bytes(stream.READY)
        stream.consume(verdicts, messages, lambda due: [pull.recv() for _ in range(due)])


def _echo(address: str) -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as reply:
        reply.bind(address)
        body = b""
        while body != STOP:
            body = reply.recv()
            reply.send(body)
