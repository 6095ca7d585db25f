"""How far a stream may run ahead, and which items come again after a crash: decisions alone, no process.

One test plays a whole stream against lists: a maker that dies at any moment, credits that are lost
with it, a reader of any pace.
"""

import io
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.chunks import Chunker
from fabric.codec import CHUNK_OVERHEAD, Codec
from fabric.flow import Inflow, Outflow, check_window
from fabric.messages import DIRECT, FIRST, NUMBER_MASK, STREAM_END, ErrorInfo, StreamChunk

END = ErrorInfo(STREAM_END, "", "", 0, None)
LIMIT = 1 << 22


def test_a_maker_stops_at_its_window_and_goes_on_with_what_was_taken():
    flow = Outflow(3)
    assert [flow.number() for _ in range(3)] == [FIRST, 1, 2]
    assert not flow.open
    flow.grant(1)
    assert flow.open
    assert flow.number() == 3
    flow.grant(0)
    assert not flow.open, "an old credit takes nothing away"


def test_a_reader_tells_its_credit_at_each_half_window():
    flow = Inflow(4)
    for number in range(4):
        flow.accept(number or FIRST, number)
    assert flow.credit is None
    assert flow.take() == 0
    assert flow.credit is None
    assert flow.take() == 1
    credit = flow.credit
    assert credit == (2, 1)
    flow.told(credit)
    assert flow.credit is None


def test_a_run_that_begins_anew_is_counted_from_nothing_and_told_the_credit_again():
    flow = Inflow(4)
    for index, item in ((FIRST, "a"), (1, "b"), (FIRST, "again a"), (1, "again b"), (2, "c")):
        flow.accept(index, item)
    assert list(flow.items) == ["a", "b", "c"]
    assert flow.credit == (0, 2)


def test_a_run_that_begins_while_the_credit_is_on_its_way_is_told_once_more():
    flow = Inflow(2)
    flow.accept(FIRST, "a")
    flow.take()
    credit = flow.credit
    flow.accept(FIRST, "a")
    flow.told(credit)
    assert flow.credit == (1, 2)


def test_numbers_are_counted_past_the_bits_they_have():
    flow, out = Inflow(4), Outflow(4)
    flow._at = flow.received = flow.taken = out.made = NUMBER_MASK - 3
    flow._runs = 1
    for number in range(NUMBER_MASK - 3, NUMBER_MASK + 5):
        out.grant(number)
        flow.accept(out.number(), number)
        assert flow.take() == number
    flow.accept(FIRST, 0)
    assert not flow.items


@pytest.mark.parametrize("index", [1, 2, NUMBER_MASK])
def test_an_item_out_of_order_or_beyond_the_window_is_refused(index):
    flow = Inflow(2)
    with pytest.raises(ValueError, match="should be next"):
        flow.accept(index, "x")
    flow.accept(FIRST, "a")
    flow.accept(1, "b")
    with pytest.raises(ValueError, match="nobody asked for"):
        flow.accept(2, "c")
    with pytest.raises(ValueError, match="no stream"):
        flow.accept(DIRECT | 2, "not an error")
    assert list(flow.items) == ["a", "b"]


def test_what_ends_a_stream_comes_after_its_items_and_nothing_comes_after_it():
    for index in (1, DIRECT | 5):
        flow = Inflow(2)
        flow.accept(FIRST, "a")
        flow.accept(index, END)
        assert (flow.items[0], flow.end, flow.credit) == ("a", END, None)
        with pytest.raises(ValueError, match="over"):
            flow.accept(2, "b")


@pytest.mark.parametrize("window", [True, "4", 2.0])
def test_a_window_is_a_number(window):
    with pytest.raises(TypeError):
        check_window(window)


class _Maker:
    """A worker's side: a run of the generator, the lane to the reader, and credits on their way."""

    def __init__(self, count, window):
        self.count, self.window = count, window
        self.lane = deque()
        self.credits = deque()
        self.out = Outflow(window)
        self.over = False

    def make(self):
        if self.out.open and not self.over:
            self.over = self.out.made == self.count
            item = END if self.over else self.out.made
            self.lane.append((self.out.number(), item))

    def die(self):
        """What is in the lane was published; credits that were not read are lost, and the generator begins anew."""
        self.credits.clear()
        self.out, self.over = Outflow(self.window), False


