"""Streams from agents, as who asks for them sees them: with real workers, and again in this process."""

import asyncio

import pytest

from fabric import AgentError, EncodingError, Fabric
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
    Yielder,
)
from tests.streaming import PATIENCE, one, until

# Reading.


@pytest.mark.parametrize("window", [1, 2, 16, 1000])
@pytest.mark.parametrize("agent", [Yielder, AsyncYielder, CoroutineYielder])
def test_what_an_agent_yields_comes_item_by_item_in_order(fab, agent, window):
    ref = one(fab, agent)
    assert list(ref.ask_stream({"count": 300}, window=window, timeout=PATIENCE)) == list(range(300))


def test_a_generator_on_message_and_one_made_in_on_batch_are_streams_too(fab):
    assert list(one(fab, Pure).ask_stream(5, timeout=PATIENCE)) == [0, 1, 2, 3, 4]
    assert list(one(fab, BatchYielder).ask_stream(5, timeout=PATIENCE)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("agent", [Echo, AsyncAnswers])
@pytest.mark.parametrize("body", [b"raw", None, [1, 2]])
def test_of_an_agent_that_returns_no_generator_a_stream_has_one_item(fab, agent, body):
    assert list(one(fab, agent).ask_stream(body, timeout=PATIENCE)) == [body]


def test_an_empty_generator_is_an_empty_stream(fab):
    assert list(one(fab, Yielder).ask_stream({"count": 0}, timeout=PATIENCE)) == []


def test_items_of_any_encoding_arrive_as_they_were_yielded(fab):
    import numpy as np

    ref = one(fab, Yielder)
    for item in (b"raw", "text", {"a": (1, 2)}):
        assert list(ref.ask_stream({"count": 2, "item": item}, timeout=PATIENCE)) == [item, item]
    for found in ref.ask_stream({"count": 2, "item": np.arange(6).reshape(2, 3)}, timeout=PATIENCE):
        assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("agent", [Yielder, AsyncWatched])
@pytest.mark.parametrize("window", [1, 7])
def test_no_more_than_a_window_is_made_beyond_what_was_taken(fab, agent, window):
    ref = one(fab, agent)
    request = {"count": 1000} if agent is Yielder else 1000
    with ref.ask_stream(request, window=window, timeout=PATIENCE) as stream:
        until(fab, lambda: ref.ask("made", PATIENCE) >= window)
        assert ref.ask("made", PATIENCE) == window
        for taken in range(1, 50):
            assert next(stream) == taken - 1
            made = ref.ask("made", PATIENCE)
            assert taken <= made <= taken + window
            assert len(stream._flow.items) <= window


def test_a_stream_that_is_not_read_leaves_its_agent_and_its_worker_free(fab):
    ref, other = one(fab, Yielder, placement=0), one(fab, Counter, placement=0)
    with ref.ask_stream({"count": 10_000}, window=4):
        assert other.ask(3, PATIENCE) == 3
        assert list(ref.ask_stream({"count": 100}, timeout=PATIENCE)) == list(range(100))
        assert ref.ask("made", PATIENCE) == 104


def test_streams_of_one_agent_do_not_mix(fab):
    ref = one(fab, Yielder)
    streams = [ref.ask_stream({"count": 50, "item": number}, window=3, timeout=PATIENCE) for number in range(20)]
    assert list(zip(*streams, strict=True)) == [tuple(range(20))] * 50


def test_an_error_comes_where_the_generator_raised_it_after_the_items_before_it(fab):
    for agent in (Yielder, AsyncYielder):
        stream = one(fab, agent).ask_stream({"count": 9, "fail_at": 5}, window=2, timeout=PATIENCE)
        assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(AgentError, match="at 5") as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, ValueError)
        assert "in items" in caught.value.remote_traceback or "on_message" in caught.value.remote_traceback
        assert list(stream) == []


def test_a_handler_that_raises_before_its_generator_begins_raises_at_the_first_item(fab):
    stream = one(fab, Yielder).ask_stream({"no such argument": 1}, timeout=PATIENCE)
    with pytest.raises(AgentError, match="no such argument"):
        next(stream)


def test_an_item_that_cannot_be_sent_ends_the_stream_with_the_reason(fab):
    ref = one(fab, Misbehaving)
    stream = ref.ask_stream("unsendable", timeout=PATIENCE)
    assert next(stream) == 1
    with pytest.raises(EncodingError, match="lock"):
        next(stream)
    assert list(stream) == []
    fab.drain(timeout=PATIENCE)


def test_large_items_and_chunks_arrive_whole(fab):
    import numpy as np

    ref, collector = one(fab, Yielder), one(fab, Collector)
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


