"""Streams from agents and to agents, as users see them: with real workers, and again in this process."""

import asyncio
import gc
import io
import threading
import time

import pytest

from fabric import (
    AgentError,
    AgentNotFoundError,
    ClosedError,
    EncodingError,
    Fabric,
    StreamChunk,
)
from fabric.testing import InlineFabric
from tests.agents import Counter, Echo, Recorder
from tests.stream_agents import (
    AsyncAnswers,
    AsyncWatched,
    AsyncYielder,
    BatchYielder,
    Collector,
    CoroutineYielder,
    Counting,
    Gated,
    Misbehaving,
    Pure,
    Reader,
    SyncReader,
    Telling,
    Uploader,
    Yielder,
    raises_after,
)

PATIENCE = 30


def _until(fab, reached):
    """Wait until something is so, of which no event tells."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        if isinstance(fab, InlineFabric):
            fab.step()
        else:
            time.sleep(0.001)


def _one(fab, kind, **options):
    return fab.spawn_batch(kind, 1, **options)[0]


# Reading.


@pytest.mark.parametrize("window", [1, 2, 16, 1000])
@pytest.mark.parametrize("agent", [Yielder, AsyncYielder, CoroutineYielder])
def test_what_an_agent_yields_comes_item_by_item_in_order(fab, agent, window):
    ref = _one(fab, agent)
    assert list(ref.ask_stream({"count": 300}, window=window, timeout=PATIENCE)) == list(range(300))


def test_a_generator_on_message_and_one_made_in_on_batch_are_streams_too(fab):
    assert list(_one(fab, Pure).ask_stream(5, timeout=PATIENCE)) == [0, 1, 2, 3, 4]
    assert list(_one(fab, BatchYielder).ask_stream(5, timeout=PATIENCE)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("agent", [Echo, AsyncAnswers])
@pytest.mark.parametrize("body", [b"raw", None, [1, 2]])
def test_of_an_agent_that_returns_no_generator_a_stream_has_one_item(fab, agent, body):
    assert list(_one(fab, agent).ask_stream(body, timeout=PATIENCE)) == [body]


def test_an_empty_generator_is_an_empty_stream(fab):
    assert list(_one(fab, Yielder).ask_stream({"count": 0}, timeout=PATIENCE)) == []


def test_items_of_any_encoding_arrive_as_they_were_yielded(fab):
    import numpy as np

    ref = _one(fab, Yielder)
    for item in (b"raw", "text", {"a": (1, 2)}):
        assert list(ref.ask_stream({"count": 2, "item": item}, timeout=PATIENCE)) == [item, item]
    for found in ref.ask_stream({"count": 2, "item": np.arange(6).reshape(2, 3)}, timeout=PATIENCE):
        assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("agent", [Yielder, AsyncWatched])
@pytest.mark.parametrize("window", [1, 7])
def test_no_more_than_a_window_is_made_beyond_what_was_taken(fab, agent, window):
    ref = _one(fab, agent)
    request = {"count": 1000} if agent is Yielder else 1000
    with ref.ask_stream(request, window=window, timeout=PATIENCE) as stream:
        _until(fab, lambda: ref.ask("made", PATIENCE) >= window)
        assert ref.ask("made", PATIENCE) == window
        for taken in range(1, 50):
            assert next(stream) == taken - 1
            made = ref.ask("made", PATIENCE)
            assert taken <= made <= taken + window
            assert len(stream._flow.items) <= window


def test_a_stream_that_is_not_read_leaves_its_agent_and_its_worker_free(fab):
    ref, other = _one(fab, Yielder, placement=0), _one(fab, Counter, placement=0)
    with ref.ask_stream({"count": 10_000}, window=4):
        assert other.ask(3, PATIENCE) == 3
        assert list(ref.ask_stream({"count": 100}, timeout=PATIENCE)) == list(range(100))
        assert ref.ask("made", PATIENCE) == 104


def test_streams_of_one_agent_do_not_mix(fab):
    ref = _one(fab, Yielder)
    streams = [ref.ask_stream({"count": 50, "item": number}, window=3, timeout=PATIENCE) for number in range(20)]
    assert list(zip(*streams, strict=True)) == [tuple(range(20))] * 50


def test_an_error_comes_where_the_generator_raised_it_after_the_items_before_it(fab):
    for agent in (Yielder, AsyncYielder):
        stream = _one(fab, agent).ask_stream({"count": 9, "fail_at": 5}, window=2, timeout=PATIENCE)
        assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(AgentError, match="at 5") as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, ValueError)
        assert "in items" in caught.value.remote_traceback or "on_message" in caught.value.remote_traceback
        assert list(stream) == []


def test_a_handler_that_raises_before_its_generator_begins_raises_at_the_first_item(fab):
    stream = _one(fab, Yielder).ask_stream({"no such argument": 1}, timeout=PATIENCE)
    with pytest.raises(AgentError, match="no such argument"):
        next(stream)


def test_an_item_that_cannot_be_sent_ends_the_stream_with_the_reason(fab):
    ref = _one(fab, Misbehaving)
    stream = ref.ask_stream("unsendable", timeout=PATIENCE)
    assert next(stream) == 1
    with pytest.raises(EncodingError, match="lock"):
        next(stream)
    assert list(stream) == []
    fab.drain(timeout=PATIENCE)


def test_large_items_and_chunks_arrive_whole(fab):
    import numpy as np

    ref, collector = _one(fab, Yielder), _one(fab, Collector)
    array = np.arange(60_000.0)
    for item in (bytes(range(256)) * 1_000, array, {"a": array}):
        for found in ref.ask_stream({"count": 5, "item": item}, window=2, timeout=PATIENCE):
            assert np.array_equal(found["a"], array) if isinstance(item, dict) else np.array_equal(found, item)
    view = memoryview(bytearray(range(256)) * 1_000)
    chunks = collector.send_stream([view, array, {"a": array}, bytes(view)], window=2, timeout=PATIENCE)
    assert chunks[0].data == chunks[3].data == bytes(view)
    assert np.array_equal(chunks[1].data, array)
    assert np.array_equal(chunks[2].data["a"], array)
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3]


def test_a_stopped_agent_ends_its_streams_and_their_generators(fab):
    ref, witness = _one(fab, Yielder), _one(fab, Recorder)
    stream = ref.ask_stream({"count": 100}, window=3, timeout=PATIENCE)
    assert next(stream) == 0
    ref.stop(PATIENCE)
    with pytest.raises(AgentNotFoundError):
        list(stream)
    gone = ref.ask_stream({"count": 1})
    with pytest.raises(AgentNotFoundError):
        next(gone)
    witness.tell("a")
    fab.drain(timeout=PATIENCE)


@pytest.mark.parametrize("agent", [Yielder, AsyncWatched])
@pytest.mark.parametrize("how", ["close", "with", "break", "collected", "unread"])
def test_a_stream_that_is_let_go_closes_its_generator(fab, agent, how):
    ref = _one(fab, agent)
    request = {"count": 100} if agent is Yielder else 100
    stream = ref.ask_stream(request, window=3, timeout=PATIENCE)
    if how == "close":
        assert next(stream) == 0
        stream.close()
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            assert next(stream) == 0
    elif how == "break":
        for _ in stream:
            break
    elif how == "collected":
        assert next(stream) == 0
        cycle = [stream]
        cycle.append(cycle)
        del cycle
    else:
        _until(fab, lambda: ref.ask("made", PATIENCE) == 3)
    del stream
    gc.collect()
    _until(fab, lambda: ref.ask("closed", PATIENCE) == 1)
    assert ref.ask("made", PATIENCE) <= 5
    fab.drain(timeout=PATIENCE)  # its question was committed: nothing is in hand any more


def test_a_stream_that_is_closed_is_closed_before_what_its_reader_asks_next(fab):
    ref = _one(fab, Yielder)
    stream = ref.ask_stream({"count": 100}, timeout=PATIENCE)
    assert next(stream) == 0
    stream.close()
    assert ref.ask("closed", PATIENCE) == 1


def test_what_a_generator_raises_while_it_is_closed_is_a_dead_letter(fab):
    ref = _one(fab, Misbehaving)
    before = len(fab.dead_letters())
    with ref.ask_stream("no end", window=1, timeout=PATIENCE) as stream:
        assert next(stream) == 1
    fab.drain(timeout=PATIENCE)
    _until(fab, lambda: len(fab.dead_letters()) > before)
    assert "in finally" in str(fab.dead_letters()[-1].error)


def test_a_late_item_is_a_timeout_and_may_be_waited_for_again(fab):
    ref = _one(fab, Gated)
    stream = ref.ask_stream("stream", timeout=0.05)
    assert next(stream) == "before"
    with pytest.raises(TimeoutError, match="1 came before"):
        next(stream)
    ref.tell("open")
    stream._timeout = PATIENCE
    assert list(stream) == ["after"]


def test_a_plain_ask_of_a_generator_says_to_use_ask_stream(fab):
    for agent in (Pure, AsyncYielder, Yielder):
        with pytest.raises(EncodingError, match="ask_stream"):
            _one(fab, agent).ask({"count": 3} if agent is not Pure else 3, PATIENCE)


def test_what_a_generator_agent_is_told_is_reported_since_it_would_run_nothing(fab):
    ref = _one(fab, Pure)
    before = len(fab.dead_letters())
    ref.tell(3)
    fab.drain(timeout=PATIENCE)
    _until(fab, lambda: len(fab.dead_letters()) > before)
    assert "ask_stream" in str(fab.dead_letters()[-1].error)


def test_a_question_for_a_stream_cannot_be_put_off_or_passed_on(fab):
    ref = _one(fab, Misbehaving)
    for body in ("later", "forward"):
        with pytest.raises(AgentError, match="put off or passed on"):
            list(ref.ask_stream(body, timeout=PATIENCE))


@pytest.mark.parametrize("window", [0, -1, 1 << 17])
def test_a_window_out_of_range_is_refused(fab, window):
    ref = _one(fab, Yielder)
    with pytest.raises(ValueError, match="window"):
        ref.ask_stream({"count": 1}, window=window)
    with pytest.raises(ValueError, match="window"):
        ref.send_stream([b"a"], window=window)
    with pytest.raises(TypeError, match="window"):
        ref.ask_stream({"count": 1}, window=1.5)


def test_a_generator_speaks_for_its_agent_when_it_tells(fab):
    witness = _one(fab, Recorder)
    ref = _one(fab, Telling, witness=witness)
    assert list(ref.ask_stream(3, timeout=PATIENCE)) == [0, 1, 2]
    fab.drain(timeout=PATIENCE)
    assert witness.ask("all", PATIENCE) == [(0, None, False), (1, None, False), (2, None, False)]


# From worker to worker.


@pytest.mark.parametrize("placement", [0, 1])
@pytest.mark.parametrize("agent", [Yielder, AsyncYielder, CoroutineYielder])
def test_a_coroutine_of_an_agent_reads_a_stream_of_another(fab, agent, placement):
    reader, ref = _one(fab, Reader, placement=0), _one(fab, agent, placement=placement)
    assert reader.ask((ref, {"count": 300}, "all"), PATIENCE) == list(range(300))
    assert reader.ask((ref, {"count": 300}, "some"), PATIENCE) == 0
    with pytest.raises(AgentError, match="at 5"):
        reader.ask((ref, {"count": 9, "fail_at": 5}, "all"), PATIENCE)
    fab.drain(timeout=PATIENCE)


@pytest.mark.parametrize("placement", [0, 1])
def test_a_stream_that_a_coroutine_drops_closes_its_generator(fab, placement):
    reader, ref = _one(fab, Reader, placement=0), _one(fab, Yielder, placement=placement)
    assert reader.ask((ref, {"count": 100}, "keep"), PATIENCE) == 0
    assert ref.ask("made", PATIENCE) <= 4
    assert ref.ask("closed", PATIENCE) == 0
    reader.ask((ref, None, "drop"), PATIENCE)
    _until(fab, lambda: ref.ask("closed", PATIENCE) == 1)


@pytest.mark.parametrize("placement", [0, 1])
def test_an_agent_that_stops_lets_go_of_the_streams_that_it_read(fab, placement):
    reader, ref = _one(fab, Reader, placement=0), _one(fab, Yielder, placement=placement)
    assert reader.ask((ref, {"count": 100}, "keep"), PATIENCE) == 0
    reader.stop(PATIENCE)
    _until(fab, lambda: ref.ask("closed", PATIENCE) == 1)


def test_a_handler_that_would_block_its_worker_for_a_stream_is_told_so(fab):
    ref, collector = _one(fab, Yielder), _one(fab, Collector)
    with pytest.raises(AgentError, match="async for"):
        _one(fab, SyncReader).ask((ref, "ask"), PATIENCE)
    with pytest.raises(AgentError, match="send_stream_async"):
        _one(fab, SyncReader).ask((collector, "send"), PATIENCE)
    with pytest.raises(AgentError, match="async for"):
        _one(fab, Reader).ask((ref, {"count": 3}, "for"), PATIENCE)


# In the coordinator's event loop.


def test_streams_are_read_in_an_event_loop(kind):
    async def read():
        async with kind(workers=2) as fab:
            ref, other = fab.spawn_batch(Yielder, 2)

            async def numbers(of):
                return [item async for item in of.ask_stream({"count": 200}, window=5, timeout=PATIENCE)]

            found = await asyncio.gather(numbers(ref), numbers(other), ref.ask_async("closed", PATIENCE))
            with pytest.raises(AgentError, match="at 2"):
                async for _ in ref.ask_stream({"count": 5, "fail_at": 2}, timeout=PATIENCE):
                    pass
            async with ref.ask_stream({"count": 50}) as stream:
                assert await anext(stream) == 0
            reply = await other.ask_async("made", PATIENCE)
            return found[:2], reply

    assert asyncio.run(read()) == ([list(range(200))] * 2, 200)


def test_a_stream_is_sent_from_an_event_loop(kind):
    async def send():
        async with kind(workers=1) as fab:
            collector = fab.spawn_batch(Collector, 1)[0]
            with pytest.raises(OSError, match="disk"):
                await collector.send_stream_async(raises_after(2), timeout=PATIENCE)
            [aborted] = (await collector.ask_async("all", PATIENCE)).values()
            assert [chunk.aborted for chunk in aborted] == [False, False, True]
            return await collector.send_stream_async(numbered(), window=2, timeout=PATIENCE)

    async def numbered():
        for number in range(20):
            await asyncio.sleep(0)
            yield bytes([number])

    assert [chunk.data for chunk in asyncio.run(send())] == [bytes([number]) for number in range(20)]


# Sending.


@pytest.mark.parametrize("window", [1, 3, 100])
def test_chunks_arrive_in_order_with_their_numbers(fab, window):
    pieces = [b"abc", bytearray(b"de"), memoryview(b"xyz")[::2], b"", b"last"]
    chunks = _one(fab, Collector).send_stream(iter(pieces), total=11, window=window, timeout=PATIENCE)

    [stream] = {chunk.stream for chunk in chunks}
    assert chunks == [
        StreamChunk(b"abc", 0, False, 11, 3, stream),
        StreamChunk(b"de", 1, False, 11, 5, stream),
        StreamChunk(b"xz", 2, False, 11, 7, stream),
        StreamChunk(b"", 3, False, 11, 7, stream),
        StreamChunk(b"last", 4, True, 11, 11, stream),
    ]
    assert {type(chunk.data) for chunk in chunks} == {bytes}


def test_an_empty_iterable_is_one_last_chunk_without_data(fab):
    [chunk] = _one(fab, Collector).send_stream([], timeout=PATIENCE)
    assert (chunk.data, chunk.index, chunk.is_last, chunk.total_bytes, chunk.bytes_so_far) == (b"", 0, True, None, 0)


def test_objects_are_sent_as_messages_are(fab):
    import numpy as np

    chunks = _one(fab, Collector).send_stream([{"a": 1}, "text", None, np.arange(4)], timeout=PATIENCE)
    assert [chunk.data for chunk in chunks[:3]] == [{"a": 1}, "text", None]
    assert chunks[3].data.tolist() == [0, 1, 2, 3]
    assert chunks[3].bytes_so_far == 32


def test_a_binary_file_and_a_whole_body_are_cut_into_pieces(fab, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 9_000)
    collector = _one(fab, Collector)
    with path.open("rb") as file:
        from_file = collector.send_stream(file, timeout=PATIENCE)
    from_bytes = collector.send_stream(path.read_bytes(), timeout=PATIENCE)
    for chunks in (from_file, from_bytes, collector.send_stream(io.BytesIO(path.read_bytes()), timeout=PATIENCE)):
        assert [len(chunk.data) for chunk in chunks] == [1 << 20, 1 << 20, 256 * 9_000 - (2 << 20)]
        assert b"".join(chunk.data for chunk in chunks) == path.read_bytes()
        assert {chunk.total_bytes for chunk in chunks} == {256 * 9_000}
        assert chunks[-1].bytes_so_far == 256 * 9_000


def test_what_cannot_be_a_stream_is_refused_before_anything_is_sent(fab):
    collector = _one(fab, Collector)
    with pytest.raises(TypeError, match="letter by letter"):
        collector.send_stream("text")
    with pytest.raises(ValueError, match="total"):
        collector.send_stream([b"a"], total=-1)
    with pytest.raises(TypeError):
        collector.send_stream(7)
    with pytest.raises(TypeError, match="binary"):
        collector.send_stream(io.StringIO("text"))
    collector.ask("clear", PATIENCE)
    collector.stop(PATIENCE)
    with pytest.raises(AgentNotFoundError):
        collector.send_stream([b"a"])


def test_an_iterable_that_raises_leaves_the_agent_with_an_aborted_chunk(fab):
    collector = _one(fab, Collector)
    with pytest.raises(OSError, match="the disk is gone"):
        collector.send_stream(raises_after(3), timeout=PATIENCE)
    [chunks] = collector.ask("all", PATIENCE).values()
    assert [(chunk.index, chunk.data, chunk.is_last, chunk.aborted) for chunk in chunks] == [
        (0, b"\0", False, False),
        (1, b"\1", False, False),
        (2, b"\2", False, False),
        (3, b"", False, True),
    ]


def test_an_agent_that_raises_ends_the_stream_at_its_sender(fab):
    collector = _one(fab, Collector)
    taken = []

    def source():
        for number in range(1_000):
            taken.append(number)
            yield b"raise" if number == 3 else b"x"

    with pytest.raises(AgentError, match="not this one"):
        collector.send_stream(source(), window=2, timeout=PATIENCE)
    assert len(taken) < 10
    [chunks] = collector.ask("all", PATIENCE).values()
    assert chunks[-1].aborted
    with pytest.raises(AgentError, match="not this one"):
        collector.send_stream([b"a", b"raise"], timeout=PATIENCE)


def test_a_sender_is_no_further_ahead_than_its_window(fab):
    collector, ahead = _one(fab, Collector), []
    sent = 0

    def source():
        nonlocal sent
        for _ in range(40):
            handled = sum(map(len, collector.ask("all", PATIENCE).values()))
            ahead.append(sent - handled)
            sent += 1
            yield b"x"

    assert len(collector.send_stream(source(), window=3, timeout=PATIENCE)) == 40
    assert max(ahead) <= 4  # and one that is held back, lest it is the last


def test_streams_of_several_threads_are_numbered_each_for_itself(fab):
    if isinstance(fab, InlineFabric):
        pytest.skip("one thread")
    collector, found = _one(fab, Collector), {}

    def send(name):
        found[name] = collector.send_stream([name] * 100, window=5, timeout=PATIENCE)

    threads = [threading.Thread(target=send, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for name in (b"a", b"b", b"c"):
        assert [(chunk.data, chunk.index) for chunk in found[name]] == [(name, index) for index in range(100)]


@pytest.mark.parametrize("placement", [0, 1])
def test_a_coroutine_of_an_agent_sends_a_stream(fab, placement):
    uploader, collector = _one(fab, Uploader, placement=0), _one(fab, Collector, placement=placement)
    chunks = uploader.ask((collector, [b"%d" % number for number in range(100)], 4), PATIENCE)
    assert [(chunk.data, chunk.index) for chunk in chunks] == [(b"%d" % number, number) for number in range(100)]
    counting = _one(fab, Counting, placement=placement)
    assert uploader.ask((counting, bytes(1 << 20), 4), PATIENCE) == 1 << 20
    assert len(uploader.ask((collector, "async", 4), PATIENCE)) == 3
    with pytest.raises(AgentError, match="the disk is gone"):
        uploader.ask((collector, "raise", 4), PATIENCE)
    fab.drain(timeout=PATIENCE)
    [chunks] = collector.ask("all", PATIENCE).values()
    assert [chunk.aborted for chunk in chunks] == [False, False, False, True]


# Room, and the end.


def test_small_lanes_make_streams_wait_and_no_sender_sees_it():
    with Fabric(workers=1, lane_bytes=64 * 1024, control_lane_bytes=16 * 1024) as fab:
        ref, collector = fab.spawn_batch(Yielder, 1)[0], fab.spawn_batch(Collector, 1)[0]
        item = bytes(10_000)
        assert list(ref.ask_stream({"count": 200, "item": item}, window=64, timeout=PATIENCE)) == [item] * 200
        chunks = collector.send_stream([item[:500]] * 20, window=20, timeout=PATIENCE)
        assert [chunk.index for chunk in chunks] == list(range(20))
        sent = fab.spawn_batch(Counting, 1)[0].send_stream([item] * 200, window=100, timeout=PATIENCE)
        assert sent == 200 * len(item)


def test_closing_a_fabric_ends_the_streams_that_are_open(kind):
    with kind(workers=1) as fab:
        ref = fab.spawn_batch(Yielder, 1)[0]
        unread = ref.ask_stream({"count": 1000}, window=2)
        stream = ref.ask_stream({"count": 1000}, window=2, timeout=PATIENCE)
        assert next(stream) == 0
    assert len(list(_until_error(stream, ClosedError))) <= 2
    unread.close()
    with pytest.raises(ClosedError):
        ref.ask_stream({"count": 1})


def _until_error(stream, error):
    """Yield what still comes of a stream, which ends with this error."""
    with pytest.raises(error):
        yield from stream


def test_streams_work_where_pickles_are_not_allowed(kind):
    with kind(workers=1, allow_pickle=False, encoding="json") as fab:
        ref, collector = fab.spawn_batch(Yielder, 1)[0], fab.spawn_batch(Echo, 1)[0]
        assert list(ref.ask_stream({"count": 3}, timeout=PATIENCE)) == [0, 1, 2]
        with pytest.raises(AgentError, match="at 1"):
            list(ref.ask_stream({"count": 3, "fail_at": 1}, timeout=PATIENCE))
        chunk = collector.send_stream([b"a", {"b": 1}], timeout=PATIENCE)
        assert (chunk.data, chunk.index, chunk.is_last) == ({"b": 1}, 1, True)