@settings(max_examples=300)
@given(
    st.integers(0, 30),
    st.integers(1, 9),
    st.lists(st.sampled_from(["make", "make", "hand", "hand", "take", "tell", "hear", "die"]), max_size=200),
)
def test_whatever_happens_the_reader_has_each_item_once_and_comes_to_the_end(count, window, steps):
    maker, flow, found = _Maker(count, window), Inflow(window), []

    def step(name):
        if name == "make":
            maker.make()
        elif name == "hand" and maker.lane and flow.end is None:
            flow.accept(*maker.lane.popleft())
        elif name == "take" and flow.items:
            found.append(flow.take())
        elif name == "tell" and flow.credit is not None:
            maker.credits.append(flow.credit)
            flow.told(flow.credit)
        elif name == "hear" and maker.credits:
            maker.out.grant(maker.credits.popleft()[0])
        elif name == "die" and not (flow.end or maker.over):
            maker.die()
        assert len(flow.items) <= window

    for name in steps:
        step(name)
    for _ in range(20 * (count + 2)):
        for name in ("make", "hand", "take", "tell", "hear"):
            step(name)
    assert flow.end == END
    assert found == list(range(count))


# Chunks.


@settings(max_examples=200)
@given(
    st.lists(st.binary(max_size=20) | st.integers() | st.none(), max_size=12),
    st.none() | st.integers(0, 2**40),
    st.booleans(),
)
def test_chunks_survive_the_codec_and_say_what_was_sent(pieces, total, raises):
    codec, sent = Codec(), []

    def source():
        yield from pieces
        if raises:
            raise KeyError("midway")

    chunker = Chunker(source(), total, LIMIT)
    if raises:
        with pytest.raises(KeyError):
            sent.extend(_sent_before_it_raises(chunker, sent))
        sent.append(chunker.aborted())
    else:
        sent.extend(chunker)
    for chunk in sent:
        assert codec.decode(*codec.encode(chunk)) == chunk

    expected = pieces if pieces or raises else [b""]
    assert [chunk.data for chunk in sent if not chunk.aborted] == expected
    assert [chunk.index for chunk in sent] == list(range(len(sent)))
    assert [chunk.is_last for chunk in sent[:-1]] == [False] * (len(sent) - 1)
    assert (sent[-1].is_last, sent[-1].aborted) == (not raises, raises)
    assert sent[-1].bytes_so_far == sum(len(piece) for piece in pieces if isinstance(piece, bytes))
    assert {chunk.total_bytes for chunk in sent} == {total}
    assert len({chunk.stream for chunk in sent}) == 1


def _sent_before_it_raises(chunker, sent):
    for chunk in chunker:
        sent.append(chunk)
    return ()


@given(st.binary(max_size=3000), st.integers(CHUNK_OVERHEAD + 1, CHUNK_OVERHEAD + 700), st.booleans())
def test_a_file_and_a_body_are_cut_so_that_each_piece_can_be_sent(data, limit, as_file):
    chunks = list(Chunker(io.BytesIO(data) if as_file else data, None, limit))
    assert b"".join(chunk.data for chunk in chunks) == data
    assert all(len(Codec().encode(chunk)[1]) <= limit for chunk in chunks)
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {chunk.total_bytes for chunk in chunks} == {len(data)}


def test_bytes_reach_the_codec_as_a_view_and_the_receiver_as_bytes():
    source = bytearray(b"abcdef")
    [chunk] = Chunker([memoryview(source)[1:4]], None, LIMIT)
    assert type(chunk.data) is memoryview
    assert chunk.data.obj is source
    found = Codec().decode(*Codec().encode(chunk))
    assert found == StreamChunk(b"bcd", 0, True, None, 3, chunk.stream)
    assert type(found.data) is bytes
