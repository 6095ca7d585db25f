"""Describe arrays in bytes, so that their memory can travel as it is: dtype, shape and order in front, data behind.

    | dimensions u8 | Fortran order u8 | flags u16 | length u32 | shape i64 ... | dtype as text | padding | data |

What a text cannot say (fields that overlap, objects) has no description: such arrays go by pickle.
"""

import functools
import struct
import sys
from typing import Any, NamedTuple

from fabric.errors import EncodingError

_HEAD = struct.Struct("<BBHI")  # dimensions, Fortran order, flags, bytes of the dtype's description
_READ_ONLY = 1
_ALIGN = 16


def ndarray_type() -> type | None:
    """Return the class of arrays; None before numpy is there, or while another thread is still importing it."""
    return getattr(sys.modules.get("numpy"), "ndarray", None)


@functools.lru_cache(maxsize=256)
def description(dtype: Any) -> bytes | None:
    """Describe a dtype in text. None where a text cannot say it: arrays of it go by pickle."""
    import numpy

    if dtype.hasobject or dtype.itemsize == 0:
        return None
    try:
        text = dtype.str if dtype.names is None else repr(numpy.lib.format.dtype_to_descr(dtype))
        returned = _described(text)
        return text.encode() if returned == dtype and returned.type is dtype.type else None
    except Exception:  # fields that overlap, or are out of order
        return None


def _described(text: str) -> Any:
    """Return the dtype that a text describes."""
    import ast

    import numpy

    if text.startswith(("[", "(", "{")):
        return numpy.lib.format.descr_to_dtype(ast.literal_eval(text))
    return numpy.dtype(text)


def is_fortran(body: Any) -> bool:
    """Does this array lie in memory column by column?"""
    return bool(body.flags.fnc)


def array_head(body: Any, described: bytes) -> bytes:
    """Say what lies behind: dimensions, order, shape, description of the dtype, padding."""
    flags = body.flags
    return _head(body.shape, flags.fnc, 0 if flags.writeable else _READ_ONLY, described)


@functools.lru_cache(maxsize=256)
def _head(shape: tuple[int, ...], fortran: bool, flags: int, described: bytes) -> bytes:
    head = _HEAD.pack(len(shape), fortran, flags, len(described))
    head += struct.pack(f"<{len(shape)}q", *shape) + described
    return head + bytes(-len(head) % _ALIGN)


class _Plan(NamedTuple):
    """How to make an array over its data. Who sends arrays sends many of one kind: heads are read once."""

    frombuffer: Any
    dtype: Any
    shape: tuple[int, ...]
    order: str
    read_only: bool


@functools.lru_cache(maxsize=256)
def _plan(head: bytes) -> _Plan:
    import numpy

    dimensions, fortran, flags, length = _HEAD.unpack_from(head)
    shape = struct.unpack_from(f"<{dimensions}q", head, _HEAD.size)
    start = _HEAD.size + 8 * dimensions
    dtype = _described(head[start : start + length].decode())
    if dtype.hasobject:
        raise EncodingError("an array of objects arrived as raw data: that would be read as addresses")
    if min(shape, default=0) < 0:
        raise EncodingError(f"an array of shape {shape} cannot be")
    return _Plan(numpy.frombuffer, dtype, shape, "F" if fortran else "C", bool(flags & _READ_ONLY))


def load_array(data: bytes) -> Any:
    """Rebuild an array in memory of its own; writable, unless it was read-only."""
    dimensions, _, _, length = _HEAD.unpack_from(data)
    start = _HEAD.size + 8 * dimensions + length
    start += -start % _ALIGN
    return array_of(data[:start], bytearray(memoryview(data)[start:]))


def array_of(head: bytes, data: Any) -> Any:
    """Make an array over `data`, as `head` describes it."""
    frombuffer, dtype, shape, order, read_only = _plan(head)
    made = frombuffer(data, dtype).reshape(shape, order=order)
    if read_only:
        made.flags.writeable = False
    return made
