"""A fabric is watched from outside: the same figures, who waits for whom, and stacks, at no cost to it."""

import os
import signal
import threading
from pathlib import Path

import pytest

from fabric import AgentError, Fabric, FabricError, Monitor, waits
from tests.agents import Echo, Gate, Recorder, Relay
from tests.waiting import until
from tests.watching import watched

# What changes while nobody does anything, or is counted otherwise: see Monitor.statistics.
MOVING = {"seconds", "outstanding", "waited_seconds", "parks", "wake_ups", "spins_won"}


def still(figures):
    """Return figures without those that move."""
    if isinstance(figures, dict):
        return {name: still(value) for name, value in figures.items() if name not in MOVING}
    if isinstance(figures, list):
        return [still(value) for value in figures]
    return figures


def both(fabric, monitor):
    """Return what the fabric and what the monitor says of it."""
    return still(fabric.statistics().to_dict()), still(monitor.statistics().to_dict())


def all_idle(monitor):
    """Say whether all workers have started and wait for something to do."""
    return all(one.state == waits.IDLE for one in monitor.waits().workers)


@pytest.fixture
def fabric():
    """A fabric of two workers."""
    with Fabric(workers=2, drain=False, on_error=lambda letter: None) as made:
        yield made


@pytest.fixture
def monitor(fabric):
    """A monitor of it."""
    with Monitor(os.getpid()) as made:
        until(lambda: all_idle(made))
        yield made


# The figures.


def test_a_monitor_says_what_the_coordinator_says(fabric, monitor):
    echoes, relay = fabric.spawn_batch(Echo, 10), fabric.spawn_batch(Relay, 1, placement=0)[0]
    for number in range(20):
        echoes.ask_all(number)
    far = fabric.spawn_batch(Recorder, 1, placement=1)[0]
    for _ in range(30):
        relay.tell((far, "on"))
    far.tell("all")
    with pytest.raises(AgentError):
        relay.ask(5)
    relay.tell("what it cannot unpack")
    fabric.drain()
    until(lambda: (pair := both(fabric, monitor))[0] == pair[1])

    found = monitor.statistics()
    assert {one.name: one.messages for one in found.classes} == {"Echo": 200, "Relay": 32, "Recorder": 31}
    assert (found.errors, found.dead_letters, found.agents) == (2, 1, 12)
    assert [worker.pid for worker in found.workers] == [worker.pid for worker in fabric.statistics().workers]


def test_a_monitor_in_another_process_says_what_the_coordinator_says():
    with watched() as program, Monitor(program.pid) as monitor:
        program.do("ask 100")
        until(lambda: still(program.do("read")) == still(monitor.statistics().to_dict()))

        assert monitor.statistics().messages == 1000
        assert monitor.alive


def test_what_lies_in_a_lane_is_counted_as_the_coordinator_counts_it(fabric, monitor, tmp_path):
    gate = fabric.spawn_batch(Gate, 1, path=str(tmp_path / "open"), placement=0)[0]
    gate.tell("wait")
    until(lambda: (one := monitor.waits().worker(1)) and one.in_hand)
    for _ in range(40):
        gate.tell("on")

    (ours, _), (theirs, _) = fabric.statistics().workers, monitor.statistics().workers
    assert (theirs.in_flight, theirs.lane_bytes, theirs.sent) == (ours.in_flight, ours.lane_bytes, ours.sent)
    assert theirs.in_flight == 41
    (tmp_path / "open").touch()
    fabric.drain()
    assert monitor.waits().lanes == ()


def test_samples_tell_rates_and_what_the_processes_use(fabric, monitor):
    echoes = fabric.spawn_batch(Echo, 10)
    assert monitor.sample().rate("messages") == 0
    for number in range(20):
        echoes.ask_all(number)
    sample = monitor.sample()

    assert sample.rate("messages") * sample.seconds == pytest.approx(200)
    assert sample.usage.keys() == {os.getpid(), *(worker.pid for worker in fabric.statistics().workers)}
    assert sample.lane_time.count == 200


def test_the_slots_are_those_that_the_fabric_counts_on(fabric, monitor):
    assert [worker.slot for worker in monitor.statistics().workers] == [1, 2]
    fabric.resize(3)
    assert [worker.slot for worker in monitor.statistics().workers] == [1, 2, 3]
    fabric.resize(1)
    assert [worker.slot for worker in monitor.statistics().workers] == [1]


def test_a_worker_that_is_replaced_is_seen_as_starting_meanwhile_and_then_counted_as_a_restart(fabric, monitor):
    echo = fabric.spawn_batch(Echo, 1, placement=0)[0]
    before = monitor.statistics().workers[0].pid
    os.kill(before, signal.SIGKILL)
    seen = set()
    until(lambda: seen.add(monitor.waits().worker(1).state) or monitor.statistics().workers[0].pid not in (0, before))
    assert echo.ask("back", timeout=30) == "back"

    assert monitor.statistics().restarts == 1
    assert seen <= {waits.STARTING, waits.RUNNING, waits.IDLE}


def test_the_last_figures_stay_when_the_fabric_is_closed():
    with Fabric(workers=2) as fabric, Monitor(os.getpid()) as monitor:
        fabric.spawn_batch(Echo, 10).ask_all("x")
        fabric.close()

        assert not monitor.alive
        assert not monitor.process_ended
        assert monitor.statistics().messages == 10
        with pytest.raises(FabricError, match="nobody runs in slot 1"):
            monitor.stack(1)


