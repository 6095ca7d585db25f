"""Streams to agents: chunks in order with their numbers, sent from files, iterables, event loops and coroutines."""

import asyncio
import io
import threading

import pytest

from fabric import AgentError, AgentNotFoundError, StreamChunk
from fabric.testing import InlineFabric
from tests.stream_agents import Collector, Counting, Uploader, raises_after
from tests.streaming import PATIENCE, one


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


@pytest.mark.parametrize("window", [1, 3, 100])
def test_chunks_arrive_in_order_with_their_numbers(fab, window):
    pieces = [b"abc", bytearray(b"de"), memoryview(b"xyz")[::2], b"", b"last"]
    chunks = one(fab, Collector).send_stream(iter(pieces), total=11, window=window, timeout=PATIENCE)

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
    [chunk] = one(fab, Collector).send_stream([], timeout=PATIENCE)
    assert (chunk.data, chunk.index, chunk.is_last, chunk.total_bytes, chunk.bytes_so_far) == (b"", 0, True, None, 0)


def test_objects_are_sent_as_messages_are(fab):
    import numpy as np

    chunks = one(fab, Collector).send_stream([{"a": 1}, "text", None, np.arange(4)], timeout=PATIENCE)
    assert [chunk.data for chunk in chunks[:3]] == [{"a": 1}, "text", None]
    assert chunks[3].data.tolist() == [0, 1, 2, 3]
    assert chunks[3].bytes_so_far == 32


def test_a_binary_file_and_a_whole_body_are_cut_into_pieces(fab, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 9_000)
    collector = one(fab, Collector)
    with path.open("rb") as file:
        from_file = collector.send_stream(file, timeout=PATIENCE)
    from_bytes = collector.send_stream(path.read_bytes(), timeout=PATIENCE)
    for chunks in (from_file, from_bytes, collector.send_stream(io.BytesIO(path.read_bytes()), timeout=PATIENCE)):
        assert [len(chunk.data) for chunk in chunks] == [1 << 20, 1 << 20, 256 * 9_000 - (2 << 20)]
        assert b"".join(chunk.data for chunk in chunks) == path.read_bytes()
        assert {chunk.total_bytes for chunk in chunks} == {256 * 9_000}
        assert chunks[-1].bytes_so_far == 256 * 9_000


def test_what_cannot_be_a_stream_is_refused_before_anything_is_sent(fab):
    collector = one(fab, Collector)
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
    collector = one(fab, Collector)
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
    collector = one(fab, Collector)
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
    collector, ahead = one(fab, Collector), []
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
    collector, found = one(fab, Collector), {}

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
    uploader, collector = one(fab, Uploader, placement=0), one(fab, Collector, placement=placement)
    chunks = uploader.ask((collector, [b"%d" % number for number in range(100)], 4), PATIENCE)
    assert [(chunk.data, chunk.index) for chunk in chunks] == [(b"%d" % number, number) for number in range(100)]
    counting = one(fab, Counting, placement=placement)
    assert uploader.ask((counting, bytes(1 << 20), 4), PATIENCE) == 1 << 20
    assert len(uploader.ask((collector, "async", 4), PATIENCE)) == 3
    with pytest.raises(AgentError, match="the disk is gone"):
        uploader.ask((collector, "raise", 4), PATIENCE)
    fab.drain(timeout=PATIENCE)
    [chunks] = collector.ask("all", PATIENCE).values()
    assert [chunk.aborted for chunk in chunks] == [False, False, False, True]
