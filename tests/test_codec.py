"""Bodies to bytes and back: whatever can be sent arrives equal, and bytes that are no body are an EncodingError."""

import math
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from fabric import EncodingError, MessageTooLargeError
from fabric.codec import Codec
from fabric.encoded import joined
from fabric.messages import ERROR, JSON, MIXED, NDARRAY, NONE, PICKLE, RAW, ErrorInfo
from fabric.orders import decode_order, encode_order
from fabric.remote_errors import Undecodable, revive

FAST = settings(max_examples=100, deadline=None, derandomize=True, database=None)
CODEC, JSON_CODEC = Codec(), Codec("json", allow_pickle=False)

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.binary(max_size=100)
keys = st.integers() | texts | st.tuples(st.integers(), texts)
bodies = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
json_bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
plain_dtypes = st.one_of(
    np_st.boolean_dtypes(),
    np_st.integer_dtypes(endianness="?"),
    np_st.unsigned_integer_dtypes(endianness="?"),
    np_st.floating_dtypes(endianness="?"),
    np_st.complex_number_dtypes(),
    np_st.datetime64_dtypes(),
    np_st.timedelta64_dtypes(),
    np_st.byte_string_dtypes(max_len=5),
    np_st.unicode_string_dtypes(max_len=5),
)
dtypes = plain_dtypes | np_st.array_dtypes(subtype_strategy=plain_dtypes, max_size=3)


@st.composite
def arrays(draw):
    """Arrays of any dtype that memory can say, of up to three dimensions, in any order, and views with gaps."""
    shape = draw(np_st.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    dtype = draw(dtypes)
    size = math.prod(shape)
    array = np.frombuffer(draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize)), np.uint8)
    array = (array.view(dtype) if size and dtype.itemsize else np.zeros(size, dtype)).reshape(shape)
    how = draw(st.sampled_from(["C", "F", "transposed", "reversed"]))
    if how == "transposed":
        return array.T
    if how == "reversed":
        return array[::-1] if array.ndim else array
    return np.array(array, order=how)


def _round_trip(body, codec=CODEC):
    return codec.decode(*codec.encode(body))


# There and back.


@FAST
@given(bodies)
@example({"deep": [[[[()]]]]})
def test_any_nested_body_arrives_equal(body):
    returned = _round_trip(body)

    assert returned == body
    assert type(returned) is type(body)


@FAST
@given(json_bodies)
def test_what_json_says_arrives_equal_without_pickles(body):
    assert _round_trip(body, JSON_CODEC) == body
    assert JSON_CODEC.encode(body)[0] in (JSON, NONE)
    assert _round_trip(body, Codec("json")) == body


@FAST
@given(arrays())
def test_an_array_arrives_whole_in_memory_of_its_own(array):
    encoding, data = CODEC.encode(array)
    returned = CODEC.decode(encoding, data)

    assert (returned.dtype, returned.shape) == (array.dtype, array.shape)
    assert returned.tobytes() == array.tobytes()
    assert encoding == (NDARRAY if array.dtype.itemsize else PICKLE)
    if encoding == NDARRAY:
        assert returned.flags.writeable == array.flags.writeable
        assert returned.flags.aligned
        assert returned.flags.f_contiguous or not array.flags.f_contiguous


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a", None], object),
        np.zeros(2, [("a", object), ("b", "i4")]),
        np.zeros(3, "V0"),
        np.zeros(2, np.dtype([])),
        np.zeros(2, {"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 0]}),
        np.zeros(2, {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]}),
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros(2, "i4").view(np.recarray),
        np.zeros(2, np.dtype((np.record, [("a", "i4")]))),
    ],
    ids=["object", "object field", "V0", "no fields", "out of order", "overlapping", "masked", "recarray", "record"],
)
def test_arrays_that_raw_data_cannot_say_go_by_pickle(array):
    encoding, data = CODEC.encode(array)

    assert encoding == PICKLE
    assert type(CODEC.decode(encoding, data)) is type(array)
    assert CODEC.decode(encoding, data).tolist() == array.tolist()
    assert CODEC.decode(encoding, data).dtype.type is array.dtype.type
    with pytest.raises(EncodingError):
        JSON_CODEC.encode(array)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "i1"), ("b", "i8")], align=True),
        np.dtype([(("title", "a"), "i4")]),
        np.dtype([("é", "i4"), ("b", [("c", ">f8", (2, 3))])]),
        np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 16}),
        np.dtype("i4", metadata={"unit": "m"}),
        np.dtype("g"),
        np.dtype("V7"),
    ],
    ids=str,
)
def test_unusual_dtypes_arrive_as_they_are(dtype):
    returned = _round_trip(np.zeros((2, 3), dtype))

    assert returned.dtype == dtype
    assert returned.shape == (2, 3)


