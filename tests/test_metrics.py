"""What is measured: counts equal what was sent, times are there for all of it, whoever is killed."""

import copy
import dataclasses
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from fabric import Agent, AgentError, BackpressureError, Fabric, PoisonMessageError
from fabric.histogram import Histogram
from fabric.layout import CLASSES
from fabric.messages import ERROR, MESSAGE, REPLY, REQUEST, SHUTDOWN, SPAWN, STREAM
from fabric.meters import Board, Meters
from fabric.segment import Segment
from tests.agents import Counter, Deadly, Doorkeeper, Echo, Recorder, Relay, Sleeper
from tests.metrics_agents import AsyncSleeper
from tests.range_agents import PAYMENT, Accounts

PATIENCE = 30


@pytest.fixture
def fab():
    with Fabric(workers=2, on_error=lambda letter: None, drain=False) as fabric:  # a test that fails is not to hang
        yield fabric


def _of_class(statistics, name):
    return next(one for one in statistics.classes if one.name == name)


def _flood(ref):
    while True:
        ref.tell_nowait(0)


def test_c_and_python_agree_on_what_is_a_message():
    from fabric._native import lib

    assert (lib.FAB_KIND_MESSAGE, lib.FAB_KIND_REPLY, lib.FAB_KIND_STREAM) == (MESSAGE, REPLY, STREAM)
    assert (lib.FAB_KIND_SPAWN, lib.FAB_KIND_SHUTDOWN, lib.FAB_KIND_REQUEST) == (SPAWN, SHUTDOWN, REQUEST)
    assert lib.FAB_ENCODING_ERROR == ERROR


def test_counts_equal_what_was_sent_by_class_and_status(fab):
    echoes, counters = fab.spawn_batch(Echo, 10), fab.spawn_batch(Counter, 4)
    fab.ask_many(list(echoes) * 100, list(range(1_000)))
    echoes.tell_all(b"told")
    for number in range(50):
        counters[number % 4].ask(number)
    for _ in range(3):
        with pytest.raises(AgentError):
            counters[0].ask("no number")
    counters[1].tell("no number either")
    fab.drain(timeout=PATIENCE)

    found = fab.statistics()
    assert (_of_class(found, "Echo").messages, _of_class(found, "Echo").errors) == (1_010, 0)
    assert (_of_class(found, "Counter").messages, _of_class(found, "Counter").errors) == (54, 4)
    assert found.messages == found.coordinator.messages_sent == 1_064
    orders = 4  # to spawn, to two workers twice
    assert found.coordinator.asks_sent == found.coordinator.replies == 1_053 + orders
    assert sum(worker.replies_sent for worker in found.workers) == 1_053 + orders
    assert (found.coordinator.reply_errors, found.errors, found.dead_letters) == (3, 4, 1)
    assert found.coordinator.bytes_out > 1_064 * 48
    assert found.round_trip.count == 1_053
    assert found.lane_time.count == 1_064
    assert sum(worker.batch_sizes.sum for worker in found.workers) == 1_064
    assert 0 < found.handler_time.count <= 1_064
    assert found.round_trip.percentile(0.5) > found.handler_time.percentile(0.5) > 0
    assert 0 < found.round_trip.maximum < PATIENCE


def test_messages_of_agents_to_agents_are_counted_by_their_sender(fab):
    relay = fab.spawn_batch(Relay, 1, placement=0)[0]
    recorder = fab.spawn_batch(Recorder, 1, placement=1)[0]
    for number in range(100):
        relay.tell((recorder, number))
    fab.drain(timeout=PATIENCE)

    found = fab.statistics()
    senders = {worker.slot: worker.messages_sent for worker in found.workers}
    assert sorted(senders.values()) == [0, 100]
    assert _of_class(found, "Recorder").messages == 100
    assert found.coordinator.messages_sent == 100
    assert found.messages == 200


def test_a_slow_handler_is_told_from_fast_ones(fab):
    sleeper = fab.spawn_batch(Sleeper, 1)[0]
    echo = fab.spawn_batch(Echo, 1)[0]
    for _ in range(5):
        sleeper.ask(0.02)
        echo.ask(b"fast")
    fab.ask_many([sleeper] * 20, [0.002] * 20)

    slow = _of_class(fab.statistics(), "Sleeper").handler_time
    assert slow.percentile(0.99) >= 0.0195
    assert slow.count >= 24, "those that take long are all timed"
    assert slow.percentile(0.3) >= 0.0015


def test_a_coroutine_is_timed_until_it_first_awaits(fab):
    sleeper = fab.spawn_batch(AsyncSleeper, 1)[0]
    for _ in range(5):
        sleeper.ask(0.05)
    times = _of_class(fab.statistics(), "AsyncSleeper").handler_time
    assert times.maximum < 0.05, "what it awaits is nobody's work"


