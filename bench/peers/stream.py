"""What all one-way peers share: the producer's clock and the consumer's check.

::

    this process                                  consumer process
    send_all(bodies)  ───── the peer's way ─────▶  keeps them in order
    clock stops       ◀──── a pipe: "arrived" ───  when the last one is there
    compares          ◀──── count, digest ───────  outside the clock
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from bench import bodies
from bench.sample import Sample, WrongAnswerError, warm_up

ARRIVED = b"arrived"
READY = b"ready"


@contextmanager
def consumer(target: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """Start `target(verdicts, *arguments)` in a process and give the other end of `verdicts`.

    Raises: WrongAnswerError when the process does not end with status 0.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
        process.join(10)
        if process.exitcode != 0:
            raise WrongAnswerError(f"the consumer ended with status {process.exitcode}")
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        ours.close()


def consume(verdicts: Connection, messages: int, receive: Callable[[int], list[bytes]]) -> None:
    """In the consumer: receive the warm-up, then the messages, and hand back count and digest of each."""
    for due in (warm_up(messages), messages):
        seen = receive(due)
        verdicts.send_bytes(ARRIVED)
        verdicts.send((len(seen), bodies.digest(seen)))


def send(
    verdicts: Connection,
    messages: int,
    send_all: Callable[[list[bytes]], None],
    note: str = "",
    size: int = bodies.SIZE,
) -> Sample:
    """In the producer: send the warm-up, then the messages, timed until the consumer has them all.

    Raises: WrongAnswerError when what arrived is not what was sent, in that order.
    """
    everything = bodies.sized(messages, size)
    for part in (everything[: warm_up(messages)], everything):
        start = time.perf_counter()
        send_all(part)
        accepted = time.perf_counter() - start
        arrived = verdicts.recv_bytes()
        handled = time.perf_counter() - start
        check(verdicts.recv(), part)
        if arrived != ARRIVED:
            raise WrongAnswerError(f"the consumer says {arrived!r}")
    values = {"handled": [messages / handled], "accepted": [messages / accepted]}
    return Sample(values, f"{messages:,} messages" + (f", {note}" if note else ""))


def check(verdict: tuple[int, str], sent: list[bytes]) -> None:
    """Compare count and digest of what arrived with what was sent.

    Raises: WrongAnswerError.
    """
    wanted = len(sent), bodies.digest(sent)
    if verdict != wanted:
        raise WrongAnswerError(f"{verdict[0]:,} arrived, digest {verdict[1]}; due were {wanted[0]:,}, {wanted[1]}")