@FAST
@given(st.lists(bodies | arrays(), max_size=8))
def test_a_batch_is_what_its_bodies_are(batch):
    if not batch:
        return
    encoded = CODEC.encode_many(batch)
    sizes = encoded.sizes if not isinstance(encoded.sizes, int) else [encoded.sizes] * len(batch)
    encodings = encoded.encodings if encoded.encoding == MIXED else [encoded.encoding] * len(batch)
    at = 0
    for body, size, encoding in zip(batch, sizes, encodings, strict=True):
        assert (encoding, encoded.blob[at : at + size]) == CODEC.encode(body)
        at += size
    assert at == len(encoded.blob)


@pytest.mark.parametrize("encoding", [RAW, PICKLE, JSON, NONE])
def test_bodies_of_one_encoding_are_decoded_together(encoding):
    batch = {RAW: [b"a", b"b"], PICKLE: [1, {2}], JSON: [[1], "x"], NONE: [None, None]}[encoding]
    parts = [CODEC.encode(body, json=encoding == JSON)[1] for body in batch]

    assert CODEC.decode_many(encoding, parts) == batch
    if encoding in (PICKLE, JSON):
        decoded = CODEC.decode_many(encoding, [parts[0], b"\xff\xff", parts[1]])
        assert [decoded[0], type(decoded[1]), decoded[2]] == [batch[0], Undecodable, batch[1]]


def test_a_batch_in_json_is_what_its_bodies_are_one_by_one():
    batch = [[1], {"step": 2, "weight": 0.5}, "three", 4, True, 5.5]
    for codec, json in ((JSON_CODEC, None), (CODEC, True)):
        encoded = codec.encode_many(batch, json)
        ones = [codec.encode(body, json) for body in batch]
        assert encoded.encoding == JSON
        assert encoded.blob == b"".join(data for _, data in ones)
        assert list(encoded.sizes) == [len(data) for _, data in ones]


def test_a_body_of_a_batch_that_json_cannot_say_is_named():
    with pytest.raises(EncodingError, match="body 2: a body of type set cannot be said in JSON"):
        JSON_CODEC.encode_many([[1], [2], {3}, [4]])


def test_a_class_may_overrule_the_fabrics_choice():
    assert CODEC.encode([1], json=True)[0] == JSON
    assert Codec("json").encode([1], json=False)[0] == PICKLE
    assert CODEC.encode_many([[1], [2]], json=True).encoding == JSON
    assert CODEC.encode_answer([1])[0] == PICKLE
    assert JSON_CODEC.encode_answer([1])[0] == JSON


def test_what_lives_in_main_or_nowhere_goes_by_value():
    one = type("FromMain", (), {"__module__": "__main__", "value": 7})

    assert _round_trip(one()).value == 7
    assert _round_trip(lambda x: x + 1)(1) == 2
    assert decode_order(encode_order((one, (), {})))[0].value == 7


# What cannot be.


def test_what_cannot_be_encoded_is_named():
    with pytest.raises(EncodingError, match="lock cannot be pickled: TypeError"):
        CODEC.encode(pytest.importorskip("threading").Lock())
    with pytest.raises(EncodingError, match="type set cannot be said in JSON"):
        JSON_CODEC.encode({1})
    with pytest.raises(EncodingError, match="type set needs a pickle, and this fabric has allow_pickle=False"):
        JSON_CODEC.encode({1}, json=False)
    with pytest.raises(EncodingError, match=r"body 1,002: type set|body 1,002: a body of type set"):
        JSON_CODEC.encode_many(["a", "b", {1}], number=lambda index: 1_000 + index)


