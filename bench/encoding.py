"""What does it take to make bytes of a body, and a body of the bytes, by kind?

::

    bodies, 256 in a batch ── encode_many ──▶ sizes and one blob ── cut, decode_many ──▶ the same bodies

No process but this one; the cutting is C's and not counted. Beside it one call of pickle or orjson for each body, and
one of pickle for the whole batch, which is the least that Python can do, but of which no body can be had without the
others. orjson has no bytes, and gives lists for arrays and dicts for dataclasses; its rows show what that costs. Every
body is compared. What would change our minds: encoding by us that is slower than pickle body by body, which is what we
do.
"""

from __future__ import annotations

import importlib
import pickle
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError
from fabric.codec import Codec

ENCODE = Metric("encode", "ns a body", higher_is_better=False)
DECODE = Metric("decode", "ns a body", higher_is_better=False)
BATCH = 256
KINDS = {**bodies.KINDS, "dataclasses": "dataclasses", "arrays of 100 float64": "arrays"}
NO_JSON = ("bytes",)  # kinds that orjson refuses


@dataclass(frozen=True)
class Move:
    """A body such as simulations send."""

    step: int
    kind: str
    weight: float


def cases(quick: bool) -> list[Case]:
    """Return a case for each kind of body."""
    return [_case(name, kind, quick) for name, kind in KINDS.items()]


def make(kind: str, count: int) -> list[Any]:
    """Return distinct bodies of a kind."""
    if kind == "dataclasses":
        return [Move(index, "move", index * 0.5) for index in range(count)]
    if kind == "arrays":
        return [np.arange(100, dtype="f8") + index for index in range(count)]
    return bodies.make(kind, count)


def ours(kind: str, batches: int, *, json: bool = False) -> Sample:
    """The fabric's codec."""
    codec = Codec("json" if json else "pickle")

    def encode(some: Sequence[Any]) -> tuple[int, list[bytes]]:
        encoded = codec.encode_many(some)
        return encoded.encoding, _cut(encoded.sizes, encoded.blob, len(some))

    sent = make(kind, BATCH)
    encoding, parts = encode(sent)
    _check(codec.decode_many(encoding, parts), sent, json)
    return _timed(lambda: codec.encode_many(sent), lambda: codec.decode_many(encoding, parts), batches)


def by_pickle(kind: str, batches: int, *, whole: bool = False) -> Sample:
    """pickle, protocol 5, body by body or the whole batch."""
    sent = make(kind, BATCH)
    if whole:
        data = pickle.dumps(sent, 5)
        _check(pickle.loads(data), sent, False)
        return _timed(lambda: pickle.dumps(sent, 5), lambda: pickle.loads(data), batches)
    dumps, loads = pickle.dumps, pickle.loads
    parts = [dumps(body, 5) for body in sent]
    _check([loads(part) for part in parts], sent, False)
    return _timed(lambda: [dumps(body, 5) for body in sent], lambda: [loads(part) for part in parts], batches)


def by_orjson(kind: str, batches: int) -> Sample:
    """orjson, body by body."""
    orjson: Any = importlib.import_module("orjson")
    dumps, loads, numpy = orjson.dumps, orjson.loads, orjson.OPT_SERIALIZE_NUMPY
    sent = make(kind, BATCH)
    parts = [dumps(body, option=numpy) for body in sent]
    _check([loads(part) for part in parts], sent, True)
    return _timed(
        lambda: [dumps(body, option=numpy) for body in sent], lambda: [loads(part) for part in parts], batches
    )


def _cut(sizes: array[int] | int, blob: bytes, count: int) -> list[bytes]:
    each = [sizes] * count if isinstance(sizes, int) else sizes
    parts, start = [], 0
    for size in each:
        parts.append(bytes(blob[start : start + size]))
        start += size
    return parts


def _check(found: Sequence[Any], sent: Sequence[Any], as_json: bool) -> None:
    if len(found) != len(sent):
        raise WrongAnswerError(f"{len(found)} bodies came of {len(sent)}")
    for place, (one, other) in enumerate(zip(found, sent, strict=True)):
        due = _plain(other) if as_json else other
        if not (np.array_equal(one, due) if isinstance(other, np.ndarray) else one == due):
            raise WrongAnswerError(f"body {place} is {bodies.short(one)}, not {bodies.short(due)}")


def _plain(body: Any) -> Any:
    """Return what JSON makes of a body."""
    if isinstance(body, np.ndarray):
        return body.tolist()
    return asdict(body) if isinstance(body, Move) else body


def _timed(encode: Callable[[], Any], decode: Callable[[], Any], batches: int) -> Sample:
    values = {}
    top = _room_below()
    for name, call in ((ENCODE.name, encode), (DECODE.name, decode)):
        taken = []
        for _ in range(batches + batches // 10):
            start = time.perf_counter_ns()
            call()
            taken.append((time.perf_counter_ns() - start) / BATCH)
        values[name] = taken[batches // 10 :]
    del top
    return Sample(values, f"{batches} batches of {BATCH}")


def _room_below() -> bytes:
    """Return something at the top of the heap, with room below it.

    Without it each batch may grow the heap and give it back: page faults, which made orjson 25 times slower.
    """
    room = [bytes(1_024) for _ in range(4_096)]
    top = bytes(1_024)
    del room
    return top


def _case(name: str, kind: str, quick: bool) -> Case:
    options = {"kind": kind, "batches": 200 if quick else 1_000}
    contestants = [
        Contestant("fabric", "bench.encoding:ours", options, busy=1),
        Contestant("pickle, body by body", "bench.encoding:by_pickle", options, busy=1),
        Contestant("pickle, the batch", "bench.encoding:by_pickle", options | {"whole": True}, peer=False, busy=1),
    ]
    if kind not in NO_JSON:
        contestants.append(Contestant("orjson, body by body", "bench.encoding:by_orjson", options, "orjson", busy=1))
        contestants.append(
            Contestant('fabric, "json"', "bench.encoding:ours", options | {"json": True}, peer=False, busy=1)
        )
    return Case(name, (ENCODE, DECODE), tuple(contestants), 1 if quick else 3)
