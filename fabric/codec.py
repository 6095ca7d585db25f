"""Turn bodies into bytes and back: raw bytes as they are, arrays as header and data, the rest by pickle or JSON.

One codec a process; it holds what the fabric allows. With an arena, large bodies and the large buffers in
them are written there, once, and a Parcel stands for their bytes (fabric.large).
Nothing is unpickled where pickles are not allowed, and RAW, JSON and NDARRAY never are.
"""

import inspect
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fabric.arrays import array_head, array_of, description, is_fortran, load_array, ndarray_type
from fabric.chunk import Chunk, Packed
from fabric.encoded import Encoded, joined, joined_below
from fabric.errors import BackpressureError, EncodingError
from fabric.messages import (
    CHUNK,
    ERROR,
    JSON,
    LENT,
    MIXED,
    NDARRAY,
    NONE,
    ORDER,
    PICKLE,
    RAW,
    RECORDS,
    ErrorInfo,
    StreamChunk,
)
from fabric.orders import decode_order
from fabric.parcel import Data, Entry, Parcel, lend_all, unpack
from fabric.pickling import CRASHES, Buffers, dump_pickle, pickle_many
from fabric.remote_errors import Undecodable, dump_error, load_error, refusal

_NEVER = 2**63
_CHUNK_HEAD = struct.Struct("<QqQQBBBB4x")  # index, total or -1, so far, stream, last, aborted, encoding, is it a part
_OWN_ENCODINGS: set[type[Any]] = {bytes, type(None), ErrorInfo, Packed, StreamChunk}


class Large(Protocol):
    """The part of fabric.large.Large that a codec needs."""

    @property
    def expected(self) -> bool: ...
    def encode(self, codec: "Codec", body: Any, json: bool | None) -> tuple[int, Data]: ...
    def whole(self, encoding: int, data: bytes) -> tuple[int, Data]: ...
    def size_of(self, body: Any) -> int: ...


