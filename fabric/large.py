"""Encode what is large: the buffers in a body, or all of it, are written to the arena, and a Parcel stands for it.

    array                                 head | its memory -> arena
    what holds arrays, frames, buffers    pickle | each large buffer -> arena
    other large bytes, pickles, JSON      all of it -> arena

To offer a pickle's buffers to us costs 160 ns for each body, a third of what a small one takes. So bodies are
pickled without, and one that turns out large once more; while large ones keep coming, with it at once.
"""

import pickle
from typing import Any

from fabric.arena import Arena
from fabric.arrays import array_head, description, ndarray_type
from fabric.codec import Codec
from fabric.errors import BackpressureError
from fabric.messages import ERROR, LENT, NDARRAY, NONE, PICKLE
from fabric.parcel import Data, Parcel, Piece

_EXPECTED_FOR = 64  # bodies after a large one
_PARCEL_BYTES = 4096  # what a parcel takes in a lane is less, or nobody has that many buffers in one body


class Out:
    """Takes the large buffers out of a pickle: a buffer_callback."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.taken: list[memoryview] = []

    def __call__(self, buffer: Any) -> bool:
        """Take a buffer (False), or leave it in the pickle (True)."""
        raw = buffer.raw()
        if raw.nbytes < self._threshold:
            return True
        self.taken.append(raw)
        return False

    def clear(self) -> None:
        """Forget what was taken: it is pickled anew."""
        self.taken.clear()


class Large:
    """Encodes with an arena. Any thread."""

    def __init__(self, arena: Arena, threshold: int, inline_limit: int) -> None:
        """`inline_limit`: bodies up to this go through a lane when the arena has no room."""
        self._arena = arena
        self._threshold = threshold
        self._inline_limit = inline_limit
        self._expecting = 0

    @property
    def expected(self) -> bool:
        """Were recent bodies large?"""
        return self._expecting > 0

    def encode(self, codec: Codec, body: Any, json: bool | None) -> tuple[int, Data]:
        """Encode a body, large or not, for its codec. Raises as fabric.codec.Codec.encode."""
        kind = type(body)
        if kind is ndarray_type():
            described = description(body.dtype)
            if described is not None:
                return self._encode_array(codec, body, described)
        out = Out(self._threshold) if self._expecting else None
        encoding, data = codec.encode_inline(body, json, out)
        if out is None and encoding == PICKLE and len(data) >= self._threshold:
            out = Out(self._threshold)
            encoding, data = codec.encode_inline(body, json, out)
        taken = [] if out is None else out.taken
        if (len(data) < self._threshold and not taken) or encoding in (ERROR, NONE):
            self._expecting = max(0, self._expecting - 1)
            return encoding, data
        self._expecting = _EXPECTED_FOR
        parcel = self._parcelled(encoding, data, taken)
        return codec.encode_inline(body, json) if parcel is None else parcel

    def size_of(self, body: Any) -> int:
        """Return about how many bytes a body has, encoded: 0 when that cannot be said."""
        out = Out(0)
        try:
            return len(pickle.dumps(body, 5, buffer_callback=out)) + sum(buffer.nbytes for buffer in out.taken)
        except Exception:  # whoever encodes it will say what is wrong
            return 0

    def whole(self, encoding: int, data: bytes) -> tuple[int, Data]:
        """Put an encoded body into the arena, all of it."""
        small = len(data) + _PARCEL_BYTES <= self._inline_limit
        try:
            return encoding | LENT, self._stored([memoryview(data)], b"", patient=not small)
        except BackpressureError:
            if small:
                return encoding, data
            raise

    def _encode_array(self, codec: Codec, body: Any, described: bytes) -> tuple[int, Data]:
        if body.nbytes < self._threshold:
            return codec.encode_inline(body, None)
        small = body.nbytes + _PARCEL_BYTES <= self._inline_limit
        try:
            piece = self._stored_array(body, patient=not small)
        except BackpressureError:
            if small:
                return codec.encode_inline(body, None)
            raise
        return NDARRAY | LENT, self._arena.parcel([piece], array_head(body, described))

    def _stored_array(self, body: Any, patient: bool) -> Piece:
        """Write an array to the arena as it lies in memory, or row by row where that is in no order."""
        import numpy

        flags = body.flags
        if flags.c_contiguous or flags.f_contiguous:
            return self._arena.store(memoryview(body.reshape(-1, order="A").view(numpy.uint8)), patient)

        def write(memory: memoryview) -> None:
            numpy.copyto(numpy.ndarray(body.shape, body.dtype, memory), body)

        return self._arena.fill(body.nbytes, write, patient)

    def _parcelled(self, encoding: int, data: bytes, taken: list[memoryview]) -> tuple[int, Data] | None:
        """Put a pickle, or the buffers that were taken out of it, into the arena; None: it is to go through a lane."""
        total = len(data) + sum(buffer.nbytes for buffer in taken) + _PARCEL_BYTES
        whole = len(data) >= self._threshold or total - _PARCEL_BYTES == len(data)
        small = total <= self._inline_limit
        try:
            return encoding | LENT, self._stored([memoryview(data)] * whole + taken, b"" if whole else data, not small)
        except BackpressureError:
            if small:
                return None
            raise

    def _stored(self, buffers: list[memoryview], inline: bytes, patient: bool) -> Parcel:
        pieces: list[Piece] = []
        parcel = self._arena.parcel(pieces, inline, whole=not inline)  # what is stored is its own from then on
        try:
            for buffer in buffers:
                pieces.append(self._arena.store(buffer, patient))
        except BaseException:
            parcel.forget()  # now: whoever keeps the error keeps these names
            raise
        return parcel
