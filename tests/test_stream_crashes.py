"""Streams whose worker dies: what the reader, the sender and the next message see."""

import itertools
import os
import signal
import threading

import pytest

from fabric import Agent, AgentError, Fabric, PoisonMessageError, WorkerLostError
from tests.stream_agents import AsyncWatched, Collector, KeptCollector, KeptYielder, Reader, Yielder
from tests.waiting import until

PATIENCE = 30


def _kill(fab, slot=1):
    worker = next(worker for worker in fab.statistics().workers if worker.slot == slot)
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


@pytest.fixture
def fab():
    with Fabric(workers=2, on_error=lambda letter: None, max_restarts=100) as fabric:
        yield fabric


def _one(fab, kind, **options):
    return fab.spawn_batch(kind, 1, **options)[0]


@pytest.mark.parametrize("window", [1, 4, 64])
def test_a_reader_sees_each_item_once_though_the_worker_dies_again_and_again(fab, window):
    ref = _one(fab, Yielder, placement=0)
    found = []
    for number in ref.ask_stream({"count": 200}, window=window, timeout=PATIENCE):
        found.append(number)
        if number in (0, 1, 50, 120, 199):
            _kill(fab)
    assert found == list(range(200))
    fab.drain(timeout=PATIENCE)


def test_an_asynchronous_generator_is_run_anew_too(fab):
    ref = _one(fab, AsyncWatched, placement=0)
    found = []
    for number in ref.ask_stream(100, window=3, timeout=PATIENCE):
        found.append(number)
        if number in (10, 60):
            _kill(fab)
    assert found == list(range(100))


def test_a_generator_that_kills_its_worker_once_is_run_anew_and_no_item_comes_twice(fab):
    ref = _one(fab, Yielder, placement=0)
    assert list(ref.ask_stream({"count": 40, "die_once_at": 30}, window=4, timeout=PATIENCE)) == list(range(40))
    assert fab.statistics().restarts == 1


def test_a_generator_that_kills_its_workers_is_found_out_after_the_items_before(fab):
    ref, neighbour = _one(fab, Yielder, placement=0), _one(fab, Yielder, placement=0)
    with pytest.raises(PoisonMessageError) as caught:
        list(ref.ask_stream({"count": 9, "die_at": 5}, window=2, timeout=PATIENCE))
    assert caught.value.attempts == 3
    assert list(neighbour.ask_stream({"count": 9}, timeout=PATIENCE)) == list(range(9))


def test_items_before_a_killing_one_have_come(fab):
    ref = _one(fab, Yielder, placement=0)
    stream = ref.ask_stream({"count": 9, "die_at": 5}, window=2, timeout=PATIENCE)
    assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(PoisonMessageError):
        list(stream)


@pytest.mark.parametrize("agent", [Yielder, KeptYielder])
def test_a_stream_that_is_not_begun_twice_ends_with_the_loss_of_its_worker(fab, agent):
    options = {"on_crash": "fail"} if agent is Yielder else {}
    ref = _one(fab, agent, placement=0, **options)
    stream = ref.ask_stream({"count": 100}, window=4, timeout=PATIENCE)
    assert next(stream) == 0
    _kill(fab)
    with pytest.raises(WorkerLostError):
        list(stream)
    assert list(ref.ask_stream({"count": 5}, timeout=PATIENCE)) == list(range(5))
    fab.drain(timeout=PATIENCE)


def test_what_a_stream_changed_is_in_the_next_snapshot_when_it_is_over(fab):
    ref = _one(fab, KeptYielder, placement=0, snapshot_every=1000)
    assert list(ref.ask_stream({"count": 7}, timeout=PATIENCE)) == list(range(7))
    assert ref.ask("made", PATIENCE) == 7
    fab.drain(timeout=PATIENCE)
    _kill(fab)
    assert (ref.ask("made", PATIENCE), ref.ask("closed", PATIENCE)) == (7, 1)


def test_a_stream_that_was_cancelled_stays_so_when_its_question_comes_again(fab):
    ref, held = _one(fab, Yielder, placement=0), _one(fab, Yielder, placement=0)
    with held.ask_stream({"count": 10}, window=1, timeout=PATIENCE) as first:  # holds the lane back
        assert next(first) == 0
        with ref.ask_stream({"count": 10}, window=1, timeout=PATIENCE) as second:
            assert next(second) == 0
        assert ref.ask("closed", PATIENCE) == 1
        _kill(fab)
        until(lambda: ref.ask("closed", PATIENCE) == 1)  # the successor begins it again, and closes it
        assert list(first) == list(range(1, 10))
    fab.drain(timeout=PATIENCE)


