"""Lay the encoded bodies of a batch behind one another, as a ring takes them."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from fabric.errors import MessageTooLargeError
from fabric.parcel import Parcel

_MOST_BYTES = 2**32 - 1  # that a size in a batch can say


class Encoded(NamedTuple):
    """Bodies of a batch. `sizes` is one number when all are of one size; `encodings` None when all agree."""

    encoding: int
    encodings: bytes | None
    sizes: "array[int] | int"
    blob: bytes
    parcels: dict[int, Parcel] | None = None  # those of the bodies that are lent, by index


def joined_below(limit: int, encoding: int, blobs: Sequence[bytes]) -> Encoded | None:
    """Lay bodies of one encoding behind one another; None when one has `limit` bytes or more."""
    sizes = list(map(len, blobs))
    most = max(sizes)
    if most >= limit:
        return None
    return Encoded(encoding, None, most if min(sizes) == most else array("I", sizes), b"".join(blobs))


def joined(encoding: int, encodings: bytes | None, blobs: Sequence[bytes]) -> Encoded:
    """Lay bodies behind one another."""
    sizes = list(map(len, blobs))
    if max(sizes) > _MOST_BYTES:
        raise MessageTooLargeError(max(sizes), _MOST_BYTES)
    uniform = len(set(sizes)) == 1
    return Encoded(encoding, encodings, sizes[0] if uniform else array("I", sizes), b"".join(blobs))
