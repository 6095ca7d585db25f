"""Lay out a body whose large parts lie in an arena: what travels in the lane says where they are.

    | count u32 | whole u32 | count x ( loan u64 | offset u64 | bytes u64 | flags u64 ) | the rest of the body |
    whole: 1 when the first part is the whole body, encoded, and nothing else is there
    flags: 1 when the receiver is to have it read-only

A loan is for one receiver, so these bytes are made when it is known: a Parcel is a body on its way to that.
"""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from fabric.errors import EncodingError

READ_ONLY = 1
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<QQQQ")


class Piece(NamedTuple):
    """A stretch of a block of the arena: the block is kept by whoever has this."""

    block: int  # offset of the block
    at: int  # offset of the stretch
    bytes: int
    read_only: bool


class Entry(NamedTuple):
    """What a receiver is told of a part."""

    loan: int
    offset: int
    bytes: int
    flags: int


class Lender(Protocol):
    """The part of fabric.arena.Arena that parcels need."""

    def retain(self, block: int) -> None: ...
    def drop(self, block: int) -> None: ...
    def lend(self, piece: Piece, reader: int) -> int: ...
    def unlend(self, loan: int) -> None: ...


class Parcel:
    """A body with parts in the arena, which it keeps there until it is sent or forgotten.

    In the place of a body's bytes: `lend` makes those for one receiver. Who puts them into a lane says `sent`;
    what was lent and never sent is taken back.
    """

    __slots__ = ("_bytes", "_lender", "_loans", "inline", "pieces", "whole")

    def __init__(self, lender: Lender, pieces: Sequence[Piece], inline: bytes = b"", whole: bool = False) -> None:
        """Take over the caller's hold on the pieces."""
        self._lender = lender
        self.pieces = pieces
        self.inline = inline
        self.whole = whole
        self._loans: list[int] = []
        self._bytes: bytes | None = None

    def __len__(self) -> int:
        """How many bytes it takes in a lane."""
        return _HEAD.size + _ENTRY.size * len(self.pieces) + len(self.inline)

    def lend(self, reader: int) -> bytes:
        """Return what goes into the lane to a process; the same until that is sent.

        Raises:
            BackpressureError: too much is lent already.
        """
        if self._bytes is None:
            self._take_back()  # of a try that got no further
            parts = [_HEAD.pack(len(self.pieces), self.whole)]
            for piece in self.pieces:
                loan = self._lender.lend(piece, reader)
                self._loans.append(loan)
                parts.append(_ENTRY.pack(loan, piece.at, piece.bytes, READ_ONLY * piece.read_only))
            parts.append(self.inline)
            self._bytes = b"".join(parts)
        return self._bytes

    def sent(self) -> None:
        """Leave what was lent to its receiver."""
        self._loans.clear()
        self._bytes = None

    def again(self) -> "Parcel":
        """Return a second parcel of the same parts, for another receiver."""
        for piece in self.pieces:
            self._lender.retain(piece.block)
        return Parcel(self._lender, self.pieces, self.inline, self.whole)

    def forget(self) -> None:
        """Let go of the pieces, and take back what was lent and never sent. Nothing can be done with it any more."""
        self._take_back()
        pieces, self.pieces = self.pieces, ()
        for piece in pieces:
            self._lender.drop(piece.block)

    def _take_back(self) -> None:
        while self._loans:
            self._lender.unlend(self._loans.pop())

    def __del__(self) -> None:
        self.forget()


Data = bytes | Parcel  # an encoded body


def unpack(body: Any) -> tuple[list[Entry], bool, memoryview]:
    """Take the bytes of a parcel apart: (its parts, is the first all of it, the rest of the body).

    Raises:
        EncodingError: they are none.
    """
    view = memoryview(body)
    if len(view) < _HEAD.size:
        raise EncodingError("a message says that it lies in the arena, and not where")
    count, whole = _HEAD.unpack_from(view)
    rest = _HEAD.size + count * _ENTRY.size
    if whole > 1 or rest > len(view) or count < whole:
        raise EncodingError("a message says that it lies in the arena, and its list of parts cannot be read")
    entries = [Entry(*fields) for fields in _ENTRY.iter_unpack(view[_HEAD.size : rest])]
    return entries, bool(whole), view[rest:]


def lend_all(bodies: Sequence[Data], reader: int) -> tuple[Sequence[bytes], dict[int, Parcel] | None]:
    """Return the bytes of each body for one receiver, and the parcels among them by index."""
    if Parcel not in set(map(type, bodies)):
        return bodies, None  # type: ignore[return-value]
    parcels = {index: body for index, body in enumerate(bodies) if type(body) is Parcel}
    return [body.lend(reader) if isinstance(body, Parcel) else body for body in bodies], parcels
