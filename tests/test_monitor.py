"""A fabric is watched from outside: the same figures, at no cost to it, and every wrong process is refused in words."""

import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fabric import AgentError, ClosedError, Fabric, FabricConfig, FabricError, LayoutError, Monitor, attaching, waits
from fabric.segment import Segment, memfd, seal
from tests.agents import Echo, Gate, Recorder, Relay
from tests.watching import ROOT, until, watched

# What changes while nobody does anything, or is counted otherwise: see Monitor.statistics.
MOVING = {"seconds", "outstanding", "waited_seconds", "parks", "wake_ups", "spins_won"}
NOBODY = 65534
NO_PID = 2**22 + 1  # above any that Linux gives


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


# Bad input.


def test_a_process_that_is_not_there_is_refused():
    with pytest.raises(ProcessLookupError, match=f"there is no process {NO_PID}"):
        Monitor(NO_PID)


def test_a_process_that_has_ended_and_was_not_waited_for_is_refused():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match="has ended"):
        Monitor(process.pid)
    process.wait()


def test_a_process_without_a_fabric_is_refused():
    with pytest.raises(FabricError, match=rf"process {os.getpid()} \(.*\) runs no fabric"):
        Monitor(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_process_of_another_user_is_refused():
    process = subprocess.Popen(["sleep", "60"], user=NOBODY)
    try:
        with pytest.raises(PermissionError, match=f"process {process.pid} is .*'s and you are root: only who runs"):
            Monitor(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused_by_the_kernel_too(fabric):
    script = (
        "import os, sys; from fabric import attaching; pid = int(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "attaching.os.geteuid = lambda: 0\n"
        "try: attaching.attach(pid)\n"
        "except PermissionError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(os.getpid())], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "only who runs a fabric may watch it" in done.stdout, done.stderr


def test_a_fabric_of_another_version_is_refused():
    ours = Segment.create(FabricConfig(), 2)
    header = bytearray(ours.layout.header_bytes)
    header[8:12] = struct.pack("=I", 99)
    other = memfd("shm-fabric")
    try:
        os.ftruncate(other, ours.layout.segment_bytes)
        os.pwrite(other, header, 0)
        seal(other)
        ours.close()
        with pytest.raises(LayoutError, match=f"process {os.getpid()}: .* another version .* with the Python that"):
            Monitor(os.getpid())
    finally:
        os.close(other)


def test_a_worker_and_the_fork_server_are_refused_and_the_coordinator_named(fabric):
    worker, server = fabric.statistics().workers[1].pid, fabric._supervisor.crew.server.pid
    with pytest.raises(FabricError, match=rf"{worker} is worker 2 .* process {os.getpid()} runs: python -m fabric top"):
        Monitor(worker)
    with pytest.raises(FabricError, match=rf"{server} is the fork server.* process {os.getpid()} runs"):
        Monitor(server)


def test_of_several_fabrics_one_is_chosen_by_index_or_identity(fabric):
    with Fabric(workers=1) as other:
        with pytest.raises(FabricError, match=r"runs 2 fabrics, .*--index 0: 2 workers, identity [0-9a-f]{16};"):
            Monitor(os.getpid())
        with Monitor(os.getpid(), index=1) as second, Monitor(os.getpid(), identity=fabric.identity) as first:
            assert {second.identity, first.identity} == {other.identity, fabric.identity}
        with pytest.raises(FabricError, match="has no fabric 2: --index 0"):
            Monitor(os.getpid(), index=2)
        with pytest.raises(FabricError, match="runs no fabric 0000000000000005: it runs"):
            Monitor(os.getpid(), identity=5)


def test_a_coordinator_that_is_killed_ends_the_watching_and_leaves_the_last_figures():
    with watched() as program, Monitor(program.pid) as monitor:
        program.do("ask 3")
        assert monitor.alive
        program.process.kill()
        until(lambda: not monitor.alive)
        until(lambda: monitor.process_ended)

        assert monitor.sample().statistics.messages == 30
        with pytest.raises(FabricError, match="nobody runs in slot 1"):
            monitor.stack(1)


def test_a_fabric_that_is_closed_while_it_is_opened_is_none(fabric, monkeypatch):
    opened = os.open

    def too_late(path, *rest):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", too_late)
    with pytest.raises(FabricError, match="runs no fabric"):
        Monitor(os.getpid())


def test_a_descriptor_that_is_used_for_something_else_meanwhile_is_not_taken_for_the_fabric(tmp_path):
    (tmp_path / "file").touch()
    place = attaching.Place(str(tmp_path / "file"), (0, 0))
    assert not place.is_held()


def test_a_closed_monitor_says_so():
    with Fabric(workers=1), Monitor(os.getpid()) as monitor:
        monitor.close()
        monitor.close()
        assert not monitor.alive
        for look in (monitor.statistics, monitor.sample, monitor.waits):
            with pytest.raises(ClosedError):
                look()


def test_an_unclosed_monitor_is_complained_of(fabric):
    with pytest.warns(ResourceWarning, match=f"unclosed <Monitor of process {os.getpid()}: fabric "):
        Monitor(os.getpid()).__del__()