class Codec:
    """Encode and decode bodies by the rules of one fabric.

    `encoding` is what is used for bodies that are neither bytes nor arrays: "pickle" or "json".
    """

    def __init__(self, encoding: str = "pickle", allow_pickle: bool = True) -> None:
        self.allow_pickle = allow_pickle
        self._json = encoding == "json"
        self._large: Large | None = None
        self._lend_from = _NEVER  # bytes from which on a body, or a buffer in it, goes through the arena
        self._decoders: dict[int, Callable[[bytes], Any]] = {
            PICKLE: pickle.loads if allow_pickle else _refuse_pickle,
            JSON: _load_json,
            NDARRAY: load_array,
            NONE: _load_none,
            ERROR: load_error,
            RECORDS: Chunk,
        }
        if self._json:
            import orjson  # 5 ms, and the others need not pay it

            self._decoders[JSON] = orjson.loads

    def lend(self, large: Large, threshold: int) -> None:
        """Have bodies of `threshold` bytes or more encoded by `large` from now on."""
        self._large = large
        self._lend_from = threshold

    def encode(self, body: Any, json: bool | None = None) -> tuple[int, Data]:
        """Return (encoding, bytes) of one body, or a Parcel of it. `json` overrides the fabric's choice.

        Raises:
            EncodingError: the body cannot be encoded, or only by a pickle and those are not allowed.
            BackpressureError: it goes through the arena, which is full.
        """
        if type(body) is bytes and len(body) < self._lend_from:
            return RAW, body
        if type(body) is StreamChunk:
            return self._encode_chunk(body, json)
        if self._large is None or type(body) is Packed:
            return self.encode_inline(body, json)
        return self._large.encode(self, body, json)

    def large_bytes(self, body: Any) -> int:
        """Return about how many bytes a body has that goes through the arena; 0 for one that does not."""
        size = self.about_bytes(body)
        return size if self._large is not None and size >= self._lend_from else 0

    def about_bytes(self, body: Any) -> int:
        """Return about how many bytes a body has; 0 where that cannot be said cheaply."""
        kind = type(body)
        size: int = len(body) if kind is bytes else body.nbytes if kind is ndarray_type() else 0
        if size == 0 and self._large is not None and kind not in _OWN_ENCODINGS:
            size = self._large.size_of(body)
        return size

    def dress(self, encoding: int, data: Any) -> tuple[int, Data]:
        """Put what is encoded already into the arena, if it is large."""
        if len(data) < self._lend_from or self._large is None:
            return encoding, data
        return self._large.whole(encoding, data)

    def encode_inline(self, body: Any, json: bool | None = None, out: Buffers | None = None) -> tuple[int, bytes]:
        """Return (encoding, bytes) of one body, but for the large buffers in a pickle that `out` takes.

        Raises:
            EncodingError: as for `encode`.
        """
        kind = type(body)
        if kind is bytes:
            return RAW, body
        if body is None:
            return NONE, b""
        if kind is ndarray_type() and (described := description(body.dtype)) is not None:
            return NDARRAY, array_head(body, described) + body.tobytes(order="F" if is_fortran(body) else "C")
        if kind is ErrorInfo:
            return ERROR, dump_error(body)
        if kind is Packed:
            return RECORDS, body.data
        if self._json if json is None else json:
            return JSON, _dump_json(body)
        if not self.allow_pickle:
            raise EncodingError(
                f"a body of type {kind.__name__} needs a pickle, and this fabric has allow_pickle=False; "
                'send bytes, a numpy array, or what JSON can say (encoding="json")'
            )
        return PICKLE, dump_pickle(body, out)

    def encode_many(
        self,
        bodies: Sequence[Any],
        json: bool | None = None,
        number: Callable[[int], int] = int,
        reader: int = -1,
    ) -> Encoded:
        """Encode a batch for one process: `reader` is who gets what is lent.

        Raises:
            EncodingError: as for `encode`; the message names the body, by what `number` makes of its index.
        """
        kinds = set(map(type, bodies))
        if kinds == {bytes} and (encoded := joined_below(self._lend_from, RAW, bodies)) is not None:
            return encoded
        if kinds == {type(None)}:
            return Encoded(NONE, None, 0, b"")
        as_json = self._json if json is None else json
        if (as_json or self.allow_pickle) and kinds.isdisjoint(_not_pickled()):
            large, many = self._large, _dump_json_many if as_json else pickle_many
            dumped = many(bodies, self._lend_from) if large is None or not large.expected else None
            if dumped is not None:
                return dumped
        pairs: list[tuple[int, Data]] = []
        try:
            for body in bodies:
                pairs.append(self.encode(body, json))
        except EncodingError as error:
            raise EncodingError(f"body {number(len(pairs)):,}: {error}") from error.__cause__
        encodings = [encoding for encoding, _ in pairs]
        blobs, parcels = lend_all([data for _, data in pairs], reader)
        if len(set(encodings)) == 1:
            return joined(encodings[0], None, blobs)._replace(parcels=parcels)
        return joined(MIXED, bytes(encodings), blobs)._replace(parcels=parcels)

    def encode_answer(self, answer: Any) -> tuple[int, Data]:
        """Encode the answer to an order: plain data, so that it goes without pickles where those are refused."""
        return self.encode(answer, json=not self.allow_pickle)

    def encode_replies(self, bodies: Sequence[Any], json: bool | None = None, reader: int = -1) -> Encoded:
        """Encode a batch of replies: one that cannot be encoded becomes an error, the others go."""
        try:
            return self.encode_many(bodies, json, reader=reader)
        except EncodingError:
            return self.encode_many([self._sendable(body, json) for body in bodies], json, reader=reader)

    def _sendable(self, body: Any, json: bool | None) -> Any:
        try:
            self.encode(body, json)
        except (EncodingError, BackpressureError) as error:
            text = f"the reply of type {type(body).__name__} cannot be sent: {error}"
            return refusal(EncodingError(text + stream_hint(body)), error.__cause__)
        return body

    def _encode_chunk(self, chunk: StreamChunk, json: bool | None) -> tuple[int, Data]:
        """Lay out a chunk: its numbers, then its data, or in its place what says where in the arena that is."""
        data = chunk.data
        encoding, body = self.dress(RAW, data) if type(data) is memoryview else self.encode(data, json)
        lent, whole = encoding & LENT, isinstance(body, Parcel) and body.whole
        total = -1 if chunk.total_bytes is None else chunk.total_bytes
        numbers = (chunk.index, total, chunk.bytes_so_far, chunk.stream, chunk.is_last, chunk.aborted)
        head = _CHUNK_HEAD.pack(*numbers, encoding & ~LENT, whole)
        if not isinstance(body, Parcel):
            return CHUNK, b"".join((head, body))
        body.inline, body.whole = head + body.inline, False  # nobody has lent it yet
        return CHUNK | lent, body

    def _load_chunk(self, data: Any, parts: Sequence[Any] = ()) -> StreamChunk:
        index, total, so_far, stream, last, aborted, encoding, whole = _CHUNK_HEAD.unpack_from(data)
        if encoding in (CHUNK, ORDER):
            raise EncodingError("a chunk arrived whose data is none")
        rest, left = data[CHUNK_OVERHEAD:], list(parts)
        if left:
            body = self._assembled(encoding, left.pop(0) if whole else rest, left)
        else:
            body = self.decode(encoding, bytes(rest))
        return StreamChunk(body, index, bool(last), None if total < 0 else total, so_far, stream, bool(aborted))

    def decode(self, encoding: int, data: bytes) -> Any:
        """Return the body; an ErrorInfo comes back as such.

        Raises:
            EncodingError: the bytes are no such body, or a pickle and those are not allowed.
        """
        if encoding == RAW:
            return data
        decoder = self._load_chunk if encoding == CHUNK else self._decoders.get(encoding)
        if decoder is None:
            raise EncodingError(f"this version knows no encoding {encoding}")
        try:
            return decoder(data)
        except EncodingError:
            raise
        except CRASHES as error:  # whatever the bytes, or a class's own code, do
            raise EncodingError(f"a body cannot be decoded: {type(error).__name__}: {error}") from error

    def decode_many(self, encoding: int, parts: Sequence[bytes]) -> list[Any]:
        """Decode bodies of one encoding; one that cannot be decoded becomes an Undecodable."""
        if encoding == RAW:
            return parts if type(parts) is list else list(parts)
        decoder = self._load_chunk if encoding == CHUNK else self._decoders.get(encoding)
        if decoder is not None:
            try:
                decoded = list(map(decoder, parts))
                if len(decoded) == len(parts):  # a StopIteration of a class's own code ends the map without a word
                    return decoded
            except CRASHES:  # find out which, below
                pass
        return [self.decode_or_mark(encoding, part) for part in parts]

    def decode_lent(self, encoding: int, body: bytes, take: Callable[[list[Entry], bool], list[Any]]) -> Any:
        """Decode a body with parts in an arena; an Undecodable where that fails.

        `take(entries, copied)` gives them: as views, or each as bytes of its own, which is what raw bytes become.
        """
        try:
            entries, whole, rest = unpack(body)
            parts = take(entries, _is_raw(encoding, rest))
            if whole:
                rest = parts.pop(0)
            if encoding == CHUNK:
                return self._load_chunk(rest, parts)
            return self._assembled(encoding, rest, parts)
        except EncodingError as error:
            return Undecodable(error.with_traceback(None))  # whose frames would keep the parts
        except CRASHES as error:
            refused = EncodingError(f"a body cannot be decoded: {type(error).__name__}: {error}")
            refused.__cause__ = error.with_traceback(None)
            return Undecodable(refused)

    def _assembled(self, encoding: int, rest: Any, parts: list[Any]) -> Any:
        """Make a body of what lay in the lane, or in the first part, and of the other parts."""
        if encoding == RAW:
            return rest if type(rest) is bytes else rest.tobytes()
        if encoding == ORDER:
            return decode_order(rest.tobytes())
        if encoding == NDARRAY and parts:
            return array_of(rest.tobytes(), parts[0])
        if encoding == PICKLE and self.allow_pickle:
            return pickle.loads(rest, buffers=parts)
        return self.decode(encoding, rest.tobytes())

    def decode_or_mark(self, encoding: int, data: bytes) -> Any:
        """Decode one body; an Undecodable where that fails."""
        try:
            return self.decode(encoding, data)
        except EncodingError as error:
            return Undecodable(error)