def test_while_metrics_are_off_nothing_is_counted_and_messages_flow(fab):
    echoes = fab.spawn_batch(Echo, 10)
    echoes.ask_all(1)
    before = fab.statistics()
    assert fab.metrics
    fab.metrics = False
    echoes.ask_all(2)
    between = fab.statistics()
    assert (between.measuring, fab.metrics) == (False, False)
    assert (between.messages, between.round_trip.count) == (before.messages, before.round_trip.count) == (10, 10)
    assert between.received > before.received, "what costs nothing is counted all the same"
    fab.metrics = True
    echoes.ask_all(3)
    assert fab.statistics().messages == 20


def test_a_fabric_may_begin_without_metrics():
    with Fabric(workers=1, metrics=False) as fab:
        fab.spawn_batch(Echo, 1)[0].ask(1)
        assert (fab.metrics, fab.statistics().messages) == (False, 0)


def test_counts_go_on_over_a_killed_worker_and_what_comes_again_is_counted_again(fab):
    agents = fab.spawn_batch(Deadly, 100)
    agents.ask_all("hello")
    before = fab.statistics()
    os.kill(before.workers[0].pid, signal.SIGKILL)
    agents.ask_all("hello", timeout=PATIENCE)
    found = fab.statistics()
    assert found.restarts == 1
    assert found.workers[0].starts == 2
    assert found.coordinator.messages_sent == 200
    assert 200 <= found.messages <= 200 + found.redelivered + 50
    assert found.workers[0].messages >= before.workers[0].messages


def test_how_long_a_worker_was_busy_is_of_its_own_life(fab):
    sleeper = fab.spawn_batch(Sleeper, 1, placement=0)[0]
    sleeper.ask(0.3)
    assert 0.3 <= fab.statistics().workers[0].busy_seconds() < PATIENCE
    os.kill(fab.statistics().workers[0].pid, signal.SIGKILL)
    sleeper.ask(0.2, timeout=PATIENCE)
    worker = fab.statistics().workers[0]
    assert worker.starts == 2
    assert 0.2 <= worker.busy_seconds() <= time.monotonic() - worker.started


def test_what_goes_wrong_is_counted_where_a_monitor_reads_it():
    with Fabric(workers=1, on_error=lambda letter: None, max_attempts=2, lane_bytes=2**16) as fab:
        deadly = fab.spawn_batch(Deadly, 1)[0]
        with pytest.raises(PoisonMessageError):
            deadly.ask("die", timeout=PATIENCE)
        sleeper = fab.spawn_batch(Sleeper, 1)[0]
        sleeper.tell(0.2)
        with pytest.raises(TimeoutError):
            sleeper.ask(0, timeout=0.01)
        with pytest.raises(BackpressureError):
            _flood(sleeper)
        sleeper.tell(0)
        fab.drain(timeout=PATIENCE)

        found = fab.statistics()
        assert (found.poisoned, found.restarts, found.redelivered) == (1, 2, 2)
        assert (found.coordinator.timeouts, found.coordinator.refusals, found.late_replies) == (1, 1, 1)
        assert found.coordinator.backpressure_waits == 1
        assert 0 < found.coordinator.backpressure_seconds < PATIENCE
        segment = fab._segment
        monitor = Meters(segment).counters_of(0)
        from fabric import counters

        assert [monitor[at] for at in (counters.POISONED, counters.RESTARTS, counters.LATE_REPLIES)] == [1, 2, 1]
        del monitor, segment


def test_what_lies_in_a_lane_is_counted_by_messages(fab, tmp_path):
    agent = fab.spawn_batch(Doorkeeper, 1, placement=0, path=str(tmp_path / "open"))[0]
    agent.tell("wait")
    deadline = time.monotonic() + PATIENCE
    while fab.statistics().messages == 0 and time.monotonic() < deadline:
        time.sleep(0.001)
    for _ in range(20):
        agent.tell("next")
    found = fab.statistics().workers[0]
    assert found.in_flight == 21, "the one in hand is not committed"
    assert 0 < found.lane_fill < 0.01
    assert found.lane_bytes >= 20 * 64
    (tmp_path / "open").touch()
    fab.drain(timeout=PATIENCE)
    assert (fab.statistics().workers[0].in_flight, fab.statistics().workers[0].lane_bytes) == (0, 0)


def test_what_lies_in_a_lane_is_not_counted_while_metrics_are_off(tmp_path):
    with Fabric(workers=1, metrics=False, drain=False) as fab:
        agent = fab.spawn_batch(Doorkeeper, 1, path=str(tmp_path / "open"))[0]
        for _ in range(3):  # so that the first in the lane has a number
            agent.ask("by")
        for _ in range(20):
            agent.tell("wait")
        found = fab.statistics().workers[0]
        assert found.lane_bytes >= 19 * 64
        assert found.in_flight == 0
        (tmp_path / "open").touch()


def test_rows_for_array_agents_are_counted(fab):
    group = fab.spawn_array(Accounts, 100)
    ids = np.arange(100)
    group.tell_records(ids, np.zeros(100, PAYMENT))
    fab.drain(timeout=PATIENCE)
    found = fab.statistics()
    assert sum(worker.rows for worker in found.workers) == 100
    assert _of_class(found, "Accounts").messages == 2, "a chunk a range"


