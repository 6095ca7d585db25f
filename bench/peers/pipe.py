"""multiprocessing.Pipe, with send_bytes and recv_bytes: nothing is pickled."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

from bench.latency import ping
from bench.peers import stream
from bench.sample import Sample

STOP = b"stop"


def tell(messages: int) -> Sample:
    """Stream the messages through a one-way pipe."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with stream.consumer(_consume, reader, messages) as verdicts:

        def send_all(bodies: list[bytes]) -> None:
            for body in bodies:
                writer.send_bytes(body)

        return stream.send(verdicts, messages, send_all)


def ask(trips: int, silence_us: float) -> Sample:
    """Send one message and wait for its echo."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_echo, args=(theirs,), daemon=True)
    process.start()
    try:

        def there_and_back(body: bytes) -> bytes:
            ours.send_bytes(body)
            return ours.recv_bytes()

        return ping(there_and_back, trips, silence_us)
    finally:
        ours.send_bytes(STOP)
        process.join()


def _consume(verdicts: Connection, reader: Connection, messages: int) -> None:
    stream.consume(verdicts, messages, lambda due: [reader.recv_bytes() for _ in range(due)])


def _echo(connection: Connection) -> None:
    while (body := connection.recv_bytes()) != STOP:
        connection.send_bytes(body)
