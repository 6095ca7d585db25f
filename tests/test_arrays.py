"""Arrays in bytes: what comes back is the same array, and what is no array is an error of ours or of numpy's."""

import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fabric import EncodingError
from fabric.arrays import array_head, array_of, description, is_fortran, load_array

DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
    hnp.array_dtypes(allow_subarrays=True),
)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0)


def same(a, b):
    """Are these the same arrays, NaNs included, byte by byte?"""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _laid_out(array, order):
    """An array as its bytes lie when they are sent."""
    return bytearray(array.tobytes(order="F" if order == "F" else "C"))


@given(st.data(), DTYPES, SHAPES, st.sampled_from("CF"), st.booleans())
def test_an_array_comes_back_as_it_was(data, dtype, shape, order, read_only):
    array = np.array(data.draw(hnp.arrays(dtype, shape)), order=order)
    array.flags.writeable = not read_only
    described = description(array.dtype)
    assert described is not None
    head = array_head(array, described)
    assert len(head) % 16 == 0
    there = array_of(head, _laid_out(array, "F" if is_fortran(array) else "C"))
    assert same(there, array)
    assert there.flags.writeable != read_only
    assert is_fortran(there) == is_fortran(array)


@pytest.mark.parametrize(
    "dtype",
    [object, [("a", object)], "V0", "S0", {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]}],
    ids=str,
)
def test_what_a_text_cannot_say_has_no_description(dtype):
    assert description(np.dtype(dtype)) is None


def test_an_array_of_addresses_is_not_read():
    array = np.zeros(4, "u8")
    with pytest.raises(EncodingError, match="addresses"):
        array_of(array_head(array, b"|O"), bytearray(32))


@pytest.mark.parametrize("shape", [(-1,), (-1, 4), (4, -(2**63))])
def test_a_negative_length_is_refused(shape):
    head = struct.pack("<BBHI", len(shape), 0, 0, 3) + struct.pack(f"<{len(shape)}q", *shape) + b"<u1"
    with pytest.raises(EncodingError, match="cannot be"):
        array_of(head, bytearray(4))


@given(st.binary(max_size=120), st.integers(0, 64))
@example(struct.pack("<BBHI", 255, 0, 0, 2**32 - 1), 8)
@example(struct.pack("<BBHIqq", 2, 0, 0, 3, 2**62, 4) + b"<u1", 0)
@example(struct.pack("<BBHIq", 1, 0, 0, 3, 2**40) + b"<u8", 8)
def test_garbage_is_an_exception_or_an_array_within_its_bytes(head, size):
    memory = bytearray(size)
    try:
        made = array_of(head, memory)
    except Exception:  # the codec makes an EncodingError of whatever it is
        return
    assert made.size * made.itemsize <= size
    assert not made.dtype.hasobject


@given(st.binary(max_size=120))
def test_garbage_that_came_inline_is_an_exception_or_an_array(data):
    try:
        made = load_array(data)
    except Exception:
        return
    assert made.nbytes <= len(data)
