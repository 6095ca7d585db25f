"""Chunks of records: what is split, packed and opened again, and what is refused. Pure: no process, no lane."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from fabric import EncodingError, MessageTooLargeError
from fabric.array_spawner import ranges_of
from fabric.chunk import HEAD, Chunk
from fabric.records import Part, RowType, checked_call, checked_ids, open_rows, pack, pack_rows, split

POINT = np.dtype([("x", "f4"), ("tag", "S3"), ("when", "M8[ns]"), ("matrix", ">i2", (2, 2))])
SWAPPED = np.dtype("i8").newbyteorder().str


def _delivered(rows, ids, records, bounds, target, most):
    """Send a call through chunks; return, for each range, the ids and rows that arrive there, chunk by chunk."""
    arrived = [[] for _ in bounds[1:]]
    for block in split(ids, bounds, target, most):
        for part in block:
            assert 0 < part.rows <= most
            index = part.range_index
            data = pack(rows, part, ids, records).tobytes()
            own = range(bounds[index], bounds[index + 1])
            arrived[index].append(open_rows(Chunk(data), rows, own, "a test"))
    return arrived


dtypes = st.one_of(
    np_st.array_dtypes(np_st.scalar_dtypes(), min_size=1, max_size=4),
    np_st.scalar_dtypes(),
    st.sampled_from([POINT, np.dtype(("f4", (3,))), np.dtype("V5"), np.dtype([("a", "u1"), ("b", "f8")], align=True)]),
).filter(lambda dtype: dtype.itemsize > 0)


@settings(deadline=None, max_examples=200)
@given(
    dtype=dtypes,
    count=st.integers(1, 300),
    ranges=st.integers(1, 7),
    order=st.sampled_from(["random", "sorted", "reversed", "one"]),
    rows_each=st.integers(1, 64),
    length=st.integers(0, 400),
    seed=st.integers(0, 2**32 - 1),
)
def test_each_record_arrives_once_at_its_range_in_the_order_of_its_agent(
    dtype, count, ranges, order, rows_each, length, seed
):
    rows = RowType(dtype, "dtype")
    bounds = ranges_of(count, ranges)
    chance = np.random.default_rng(seed)
    ids = chance.integers(0, 1 if order == "one" else count, length)
    ids = {"sorted": np.sort, "reversed": lambda these: np.sort(these)[::-1]}.get(order, lambda these: these)(ids)
    records = rows.rows_in(chance.bytes(length * rows.itemsize), length, 0) if length else rows.empty(0)
    arrived = _delivered(rows, *checked_call(ids, records, count, rows), bounds, rows_each, rows_each + 3)

    expected = {agent: [] for agent in range(count)}
    for agent, record in zip(ids.tolist(), records, strict=True):
        expected[agent].append(record.tobytes())
    found = {agent: [] for agent in range(count)}
    for index, chunks in enumerate(arrived):
        for those, their in chunks:
            assert their.dtype == rows.base
            for agent, record in zip(those.tolist(), their, strict=True):
                assert bounds[index] <= agent < bounds[index + 1]
                found[agent].append(record.tobytes())
    assert found == expected


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 10**9), st.integers(1, 300))
def test_ranges_cover_all_ids_and_differ_by_one_at_most(count, parts):
    bounds = ranges_of(count, parts)
    sizes = np.diff(bounds)

    assert (bounds[0], bounds[-1], len(sizes)) == (0, count, min(parts, count))
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_replies_are_written_where_their_questions_stood():
    into = np.zeros(6, "i4")
    Part(0, slice(1, 4), None).put(np.array([1, 2, 3], "i4"), into)
    Part(1, slice(2, 6), np.array([3, 1])).put(np.array([8, 9], "i4"), into)

    assert into.tolist() == [0, 1, 2, 9, 0, 8]


def test_ids_in_order_are_sent_to_all_ranges_by_turns():
    blocks = list(split(np.arange(10), (0, 5, 10), 2, 4))

    assert [[(part.range_index, part.span.start, part.rows) for part in block] for block in blocks] == [
        [(0, 0, 2), (1, 5, 2)],
        [(0, 2, 2), (1, 7, 2)],
        [(0, 4, 1), (1, 9, 1)],
    ]


def test_what_was_asked_is_not_moved_where_it_need_not_be():
    ids, records = np.arange(5), np.zeros(5, POINT)
    checked = checked_call(ids, records, 5, RowType(POINT, "dtype"))

    assert (checked[0] is ids, checked[1] is records) == (True, True)


@pytest.mark.parametrize(
    "ids", [[0, 1], range(2), np.array([0, 1], "u1"), np.array([0, 9, 1])[::2], np.array([0, 1], ">i4")]
)
def test_ids_may_be_any_whole_numbers_in_one_dimension(ids):
    checked = checked_ids(ids, 2)

    assert (checked.dtype, checked.tolist()) == (np.int64, [0, 1])


@pytest.mark.parametrize(
    ("ids", "error", "text"),
    [
        ([0, 5, 9, 10, -1], ValueError, "id 10 at position 3 names no agent: they go from 0 to 9"),
        ([0, -1], ValueError, "id -1 at position 1"),
        (np.array([2**64 - 1], "u8"), ValueError, "id 18446744073709551615 at position 0"),
        (3, ValueError, r"ids of shape \(\)"),
        ([[1]], ValueError, r"ids of shape \(1, 1\)"),
        ([1.0], TypeError, "float64"),
        ([True], TypeError, "bool"),
    ],
)
def test_ids_that_name_no_agent_are_refused(ids, error, text):
    with pytest.raises(error, match=text):
        checked_ids(ids, 10)


def test_no_records_are_fine_and_unequal_lengths_are_not():
    rows = RowType("f8", "dtype")
    assert [len(part) for part in checked_call([], [], 10, rows)] == [0, 0]
    assert list(split(checked_ids([], 10), (0, 5, 10), 4, 4)) == []
    with pytest.raises(ValueError, match="2 ids and 1 records"):
        checked_call([1, 2], np.zeros(1), 10, rows)


@pytest.mark.parametrize(
    ("records", "error", "text"),
    [
        (np.zeros(2, "f4"), EncodingError, "float32 where dtype float64 is wanted"),
        (np.zeros(2, ">f8"), EncodingError, ">f8 where dtype float64 is wanted"),
        (np.zeros(2, POINT), EncodingError, r"'tag'.* where dtype float64"),
        (np.zeros((2, 2)), ValueError, r"shape \(2, 2\)"),
        (1.0, ValueError, r"shape \(\)"),
        (np.array([object()]), EncodingError, "dtype object where"),
    ],
)
def test_records_of_another_dtype_or_shape_are_refused(records, error, text):
    with pytest.raises(error, match=text):
        RowType("f8", "dtype").checked(records)


def test_dtypes_that_lay_out_the_same_names_differently_are_different():
    packed = np.dtype([("a", "u1"), ("b", "f8")])
    apart = [packed, np.dtype([("a", "u1"), ("b", "f8")], align=True), np.dtype([("a", "i1"), ("b", "f8")])]
    apart += [packed.newbyteorder(), np.dtype([("b", "u1"), ("a", "f8")]), np.dtype((packed, (1,))), np.dtype("V9")]
    types = [RowType(dtype, "dtype") for dtype in apart]

    assert len({one.fingerprint for one in types}) == len(apart)
    for one in types[1:]:
        with pytest.raises((EncodingError, ValueError)):
            types[0].checked(one.empty(2))


@pytest.mark.parametrize("dtype", [object, [("a", "O")], [("a", [("b", "i4"), ("c", "O", (2,))])]])
def test_a_dtype_with_objects_is_refused(dtype):
    with pytest.raises(TypeError, match=r"Boids\.dtype is .*objects"):
        RowType(dtype, "Boids.dtype")


@pytest.mark.parametrize("dtype", ["S0", [], "V0"])
def test_a_dtype_without_bytes_is_refused(dtype):
    with pytest.raises(TypeError, match="no bytes"):
        RowType(dtype, "Boids.dtype")


def test_opened_views_can_only_be_read():
    rows = RowType("i4", "dtype")
    ids, records = np.arange(4), np.arange(4, dtype="i4")
    data = pack(rows, Part(0, slice(0, 4), None), ids, records)
    for view in open_rows(Chunk(data), rows, range(4), "a test"):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1


def _chunk(dtype="i4", count=3):
    rows = RowType(dtype, "dtype")
    return bytearray(pack(rows, Part(0, slice(0, count), None), np.arange(count), rows.empty(count)).tobytes())


def test_a_chunk_that_was_damaged_is_never_misread():
    rows, own = RowType("i4", "dtype"), range(3)
    assert len(open_rows(Chunk(_chunk()), rows, own, "a test")[1]) == 3

    fingerprint, count, flags = HEAD.unpack_from(_chunk())
    damaged = [
        (HEAD.pack(fingerprint ^ 1, count, flags), "fingerprint"),
        (HEAD.pack(fingerprint, count + 1, flags), "bytes arrived for 4 records"),
        (HEAD.pack(fingerprint, 2**32 - 1, flags), "bytes arrived for"),
        (HEAD.pack(fingerprint, count, 0), "fingerprint"),
        (HEAD.pack(fingerprint, count, 6), "flags 0x6"),
    ]
    for head, text in damaged:
        data = _chunk()
        data[: HEAD.size] = head
        with pytest.raises(EncodingError, match=text):
            open_rows(Chunk(bytes(data)), rows, own, "a test")
    with pytest.raises(EncodingError, match="not here"):
        open_rows(Chunk(bytes(_chunk())), rows, range(1, 3), "a test")
    with pytest.raises(EncodingError, match="fingerprint"):
        open_rows(Chunk(bytes(_chunk("f4"))), rows, own, "a test")
    with pytest.raises(EncodingError, match="bytes arrived"):
        open_rows(Chunk(bytes(_chunk()[:-1])), rows, own, "a test")
    with pytest.raises(EncodingError, match="fewer than its head"):
        Chunk(b"short")


@pytest.mark.parametrize("dtype", ["f8", POINT, SWAPPED, ("f4", (3,))])
def test_rows_of_a_reply_come_back_as_they_were(dtype):
    rows = RowType(dtype, "dtype")
    records = rows.rows_in(np.random.default_rng(1).bytes(5 * rows.itemsize), 5, 0)
    ids, opened = open_rows(Chunk(pack_rows(rows, records[::2])), rows, None, "a reply")

    assert ids is None
    assert opened.tobytes() == records[::2].tobytes()


def test_a_row_that_no_lane_takes_is_refused():
    rows = RowType("V1000", "dtype")
    assert rows.most_rows(1040, True) == 1
    with pytest.raises(MessageTooLargeError):
        rows.most_rows(1000, True)
