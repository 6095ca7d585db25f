"""Lay out a chunk: records of one dtype, a message each to an array agent, that travel as one message of a lane.

    | fingerprint u64 | count u32 | flags u32 | ids, count x i64 | 0 or 8 bytes | rows, count x itemsize |
      of the dtype                   HAS_IDS    in questions only  up to a multiple of 16

Rows of a reply stand in the order of the rows asked, so they need no ids. numpy is imported by nobody here: what
makes and opens chunks is fabric.records.
"""

import struct
from typing import Any

from fabric.errors import EncodingError

HEAD = struct.Struct("<QII")
HAS_IDS = 1
MOST_COUNT = 2**32 - 1
_ALIGN = 16  # the lane aligns bodies so, hence rows too: no dtype wants more


class Packed:
    """A body that is laid out already: bytes, or an array of them."""

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = data


class Chunk:
    """A chunk that arrived, of which only the head has been read. `data` may be the lane itself.

    Raises:
        EncodingError: the bytes are too few for a head, or the flags are none of ours.
    """

    __slots__ = ("count", "data", "fingerprint", "has_ids")

    def __init__(self, data: Any) -> None:
        if len(data) < HEAD.size:
            raise EncodingError(f"a chunk of records arrived with {len(data)} bytes, fewer than its head takes")
        self.fingerprint, self.count, flags = HEAD.unpack_from(data)
        if flags not in (0, HAS_IDS):
            raise EncodingError(f"a chunk of records arrived with flags {flags:#x}, which this version does not know")
        self.has_ids = flags == HAS_IDS
        self.data = data


def rows_offset(count: int, has_ids: bool) -> int:
    """Return where the rows begin in a chunk of `count`."""
    end = HEAD.size + (8 * count if has_ids else 0)
    return end + -end % _ALIGN