def test_watching_allocates_no_page_of_the_segment(fabric, monitor):
    fabric.spawn_batch(Echo, 10).ask_all("x")
    fabric.drain()
    blocks = [os.fstat(fabric._segment.descriptor).st_blocks]
    for _ in range(3):
        monitor.sample().to_dict()
        monitor.waits()
        monitor.stack(1)
    blocks.append(os.fstat(fabric._segment.descriptor).st_blocks)
    fabric._segment.whole[fabric._segment.layout.arena_range(2)[0]]  # as it would be through a mapping
    blocks.append(os.fstat(fabric._segment.descriptor).st_blocks)

    assert blocks[0] == blocks[1] < blocks[2]


def test_a_fabric_that_is_attached_to_a_thousand_times_leaks_nothing(fabric):
    def held():
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return sorted(os.listdir("/proc/self/fd")), maps.count("shm-fabric")

    with Monitor(os.getpid()) as monitor:
        until(lambda: all_idle(monitor))
    before = held()
    for _ in range(1000):
        with Monitor(os.getpid()) as monitor:
            monitor.statistics()
    assert held() == before


# Who waits for whom.


def test_the_message_in_hand_is_named_and_since_when_and_when_it_is_hung(fabric, monitor, tmp_path, monkeypatch):
    gates = fabric.spawn_batch(Gate, 2, path=str(tmp_path / "open"), placement=1)
    gates[1].tell("wait")
    state = until(lambda: (one := monitor.waits().worker(2)).in_hand and one)
    assert (state.state, state.in_hand.kind, state.in_hand.sender) == (waits.RUNNING, "Gate", 0)
    assert not state.in_hand.asked
    assert monitor.waits().worker(2).in_hand.seconds > state.in_hand.seconds
    assert monitor.waits().worker(2).in_hand.sent_seconds >= state.in_hand.seconds
    monkeypatch.setattr(waits, "HUNG_SECONDS", 0.0)
    assert monitor.waits().worker(2).state == waits.HUNG
    assert monitor.waits().worker(1).state == waits.IDLE
    (tmp_path / "open").touch()
    fabric.drain()
    assert until(lambda: (one := monitor.waits().worker(2)).state == waits.IDLE and one).in_hand is None


def test_a_worker_that_waits_for_another_worker_is_seen(fabric, monitor, tmp_path):
    gate = fabric.spawn_batch(Gate, 1, path=str(tmp_path / "open"), placement=1)[0]
    relay = fabric.spawn_batch(Relay, 1, placement=0)[0]
    gate.tell("wait")
    for _ in range(9):
        relay.tell((gate, "on"))
    lanes = until(
        lambda: (seen := {(one.source, one.target): one for one in monitor.waits().lanes}).get((1, 2)) and seen
    )
    until(lambda: {one[:2]: one.records for one in monitor.waits().lanes if one.target} == {(0, 2): 1, (1, 2): 9})

    assert 0 < lanes[1, 2].bytes < lanes[1, 2].capacity
    assert monitor.waits().to_dict()["lanes"][0].keys() == {"source", "target", "bytes", "capacity", "records"}
    (tmp_path / "open").touch()


def test_a_stopped_worker_is_seen_as_such_and_its_stack_refused(fabric, monitor):
    pid = fabric.statistics().workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: monitor.waits().worker(1).state == waits.STOPPED)
        with pytest.raises(FabricError, match=rf"worker 1 \(pid {pid}\) is stopped, .* kill -CONT {pid}"):
            monitor.stack(1)
    finally:
        os.kill(pid, signal.SIGCONT)


# Stacks.


def test_the_stack_of_a_worker_names_the_handler_it_is_in(fabric, monitor, tmp_path):
    fabric.spawn_batch(Gate, 1, path=str(tmp_path / "open"), placement=0)[0].tell("wait")
    until(lambda: monitor.waits().worker(1).in_hand)

    stack = until(lambda: "in on_message" in (text := monitor.stack(1)) and text)
    assert "tests/agents.py" in stack
    assert monitor.stack(1).count("most recent call first") == stack.count("most recent call first")
    (tmp_path / "open").touch()
    fabric.drain()
    assert "in on_message" not in monitor.stack(1)


def test_what_an_onlooker_asks_for_does_not_show_in_what_the_coordinator_asked_for(fabric, monitor):
    crew = fabric._supervisor.crew
    monitor.stack(1)
    assert crew._stacks.read(1) == ""
    crew.ask_for_stack(1)
    before = crew._stacks.read(1)
    monitor.stack(1)
    assert crew._stacks.read(1) == before != ""


def test_onlookers_who_ask_at_once_get_a_whole_stack_each(fabric, monitor):
    found = []

    def ask():
        with Monitor(os.getpid()) as another:
            found.extend(another.stack(1) for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    assert all(text.startswith(("Current thread", "Thread")) and "line 1 in <module>" in text for text in found)


def test_a_slot_that_has_no_worker_has_no_stack(monitor):
    with pytest.raises(FabricError, match="there is no worker 7: this fabric has workers 1, 2"):
        monitor.stack(7)


def test_a_worker_that_does_not_answer_is_not_sent_what_would_end_it(fabric, monitor, monkeypatch):
    monkeypatch.setattr("fabric.monitor.LOOK_SIGNAL", signal.SIGRTMAX - 5)
    with pytest.raises(FabricError, match="does not answer onlookers"):
        monitor.stack(1)
    assert fabric.spawn_batch(Echo, 2).ask_all("alive") == ["alive"] * 2
    assert fabric.statistics().restarts == 0
