"""Check, split, pack and open records: what array agents are sent. Pure: arrays go in, chunks and views come out.

    tell_records(ids, records) -> checked once -> blocks -> a Part for each range in a block -> pack -> lane
    on_records(ids, records)   <- views           <- open_rows              <- Chunk (fabric.chunk)

A block is so many rows that each range gets about a chunk of them: it is looked at while it is in the cache.
Nothing here runs once a row in Python.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabric.chunk import HAS_IDS, HEAD, MOST_COUNT, Chunk, rows_offset
from fabric.errors import EncodingError, MessageTooLargeError

Array = NDArray[Any]
_FEW = 1024  # ids that are looked at first: most that are not in order show it at once


class RowType:
    """A dtype of records, checked: its fingerprint, and views and checks by it.

    Raises:
        TypeError: the dtype holds objects, or has no bytes; `what` names it in the message.
    """

    __slots__ = ("base", "dtype", "fingerprint", "itemsize", "raw", "shape")

    def __init__(self, dtype: Any, what: str) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype.hasobject or self.dtype.char == "T":
            raise TypeError(f"{what} is {self.dtype}, which holds objects: records are raw bytes, use plain fields")
        if self.dtype.itemsize == 0:
            raise TypeError(f"{what} is {self.dtype}, which has no bytes: give it a field")
        base, shape = self.dtype.subdtype or (self.dtype, ())
        self.base: np.dtype[Any] = base
        self.shape: tuple[int, ...] = shape
        self.raw = np.dtype(("V", base.itemsize))  # copied as bytes, padding too: by fields it is slower
        self.itemsize = int(self.dtype.itemsize)
        described = _describe(self.dtype).encode()
        self.fingerprint = int.from_bytes(hashlib.blake2b(described, digest_size=8).digest(), "little")

    def checked(self, records: Any, what: str = "records") -> Array:
        """Return records as an array of one row a message. It may be a view of what was given.

        Raises:
            EncodingError: their dtype is another.
            ValueError: they are not in one dimension.
        """
        rows = np.asarray(records)
        if rows.ndim == 0 or rows.ndim != 1 + len(self.shape):
            raise ValueError(f"{what} of shape {rows.shape}: give one row a message, in one dimension")
        if rows.shape[1:] != self.shape or not _equal(rows.dtype, self.base):
            wrong = rows.dtype if rows.shape[1:] == () else np.dtype((rows.dtype, rows.shape[1:]))
            raise EncodingError(f"{what} of dtype {wrong} where dtype {self.dtype} is wanted: see astype()")
        return rows

    def empty(self, count: int) -> Array:
        """Return room for so many rows."""
        return np.empty((count, *self.shape), self.base)

    def rows_in(self, data: Any, count: int, offset: int) -> Array:
        """View rows that lie in a buffer."""
        flat = np.frombuffer(data, self.base, count * (self.itemsize // self.base.itemsize), offset)
        return flat.reshape((count, *self.shape))

    def most_rows(self, limit: int, has_ids: bool) -> int:
        """Return how many rows a chunk of `limit` bytes takes, at least one.

        Raises:
            MessageTooLargeError: not even one.
        """
        row = self.itemsize + (8 if has_ids else 0)
        head = rows_offset(1, has_ids) - (8 if has_ids else 0)
        if head + row > limit:
            raise MessageTooLargeError(head + row, limit)
        return min(int(limit - head) // row, MOST_COUNT)

    def some_rows(self, wanted_bytes: int, most: int) -> int:
        """Return how many rows a chunk of about so many bytes takes: one or more, up to `most`."""
        return min(most, max(1, wanted_bytes // (self.itemsize + 8)))


class Part(NamedTuple):
    """Rows of a call that go to one range as one chunk: those in `span`, or of them those that `order` names."""

    range_index: int
    span: slice
    order: Array | None

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.span.stop - self.span.start if self.order is None else len(self.order))

    def put(self, rows: Array, into: Array) -> None:
        """Write the rows of this part's reply where the rows that it asked stood."""
        if self.order is None:
            into[self.span] = rows
        else:
            into[self.span][self.order] = rows


