"""Describe arrays in bytes, so that their memory can travel as it is: dtype, shape and order in front, data behind.

    | dimensions u8 | Fortran order u8 | flags u16 | length u32 | shape i64 ... | dtype as text | padding | data |

What a text cannot say (fields that overlap, objects) has no description: such arrays go by pickle.
"""

import functools
import struct
import sys
from typing import Any

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
    return bool(body.flags.f_contiguous and not body.flags.c_contiguous)


def array_head(body: Any, described: bytes) -> bytes:
    """Say what lies behind: dimensions, order, shape, description of the dtype, padding."""
    flags = 0 if body.flags.writeable else _READ_ONLY
    head = _HEAD.pack(body.ndim, is_fortran(body), flags, len(described))
    head += struct.pack(f"<{body.ndim}q", *body.shape) + described
    return head + bytes(-len(head) % _ALIGN)


def load_array(data: bytes) -> Any:
    """Rebuild an array in memory of its own; writable, unless it was read-only."""
    view = memoryview(data)
    _, _, _, length = _HEAD.unpack_from(view)
    start = _HEAD.size + 8 * view[0] + length
    start += -start % _ALIGN
    return array_of(view, bytearray(view[start:]))


def array_of(head: memoryview, data: Any) -> Any:
    """Make an array over `data`, as `head` describes it."""
    import numpy

    dimensions, fortran, flags, length = _HEAD.unpack_from(head)
    shape = struct.unpack_from(f"<{dimensions}q", head, _HEAD.size)
    start = _HEAD.size + 8 * dimensions
    dtype = _described(bytes(head[start : start + length]).decode())
    if dtype.hasobject:
        raise EncodingError("an array of objects arrived as raw data: that would be read as addresses")
    if min(shape, default=0) < 0:
        raise EncodingError(f"an array of shape {shape} cannot be")
    made = numpy.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    if flags & _READ_ONLY:
        made.flags.writeable = False
    return made