def test_arrays_in_the_arena_are_told_while_they_are_there(fab):
    echo = fab.spawn_batch(Echo, 1)[0]
    back = echo.ask(np.zeros(1 << 17))
    found = fab.statistics()
    assert found.coordinator.arena_loans + found.workers[0].arena_loans >= 1
    assert found.workers[0].arena_bytes >= 1 << 20
    assert back.nbytes == 1 << 20


def test_encoding_and_decoding_take_time(fab):
    echoes = fab.spawn_batch(Echo, 10)
    fab.ask_many(list(echoes) * 100, [{"a": 1, "b": [2, 3]}] * 1_000)
    found = fab.statistics()
    assert 0 < found.coordinator.encode_seconds < PATIENCE
    assert 0 < found.coordinator.decode_seconds < PATIENCE
    assert sum(worker.decode_seconds for worker in found.workers) > 0
    assert sum(worker.encode_seconds for worker in found.workers) > 0


def test_when_an_agent_was_last_used_is_known(fab):
    first, second = fab.spawn_batch(Echo, 2, placement=0)
    before = time.monotonic()
    first.ask(1)
    seen = fab.last_use(first)
    assert before - 0.02 <= seen <= time.monotonic()
    assert fab.last_use(second) is None


def test_threads_that_send_at_once_lose_no_count(fab):
    echoes = fab.spawn_batch(Echo, 2)

    def send(ref):
        for number in range(2_000):
            ref.tell(number)

    threads = [threading.Thread(target=send, args=(echoes[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fab.drain(timeout=PATIENCE)
    assert fab.statistics().coordinator.messages_sent == fab.statistics().messages == 8_000


def test_classes_beyond_the_last_are_counted_together(fab):
    kinds = [type(f"Kind{number}", (Echo,), {"__module__": "tests.agents"}) for number in range(CLASSES + 2)]
    board = Board(fab._segment)
    numbers = [board._number_of(kind) for kind in kinds]
    assert numbers == [*range(1, CLASSES), 0, 0, 0]
    names = Meters(fab._segment).class_names()
    assert (names[1], names[-1], len(names)) == ("Kind0", f"Kind{CLASSES - 2}", CLASSES)
    board.close()


def test_two_classes_of_one_name_are_two_classes(fab):
    board = Board(fab._segment)
    one = type("Worker", (Agent,), {"__module__": "first"})
    other = type("Worker", (Agent,), {"__module__": "second", "__qualname__": "make.<locals>.Worker"})
    again = type("Worker", (Agent,), {"__module__": "first"})
    assert [board._number_of(kind) for kind in (one, other, again)] == [1, 2, 1]
    names = Meters(fab._segment).class_names()[1:]
    assert len(set(names)) == 2
    assert names[0] == "Worker"
    board.close()


@pytest.mark.parametrize("qualname", ["Outer.Worker", "Worker" * 30, "(several)"])
def test_no_two_classes_are_told_by_the_same_name(fab, qualname):
    board = Board(fab._segment)
    modules = ("first", "second", "a" * 200 + ".third", "a" * 200 + ".fourth")
    for module in modules:
        board._number_of(type("Worker", (Agent,), {"__module__": module, "__qualname__": qualname}))
    names = Meters(fab._segment).class_names()
    assert len(set(names)) == len(names) == 1 + len(modules)
    board.close()


def test_a_segment_that_is_only_looked_at_tells_the_same(fab):
    echoes = fab.spawn_batch(Echo, 10)
    echoes.ask_all(1)
    segment = Segment.attach(os.dup(fab._segment.descriptor), None)
    meters = Meters(segment)
    assert meters.measuring
    assert meters.pids()[:3] == [os.getpid(), *(worker.pid for worker in fab.statistics().workers)]
    assert [seen.replies for seen in meters.traffic()[1:3]] == [6, 6]
    assert meters.measures(1, 2).messages.tolist() == [0, 5]
    assert meters.measures(0, 1).round_trip == fab.statistics().round_trip
    segment.close()
    del meters


def test_what_was_never_measured_is_not_even_copied(fab):
    assert fab.statistics().workers[0].round_trip == Histogram()
    assert fab.statistics().handler_time.count == 0


def test_totals_go_on_when_a_worker_is_sent_away(fab):
    group = fab.spawn_batch(Echo, 10)
    group.ask_all(1)
    group.stop()
    fab.resize(1)
    found = fab.statistics()
    assert [worker.slot for worker in found.workers] == [1]
    assert [worker.slot for worker in found.former] == [2]
    assert (found.messages, _of_class(found, "Echo").messages) == (10, 10)
    assert not found.former[0].alive


def test_they_can_be_copied_and_sent(fab):
    fab.spawn_batch(Echo, 10).ask_all(1)
    found = fab.statistics()
    for copied in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert copied == found
        assert _of_class(copied, "Echo").messages == 10
    assert dataclasses.asdict(found)["classes"][0].messages == 10


def test_statistics_stay_when_the_fabric_is_closed():
    with Fabric(workers=1) as fab:
        fab.spawn_batch(Echo, 1)[0].ask(1)
    assert (fab.statistics().messages, fab.statistics().round_trip.count) == (1, 1)