CHUNK_OVERHEAD = _CHUNK_HEAD.size  # bytes that a chunk takes beside its data


def _is_raw(encoding: int, rest: memoryview) -> bool:
    """Is a body raw bytes, or a chunk of them? `rest` is what of it lies in the lane."""
    if encoding != CHUNK or len(rest) < CHUNK_OVERHEAD:
        return encoding == RAW
    return bool(_CHUNK_HEAD.unpack_from(rest)[6] == RAW)


def stream_hint(reply: Any) -> str:
    """Say what to do about a reply that only a stream can carry; "" for others."""
    if inspect.isgenerator(reply) or inspect.isasyncgen(reply):
        return "; what a generator yields is had by ask_stream(body)"
    return ""


def _dump_json_many(bodies: Sequence[Any], below: int) -> Encoded | None:
    """Say a batch in JSON in one go. None: some body cannot be said, or has so many bytes that it is to be lent."""
    import orjson

    dumps, option = orjson.dumps, orjson.OPT_SERIALIZE_NUMPY
    try:
        blobs = [dumps(body, option=option) for body in bodies]
    except TypeError:
        return None
    return joined_below(below, JSON, blobs)


def _not_pickled() -> set[Any]:
    """Return the types that have encodings of their own."""
    ndarray = ndarray_type()
    return _OWN_ENCODINGS if ndarray is None else _OWN_ENCODINGS | {ndarray}


def _refuse_pickle(data: bytes) -> Any:
    raise EncodingError("a pickle arrived, and this fabric has allow_pickle=False")


def _load_none(data: bytes) -> None:
    return None


def _dump_json(body: Any) -> bytes:
    import orjson

    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise EncodingError(f"a body of type {type(body).__name__} cannot be said in JSON: {error}") from error


def _load_json(data: bytes) -> Any:
    import orjson

    return orjson.loads(data)