def test_a_body_that_nests_too_deep_is_an_error_and_no_crash():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for codec in (CODEC, JSON_CODEC):
        with pytest.raises(EncodingError):
            codec.encode(deep)
    while deep:
        deep = deep[0]


def test_a_batch_with_a_body_beyond_32_bits_is_too_large():
    class Huge(bytes):
        def __len__(self):
            return 2**32

    with pytest.raises(MessageTooLargeError):
        joined(RAW, None, [b"x", Huge()])


@FAST
@given(st.sampled_from([JSON, NDARRAY, NONE, ERROR, 0, 7, 99]), st.binary(max_size=200))
def test_bytes_that_are_no_body_are_an_error_and_no_crash(encoding, data):
    for codec in (CODEC, JSON_CODEC):
        try:
            codec.decode(encoding, data)
        except EncodingError:
            assert type(codec.decode_or_mark(encoding, data)) is Undecodable


@FAST
@given(arrays(), st.data())
def test_a_damaged_array_is_an_error_or_an_array(array, data):
    encoding, good = CODEC.encode(array)
    if encoding != NDARRAY:
        return
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    for bad in (damaged, good[:at], good + b"xyz"):
        try:
            assert not CODEC.decode(NDARRAY, bad).dtype.hasobject
        except EncodingError:
            pass


@FAST
@given(bodies.filter(lambda body: body is not None and not isinstance(body, bytes)), st.data())
def test_a_pickle_cut_short_is_an_error(body, data):
    encoding, good = CODEC.encode(body)
    with pytest.raises(EncodingError):
        CODEC.decode(encoding, good[: data.draw(st.integers(0, len(good) - 1))])


def _array_of(described, shape=(1,), data=bytes(8)):
    """Lay out an array by hand."""
    head = struct.pack(f"<BBHI{len(shape)}q", len(shape), 0, 0, len(described), *shape) + described
    return head + bytes(-len(head) % 16) + data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (_array_of(b"|O"), "array of objects"),
        (_array_of(b"[('a', '|O')]"), "array of objects"),
        (_array_of(b"<i8", (-1,)), "cannot be"),
        (_array_of(b"<i8", (2**62, 4)), "cannot be decoded"),
        (_array_of(b"__import__('os')"), "cannot be decoded"),
        (_array_of(b"[__import__('os')]"), "cannot be decoded"),
        (_array_of(b"[" * 5_000), "cannot be decoded"),
        (_array_of(b"<i8", (2,)), "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"\xff" * 8, "cannot be decoded"),
    ],
    ids=["object", "object field", "negative", "overflow", "code", "code in a list", "deep", "short", "empty", "noise"],
)
def test_an_array_made_by_hand_is_refused(data, text):
    with pytest.raises(EncodingError, match=text):
        CODEC.decode(NDARRAY, data)


def test_without_pickles_none_is_read():
    data = pickle.dumps(1, 5)
    with pytest.raises(EncodingError, match="a pickle arrived, and this fabric has allow_pickle=False"):
        JSON_CODEC.decode(PICKLE, data)
    assert type(JSON_CODEC.decode_or_mark(PICKLE, data)) is Undecodable
    assert type(decode_order(b"\xff")) is Undecodable


def test_bodies_are_encoded_while_another_thread_imports_numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))

    assert CODEC.encode([1])[0] == PICKLE
    assert CODEC.encode_many([1, "two"]).encoding == PICKLE


def test_replies_that_cannot_be_encoded_become_errors_among_the_others():
    encoded = JSON_CODEC.encode_replies([[1], {2}, b"raw"])
    decoded, at = [], 0
    for encoding, size in zip(encoded.encodings, encoded.sizes, strict=True):
        decoded.append(JSON_CODEC.decode(encoding, encoded.blob[at : at + size]))
        at += size

    assert decoded[::2] == [[1], b"raw"]
    assert isinstance(decoded[1], ErrorInfo)
    assert isinstance(revive(decoded[1]), EncodingError)
    assert "the reply of type set cannot be sent" in str(revive(decoded[1]))
