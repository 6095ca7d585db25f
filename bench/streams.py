"""How many items a second does a stream carry, against the size of its items and its window?

::

    this process  ◀── for item in ref.ask_stream(...) ── items, a window ahead ──  a generator in one worker
                  ── ref.send_stream(chunks) ──────────▶ an agent that counts the bytes

Two cores. The reader checks the number and the length of each item, the agent the bytes in all. The peer runs
the same generator in a forked process, whose items go through a multiprocessing.Pipe one by one, pickled; the
pipe's 64 KiB are its window. What would change our minds: a Pipe that is faster at any size with a window of
16 would say that a stream should be a pipe of its own; a window of 256 no faster than 16, that 16 is enough.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError, timed, warm_up
from fabric import Agent, Fabric, StreamChunk

ITEMS = Metric("items", "items/s")
SIZES = {"64 B": 64, "64 KiB": 64 << 10}
WINDOWS = (1, 256)
_NUMBER_BYTES = 8


class Maker(Agent):
    """Yields items of a size."""

    def on_message(self, body: tuple[int, int]) -> Iterator[bytes]:
        return make(*body)


class Taker(Agent):
    """Counts the bytes of a stream; the reply to its last chunk says how many."""

    def __init__(self) -> None:
        self.bytes = 0

    def on_message(self, chunk: StreamChunk) -> int | None:
        self.bytes += len(chunk.data)
        if not chunk.is_last:
            return None
        found, self.bytes = self.bytes, 0
        return found


def make(items: int, size: int) -> Iterator[bytes]:
    """Yield numbered items."""
    padding = bytes(size - _NUMBER_BYTES)
    for number in range(items):
        yield number.to_bytes(_NUMBER_BYTES) + padding


def cases(quick: bool) -> list[Case]:
    """Return a case for each direction and size."""
    found = []
    for shown, size in SIZES.items():
        options = {"items": (20_000 if size < 1_000 else 2_000) if quick else (200_000 if size < 1_000 else 10_000)}
        options["size"] = size
        for direction in ("yielded", "sent"):
            found.append(Case(f"{direction}, {shown}", (ITEMS,), _contestants(direction, options), 1 if quick else 3))
    return found


def _contestants(direction: str, options: dict[str, Any]) -> tuple[Contestant, ...]:
    call = f"bench.streams:{direction}"
    usual = Contestant("fabric, window 16", call, options)
    others = [Contestant(f"window {w}", call, options | {"window": w}, peer=False) for w in WINDOWS]
    return usual, Contestant("multiprocessing.Pipe, pickled", f"bench.streams:{direction}_by_pipe", options), *others


def yielded(items: int, size: int, window: int = 16) -> Sample:
    """Read what an agent yields."""
    with Fabric(workers=1) as fabric:
        ref = fabric.spawn_batch(Maker, 1)[0]
        _read(ref.ask_stream((warm_up(items), size), window=window), warm_up(items), size)
        seconds, _ = timed(lambda: _read(ref.ask_stream((items, size), window=window), items, size))
    return Sample({"items": [items / seconds]}, f"{items:,} items of {size:,} bytes")


def sent(items: int, size: int, window: int = 16) -> Sample:
    """Send an agent what is made here."""
    with Fabric(workers=1) as fabric:
        ref = fabric.spawn_batch(Taker, 1)[0]
        _check(ref.send_stream(make(warm_up(items), size), window=window), warm_up(items) * size)
        seconds, found = timed(lambda: ref.send_stream(make(items, size), window=window))
    _check(found, items * size)
    return Sample({"items": [items / seconds]}, f"{items:,} items of {size:,} bytes")


def yielded_by_pipe(items: int, size: int) -> Sample:
    """Read what a process puts into a pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_put, args=(theirs,), daemon=True)
    process.start()
    ours.send((warm_up(items), size))
    _read((ours.recv() for _ in range(warm_up(items))), warm_up(items), size)

    def read() -> None:
        ours.send((items, size))
        _read((ours.recv() for _ in range(items)), items, size)

    seconds, _ = timed(read)
    ours.send(None)
    process.join()
    return Sample({"items": [items / seconds]}, f"{items:,} items of {size:,} bytes")


def sent_by_pipe(items: int, size: int) -> Sample:
    """Put what is made here into a pipe; a process counts it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_take, args=(theirs,), daemon=True)
    process.start()

    def send(count: int) -> int:
        for item in make(count, size):
            ours.send(item)
        ours.send(None)
        return int(ours.recv())

    _check(send(warm_up(items)), warm_up(items) * size)
    seconds, found = timed(lambda: send(items))
    _check(found, items * size)
    ours.send(0)
    process.join()
    return Sample({"items": [items / seconds]}, f"{items:,} items of {size:,} bytes")


def _put(connection: Connection) -> None:
    while (wanted := connection.recv()) is not None:
        for item in make(*wanted):
            connection.send(item)


def _take(connection: Connection) -> None:
    found = 0
    while (item := connection.recv()) != 0:
        if item is None:
            connection.send(found)
            found = 0
        else:
            found += len(item)


def _read(stream: Iterator[bytes], items: int, size: int) -> None:
    number = 0
    for item in stream:
        if len(item) != size or int.from_bytes(item[:_NUMBER_BYTES]) != number:
            raise WrongAnswerError(f"item {number} is {len(item)} bytes of number {item[:_NUMBER_BYTES]!r}")
        number += 1
    _check(number, items)


def _check(found: int, due: int) -> None:
    if found != due:
        raise WrongAnswerError(f"{found:,} came of {due:,}")