def test_a_late_item_is_a_timeout_and_may_be_waited_for_again(fab):
    ref = one(fab, Gated)
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
            one(fab, agent).ask({"count": 3} if agent is not Pure else 3, PATIENCE)


def test_what_a_generator_agent_is_told_is_reported_since_it_would_run_nothing(fab):
    ref = one(fab, Pure)
    before = len(fab.dead_letters())
    ref.tell(3)
    fab.drain(timeout=PATIENCE)
    until(fab, lambda: len(fab.dead_letters()) > before)
    assert "ask_stream" in str(fab.dead_letters()[-1].error)


def test_a_question_for_a_stream_cannot_be_put_off_or_passed_on(fab):
    ref = one(fab, Misbehaving)
    for body in ("later", "forward"):
        with pytest.raises(AgentError, match="put off or passed on"):
            list(ref.ask_stream(body, timeout=PATIENCE))


@pytest.mark.parametrize("window", [0, -1, 1 << 17])
def test_a_window_out_of_range_is_refused(fab, window):
    ref = one(fab, Yielder)
    with pytest.raises(ValueError, match="window"):
        ref.ask_stream({"count": 1}, window=window)
    with pytest.raises(ValueError, match="window"):
        ref.send_stream([b"a"], window=window)
    with pytest.raises(TypeError, match="window"):
        ref.ask_stream({"count": 1}, window=1.5)


def test_a_generator_speaks_for_its_agent_when_it_tells(fab):
    witness = one(fab, Recorder)
    ref = one(fab, Telling, witness=witness)
    assert list(ref.ask_stream(3, timeout=PATIENCE)) == [0, 1, 2]
    fab.drain(timeout=PATIENCE)
    assert witness.ask("all", PATIENCE) == [(0, None, False), (1, None, False), (2, None, False)]


# From worker to worker.


@pytest.mark.parametrize("placement", [0, 1])
@pytest.mark.parametrize("agent", [Yielder, AsyncYielder, CoroutineYielder])
def test_a_coroutine_of_an_agent_reads_a_stream_of_another(fab, agent, placement):
    reader, ref = one(fab, Reader, placement=0), one(fab, agent, placement=placement)
    assert reader.ask((ref, {"count": 300}, "all"), PATIENCE) == list(range(300))
    assert reader.ask((ref, {"count": 300}, "some"), PATIENCE) == 0
    with pytest.raises(AgentError, match="at 5"):
        reader.ask((ref, {"count": 9, "fail_at": 5}, "all"), PATIENCE)
    fab.drain(timeout=PATIENCE)


def test_a_handler_that_would_block_its_worker_for_a_stream_is_told_so(fab):
    ref, collector = one(fab, Yielder), one(fab, Collector)
    with pytest.raises(AgentError, match="async for"):
        one(fab, SyncReader).ask((ref, "ask"), PATIENCE)
    with pytest.raises(AgentError, match="send_stream_async"):
        one(fab, SyncReader).ask((collector, "send"), PATIENCE)
    with pytest.raises(AgentError, match="async for"):
        one(fab, Reader).ask((ref, {"count": 3}, "for"), PATIENCE)


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


# Room, and what may be sent.


def test_small_lanes_make_streams_wait_and_no_sender_sees_it():
    with Fabric(workers=1, lane_bytes=64 * 1024, control_lane_bytes=16 * 1024) as fab:
        ref, collector = fab.spawn_batch(Yielder, 1)[0], fab.spawn_batch(Collector, 1)[0]
        item = bytes(10_000)
        assert list(ref.ask_stream({"count": 200, "item": item}, window=64, timeout=PATIENCE)) == [item] * 200
        chunks = collector.send_stream([item[:500]] * 20, window=20, timeout=PATIENCE)
        assert [chunk.index for chunk in chunks] == list(range(20))
        sent = fab.spawn_batch(Counting, 1)[0].send_stream([item] * 200, window=100, timeout=PATIENCE)
        assert sent == 200 * len(item)


def test_streams_work_where_pickles_are_not_allowed(kind):
    with kind(workers=1, allow_pickle=False, encoding="json") as fab:
        ref, collector = fab.spawn_batch(Yielder, 1)[0], fab.spawn_batch(Echo, 1)[0]
        assert list(ref.ask_stream({"count": 3}, timeout=PATIENCE)) == [0, 1, 2]
        with pytest.raises(AgentError, match="at 1"):
            list(ref.ask_stream({"count": 3, "fail_at": 1}, timeout=PATIENCE))
        chunk = collector.send_stream([b"a", {"b": 1}], timeout=PATIENCE)
        assert (chunk.data, chunk.index, chunk.is_last) == ({"b": 1}, 1, True)