@pytest.mark.parametrize("placement", [0, 1])
def test_a_stream_between_workers_outlives_the_one_that_makes_it(fab, placement):
    reader = _one(fab, Reader, placement=1)
    ref = _one(fab, Yielder, placement=placement)
    request = {"count": 3_000}
    if placement:
        request["die_once_at"] = 1_500
    future = reader.submit((ref, request, "all"))
    if not placement:
        until(lambda: ref.ask("made", PATIENCE) > 100)
        _kill(fab, 1)
    assert future.result(PATIENCE) == list(range(3_000))
    fab.drain(timeout=PATIENCE)


def test_a_stream_whose_reader_died_with_its_worker_is_closed(fab):
    reader, ref = _one(fab, Reader, placement=1), _one(fab, Yielder, placement=0)
    assert reader.ask((ref, {"count": 100}, "keep"), PATIENCE) == 0
    assert ref.ask("closed", PATIENCE) == 0
    _kill(fab, 2)
    until(lambda: ref.ask("closed", PATIENCE) == 1)
    reader.ask((ref, None, "drop"), PATIENCE)  # the successor may have read another, if the first was not committed
    fab.drain(timeout=PATIENCE)


def test_a_reader_of_a_worker_that_is_given_up_is_told():
    with Fabric(workers=2, max_restarts=0, max_attempts=100, on_error=lambda letter: None) as fab:
        ref, reader = _one(fab, Yielder, placement=0), _one(fab, Reader, placement=1)
        other = reader.submit((ref, {"count": 9, "die_at": 5}, "all"))
        with pytest.raises((WorkerLostError, PoisonMessageError)):  # where items that came count as progress
            list(ref.ask_stream({"count": 9, "die_at": 5}, window=2, timeout=PATIENCE))
        with pytest.raises(AgentError, match="worker 1"):
            other.result(PATIENCE)


def test_ctrl_c_closes_the_generator_that_the_reader_waits_for(fab):
    ref = _one(fab, Gate, placement=0)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    stream = ref.ask_stream("items", window=4)
    assert next(stream) == 1
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    timer.join()
    assert list(stream) == []
    until(lambda: ref.ask("closed", PATIENCE))


class Gate(Agent):
    """Yields once, and no more."""

    def __init__(self):
        self.closed = False

    def on_message(self, body):
        return self.closed if body == "closed" else self.items()

    async def items(self):
        import asyncio

        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            self.closed = True


# Sending.


def test_chunks_come_in_order_and_the_reply_once_though_the_receiver_is_killed(fab):
    collector = _one(fab, Collector, placement=0)

    def source():
        for number in range(400):
            if number in (50, 200, 350):
                _kill(fab)
            yield b"%d" % number

    chunks = collector.send_stream(source(), window=8, timeout=PATIENCE)
    numbers = [chunk.index for chunk in chunks]
    assert numbers[-1] == 399, "and the reply is that to the last"
    for before, after in itertools.pairwise(numbers):
        assert after <= before + 1, "no chunk is left out; those that were not committed come again"
    assert all(chunk.data == b"%d" % chunk.index for chunk in chunks)


def test_an_agent_with_snapshots_has_each_chunk_once(fab):
    collector = _one(fab, KeptCollector, placement=0, snapshot_every=7)

    def source():
        for number in range(300):
            if number in (50, 150, 250):
                _kill(fab)
            yield b"%d" % number

    chunks = collector.send_stream(source(), window=8, timeout=PATIENCE)
    assert [chunk.index for chunk in chunks] == list(range(300))


def test_a_chunk_that_its_agent_had_begun_is_lost_with_on_crash_fail(fab):
    collector = _one(fab, Collector, placement=0, on_crash="fail")
    with pytest.raises(WorkerLostError):
        collector.send_stream([b"a", b"die", b"b"], window=1, timeout=PATIENCE)
    assert len(collector.send_stream([b"a", b"b"], timeout=PATIENCE)) == 2