def checked_ids(ids: Any, count: int) -> Array:
    """Return ids of agents as int64; a view of what was given where that is so already.

    Raises:
        ValueError: not one dimension; an id is not from 0 to `count` - 1: the first such, and where.
        TypeError: not whole numbers.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids of shape {array.shape}: give one id a message, in one dimension")
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids of dtype {array.dtype}: give whole numbers")
    if array.min() < 0 or array.max() >= count:
        where = int(np.flatnonzero((array < 0) | (array >= count))[0])
        raise ValueError(f"id {array[where]} at position {where:,} names no agent: they go from 0 to {count - 1:,}")
    return array.astype(np.int64, copy=False)


def checked_call(ids: Any, records: Any, count: int, rows: RowType) -> tuple[Array, Array]:
    """Return the ids and records of a call. ValueError: unequal lengths; else as the checks of each."""
    ids, records = checked_ids(ids, count), rows.checked(records)
    if len(ids) != len(records):
        raise ValueError(f"{len(ids):,} ids and {len(records):,} records: give one record for each id")
    return ids, records


def split(ids: Array, bounds: Sequence[int], target: int, most: int) -> Iterator[list[Part]]:
    """Split a call into blocks, and each into parts of one range each, its rows in the order that they have.

    `bounds` has where each range begins, and the end. A part has about `target` rows, never more than `most`.
    """
    if len(bounds) == 2:
        for start in range(0, len(ids), target):
            yield [Part(0, slice(start, min(start + target, len(ids))), None)]
    elif _in_order(ids):
        yield from _in_turn(np.searchsorted(ids, bounds).tolist(), target)
    else:
        inner = np.asarray(bounds[1:-1])
        rows = target * (len(bounds) - 1)
        for start in range(0, len(ids), rows):
            span = slice(start, min(start + rows, len(ids)))
            yield list(_grouped(ids[span], span, inner, most))


def _in_order(ids: Array) -> bool:
    few = ids[: _FEW + 1]
    return bool((few[1:] >= few[:-1]).all() and (ids[1:] >= ids[:-1]).all())


def _in_turn(cuts: list[int], target: int) -> Iterator[list[Part]]:
    """Take a chunk for each range by turns, so that all workers have something to do from the first on."""
    starts, stops = cuts[:-1], cuts[1:]
    while True:
        block = []
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            if start < stop:
                starts[index] = min(start + target, stop)
                block.append(Part(index, slice(start, starts[index]), None))
        if not block:
            return
        yield block


def _grouped(ids: Array, span: slice, inner: Array, most: int) -> Iterator[Part]:
    """Group the rows of a block by range."""
    if len(inner) == 1:
        owners = (ids >= inner[0]).view(np.uint8)
    else:
        owners = np.searchsorted(inner, ids, side="right").astype(np.uint8 if len(inner) < 256 else np.uint16)
    order = owners.argsort(kind="stable")  # of so small a type that is a counting sort
    at = 0
    for index, count in enumerate(np.bincount(owners).tolist()):
        if count == len(ids) <= most:
            yield Part(index, span, None)
            return
        for start in range(at, at + count, most):
            yield Part(index, span, order[start : min(start + most, at + count)])
        at += count


def pack(rows: RowType, part: Part, ids: Array, records: Array, room: Array | None = None) -> Array:
    """Lay out a part of a call as a chunk; return its bytes, which are in `room` where that is large enough."""
    count = part.rows
    at = rows_offset(count, True)
    size = at + count * rows.itemsize
    body = np.empty(size, np.uint8) if room is None or len(room) < size else room[:size]
    HEAD.pack_into(body.data, 0, rows.fingerprint, count, HAS_IDS)
    ids_end = HEAD.size + 8 * count
    body[ids_end:at] = 0
    ids_out, rows_out = body[HEAD.size : ids_end].view(np.int64), rows.rows_in(body, count, at).view(rows.raw)
    ids, raw = ids[part.span], records[part.span].view(rows.raw)
    if part.order is None:
        ids_out[:] = ids
        rows_out[:] = raw
    else:  # mode: with "raise" numpy would go through a copy
        ids.take(part.order, out=ids_out, mode="clip")
        raw.take(part.order, axis=0, out=rows_out, mode="clip")
    return body


def pack_rows(rows: RowType, records: Array) -> bytes:
    """Lay out a reply: rows without ids."""
    head = HEAD.pack(rows.fingerprint, len(records), 0)
    return b"".join((head, np.ascontiguousarray(records.view(rows.raw)).reshape(-1).view(np.uint8).data))


def open_rows(chunk: Chunk, rows: RowType, ids: range | None, what: str) -> tuple[Array | None, Array]:
    """Return views of the ids and rows of a chunk that arrived, read-only; of a reply (`ids` None) only the rows.

    Raises:
        EncodingError: the dtype is not the one expected, the length does not fit, or an id is not in `ids`.
    """
    if chunk.fingerprint != rows.fingerprint or chunk.has_ids != (ids is not None):
        raise EncodingError(
            f"{what}: {chunk.count:,} records arrived whose dtype (fingerprint {chunk.fingerprint:016x}) is not "
            f"{rows.dtype} (fingerprint {rows.fingerprint:016x})"
        )
    at = rows_offset(chunk.count, chunk.has_ids)
    if len(chunk.data) != at + chunk.count * rows.itemsize:
        raise EncodingError(f"{what}: {len(chunk.data):,} bytes arrived for {chunk.count:,} records of {rows.dtype}")
    records = rows.rows_in(chunk.data, chunk.count, at)
    records.flags.writeable = False
    if ids is None:
        return None, records
    targets = np.frombuffer(chunk.data, np.int64, chunk.count, HEAD.size)
    targets.flags.writeable = False
    if chunk.count and (targets.min() < ids.start or targets.max() >= ids.stop):
        raise EncodingError(f"{what}: records arrived for agents that are not here, which has {ids}")
    return targets, records


def _equal(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    return one is other or (one == other and one.itemsize == other.itemsize and _describe(one) == _describe(other))


def _describe(dtype: np.dtype[Any]) -> str:
    """Say all that a dtype lays out: names, offsets, byte orders, shapes; nothing else tells overlaps and gaps."""
    if dtype.subdtype is not None:
        return f"{_describe(dtype.subdtype[0])}{dtype.subdtype[1]}"
    if dtype.fields is None or dtype.names is None:
        return dtype.str
    fields = [f"{name!r}@{dtype.fields[name][1]}:{_describe(dtype.fields[name][0])}" for name in dtype.names]
    return f"{{{', '.join(fields)}}}{dtype.itemsize}"
