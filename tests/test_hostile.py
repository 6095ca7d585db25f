"""A worker that writes garbage into all that it may write: the others drop and count it, and go on.

What is not asked of the fabric here: that the agents of such a worker answer.
"""

import contextlib
import itertools
import os
import time

import pytest

from fabric import Fabric, FabricError, WorkerLostError
from fabric.messages import JSON, NONE, ORDER, PICKLE, PREWARM, RAW, SHUTDOWN, SPAWN, STOP_AGENTS
from tests.agents import Echo
from tests.vandals import Mute, Vandal, regions_of
from tests.waiting import until

REGIONS = ("words", "cursor", "counters", "heads", "tails", "outbox", "data")
SEED = int(os.environ.get("FABRIC_SEED", 1))
PATIENCE = 20  # seconds until something is taken to hang


@pytest.fixture
def fab():
    with Fabric(workers=2, on_error=lambda letter: None, lane_bytes=2**20, max_restarts=10) as fabric:
        yield fabric
        begun = time.monotonic()
        fabric.close()
        assert time.monotonic() - begun < PATIENCE


@pytest.fixture
def vandal(fab):
    return fab.spawn_batch(Vandal, 1, placement=0)[0]


@pytest.fixture
def others(fab):
    return fab.spawn_batch(Echo, 10, placement=1)


def _words(fab, regions):
    """What stands in these parts of the first worker's block."""
    start = fab._segment.layout.block_offset(1)
    parts = regions_of(fab._segment.layout, 1)
    return [fab._segment.whole[start + a : start + b] for name in regions for a, b in parts[name]]


def _go_on(fab, others):
    """Ask in all ways."""
    for number in range(5):
        assert others[0].ask(number, timeout=PATIENCE) == number
        assert others.ask_each(range(10), timeout=PATIENCE) == list(range(10))
    futures = [others[i % 10].submit(i) for i in range(100)]
    assert [future.result(timeout=PATIENCE) for future in futures] == list(range(100))
    assert fab.statistics().to_dict()


@pytest.mark.parametrize("regions", [*((name,) for name in REGIONS), REGIONS], ids=lambda names: "+".join(names))
def test_the_agents_of_others_answer_while_a_worker_scribbles_on_its(fab, vandal, others, regions):
    for _ in range(3):
        before = _words(fab, regions)
        with contextlib.suppress(FabricError):  # it may have been seen to garble its lane, and be given up
            vandal.tell(("scribble", regions, SEED))
        until(lambda before=before: _words(fab, regions) != before or not vandal.alive)
        _go_on(fab, others)


def test_a_worker_that_floods_the_coordinator_does_not_keep_it_from_others(fab, vandal, others):
    vandal.tell(("flood", 0))
    time.sleep(0.1)
    _go_on(fab, others)


def test_a_worker_that_floods_another_does_not_keep_it_from_its_work(fab, vandal, others):
    vandal.tell(("flood", 2))
    time.sleep(0.1)
    _go_on(fab, others)


@pytest.mark.parametrize("seed", range(int(os.environ.get("FABRIC_LONG", 3))))
def test_records_of_any_contents_are_dropped_and_counted(fab, vandal, others, seed):
    before = fab.statistics()
    for part in range(10):
        vandal.tell(("records", 1000 * SEED + 10 * seed + part, 300))
        _go_on(fab, others)
    after = fab.statistics()

    assert after.restarts == 0, "no record makes a worker leave"
    assert after.dropped_bytes > before.dropped_bytes
    assert after.late_replies > before.late_replies


def test_no_worker_takes_orders_of_another(fab, vandal, others):
    pid = fab.statistics().workers[1].pid
    bodies = {RAW: b"", PICKLE: b"\x80\x05N.", JSON: b"null", NONE: b"", ORDER: b"\x80\x05N."}
    for kind, (encoding, body) in itertools.product((SPAWN, STOP_AGENTS, PREWARM, SHUTDOWN), bodies.items()):
        for slot in (1, 2):  # itself, and the other
            vandal.ask(("send", slot, kind | encoding << 16, 0, 0, 0, body), timeout=PATIENCE)
    _go_on(fab, others)

    assert fab.statistics().workers[1].pid == pid
    assert fab.statistics().restarts == 0


CURSORS = [(2**64 - 1, 0), (2**63, 64), (1, 8), (1, 2**54 - 1), (1025, 0), (1, 2**64 - 1), (3, 9 << 54), (2, 2 << 54)]


@pytest.mark.parametrize("cursors", [CURSORS[:4], CURSORS[4:]], ids=["first", "second"])
def test_a_dead_workers_cursor_may_say_anything(fab, vandal, others, cursors):
    victims = fab.spawn_batch(Echo, 4, placement=0)
    victims.ask_all("to fill the lane with records, so that a count of them does not end soon")
    for restarts, cursor in enumerate(cursors):
        vandal.tell(("die", *cursor))
        until(lambda seen=restarts + 1: fab.statistics().restarts >= seen)
        assert victims.ask_all(cursor, timeout=PATIENCE) == [cursor] * 4
        _go_on(fab, others)


@pytest.mark.parametrize("lane", [0, 2])
@pytest.mark.parametrize("tail", [8, 2**20, 2**63])
def test_a_lane_that_is_spoilt_once_holds_up_nobody_else(fab, vandal, others, lane, tail):
    vandal.tell(("spoil", lane, tail))
    _go_on(fab, others)


@pytest.mark.parametrize("tail", [8, 2**20, 2**63, -(2**19)])
def test_a_worker_that_garbles_its_lane_to_the_coordinator_is_replaced_and_nobody_waits_for_ever(fab, others, tail):
    vandal, mute = (fab.spawn_batch(kind, 1, placement=0)[0] for kind in (Vandal, Mute))
    waiting = [mute.submit(number) for number in range(3)]  # without a timeout
    pid = fab.statistics().workers[0].pid
    vandal.tell(("spoil", 0, tail % 2**64))
    for future in waiting:
        with pytest.raises(WorkerLostError, match=f"pid {pid}.*written what cannot be"):
            future.result(timeout=PATIENCE)
    assert fab.spawn_batch(Echo, 4, placement=0).ask_all("again", timeout=PATIENCE) == ["again"] * 4
    assert vandal.ask(("answer_orders_with", 0, ""), timeout=PATIENCE) is None  # it was made again
    assert fab.statistics().workers[0].pid != pid
    _go_on(fab, others)


def test_a_worker_that_writes_no_records_into_its_lane_to_the_coordinator_is_replaced(fab, vandal, others):
    mute = fab.spawn_batch(Mute, 1, placement=0)[0]
    waiting = mute.submit(1)
    vandal.tell(("spoil_data", 0, 4096))
    with pytest.raises(WorkerLostError):
        waiting.result(timeout=PATIENCE)
    assert fab.spawn_batch(Echo, 4, placement=0).ask_all("again", timeout=PATIENCE) == ["again"] * 4
    _go_on(fab, others)
    assert fab.statistics().restarts == 1
