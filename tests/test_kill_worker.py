"""Workers and coordinators killed at every store to the segment, in a real fabric: nothing is lost, stuck or left.

    worker         dies while it handles, answers, tells others, spawns; a successor takes over, and all is answered
    coordinator    dies in the middle of a call: its workers leave, and what they were told was whole

See tests/store_trap.py for the moments, and for the seed that chooses some of them.
"""

import contextlib
import itertools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fabric import Fabric, FabricConfig, WorkerLostError
from tests.agents import Echo, Gate
from tests.store_trap import (
    A_FEW,
    ALL,
    NEVER,
    SOURCE,
    Asker,
    Delayer,
    Keeper,
    Promiser,
    Trapped,
    Witness,
    compiled,
    sample,
)

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the trap flag is known for x86-64 only")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("trap"))


class Working:
    """A fabric of two workers, the first of which dies again and again."""

    def __init__(self, fab, library, folder, fault="", patience=20):
        self.fab = fab
        self.patience = patience
        self.folder = folder
        self.witness = fab.spawn_batch(Witness, 1, placement=1)[0]
        options = {"library": library, "witness": self.witness, "fault": fault}
        self.agents = fab.spawn_batch(Trapped, 3, placement=0, **options)
        self.quiet = fab.spawn_batch(Trapped, 3, placement=0, library=library)
        self.total = 0
        self.sums = fab.spawn_batch(Witness, 1, placement=1)[0]
        self.keeper = fab.spawn_batch(Keeper, 1, placement=0, witness=self.sums, snapshot_every=5)[0]
        self.answered = set()
        self.diary = fab.spawn_batch(Witness, 1, placement=1)[0]
        self.once = fab.spawn_batch(Trapped, 1, placement=0, library=library, witness=self.diary, on_crash="fail")[0]
        self.echo = fab.spawn_batch(Echo, 1, placement=1)[0]
        self.now, self.later = fab.spawn_batch(Witness, 2, placement=1)
        self.promiser = fab.spawn_batch(Promiser, 1, placement=0, now=self.now, later=self.later)[0]
        self.promised = []
        self.beside = fab.spawn_batch(Witness, 1, placement=1)[0]
        self.delayer = fab.spawn_batch(Delayer, 1, placement=0, witness=self.beside)[0]
        self.put_off = []
        self.alone = fab.spawn_batch(Witness, 1, placement=1)[0]
        self.teller = fab.spawn_batch(Trapped, 1, placement=0, library=library, witness=self.alone)[0]
        self.told_alone = []
        self.numbers = itertools.count()
        self.told = []

    def die_at(self, moment, act):
        """Do something, and have worker 1 die at this moment of it. Returns its stores, None if it died."""
        before = self.fab.statistics().restarts
        self.agents[0].ask({"moment": moment, "flag": f"{self.folder}/{next(self.numbers)}"}, self.patience)
        act(self)
        stores = self.agents[0].ask("disarm", self.patience)
        assert self.fab.statistics().restarts - before == (stores is None), f"moment {moment}"
        return stores

    def check_witness(self):
        """All that the agents told was handled: in order, and again only where a worker died."""
        self.fab.drain(timeout=20)
        seen = self.witness.ask("all", timeout=20)
        first = list(dict.fromkeys(seen))
        assert first == self.told
        sums = self.sums.ask("all", timeout=20)
        assert sums == list(range(1, self.total + 1)), "agents that keep their state send nothing twice"
        once = self.diary.ask("all", timeout=20)
        assert len(set(once)) == len(once), "at most once"
        assert set(once) >= self.answered
        assert self.now.ask("all", timeout=20) == self.promised
        assert self.beside.ask("all", timeout=20) == self.put_off
        assert self.alone.ask("all", timeout=20) == self.told_alone, "small slices are published once"
        later = self.later.ask("all", timeout=20)
        assert set(later) == set(self.promised)
        assert len(later) - len(self.promised) <= 4 * self.fab.statistics().restarts, "twice where that was being done"
        print(f"{len(seen) - len(first)} of {len(first)} messages to others came twice")
        assert len(seen) - len(first) <= 12 * self.fab.statistics().restarts


def _ask_one(work):
    for body in ("a", "b"):
        assert work.quiet[1].ask(body, timeout=20) == body


def _ask_many(work):
    bodies = [f"{i} {'x' * 30 * i}" for i in range(8)]
    assert work.fab.ask_many(list(work.quiet) * 2 + list(work.quiet[:2]), bodies, timeout=20) == bodies


def _tell_on(work):
    start = 12 * next(work.numbers)
    bodies = [f"{start + i} {'y' * 1500}" for i in range(12)]  # more than a lane between workers holds
    work.told += range(start, start + 12)
    assert work.fab.ask_many([work.agents[0]] * 12, bodies, timeout=20) == [len(body) for body in bodies]


def _tell_one(work):
    number = next(work.numbers)
    work.told_alone.append(number)
    assert work.teller.ask(f"{number} alone", timeout=20) == len(f"{number} alone")


def _tell_a_few(work):
    start = 3 * next(work.numbers)
    bodies = [f"{start + i} of a few" for i in range(3)]
    work.told_alone += range(start, start + 3)
    assert work.fab.ask_many([work.teller] * 3, bodies, timeout=20) == [len(body) for body in bodies]


def _tell_on_by_the_outbox(work):
    flag = work.folder / f"open {next(work.numbers)}"
    gate = work.fab.spawn_batch(Gate, 1, placement=1, path=str(flag))
    gate[0].tell("wait")  # the lane to worker 2 stays full: the rest goes to the outbox
    _tell_on(work)
    flag.touch()
    gate.stop(timeout=20)


def _keep_state(work):
    first = work.total + 1
    work.total += 8
    assert work.fab.ask_many([work.keeper] * 8, [1] * 8, timeout=20) == list(range(first, work.total + 1))


def _at_most_once(work):
    start = 5 * next(work.numbers)
    bodies = [f"{start + i} once" for i in range(5)]
    replies = work.fab.ask_many([work.once] * 5, bodies, timeout=20, return_exceptions=True)
    lost = [reply for reply in replies if isinstance(reply, Exception)]
    assert [type(reply) for reply in lost] in ([], [WorkerLostError])
    work.answered |= {start + i for i in range(5) if replies[i] == len(bodies[i])}


def _tell_later(work):
    start = 4 * next(work.numbers)
    bodies = [f"{start + i} later" for i in range(4)]
    work.promised += range(start, start + 4)
    assert work.fab.ask_many([work.promiser] * 4, bodies, timeout=20) == [len(body) for body in bodies]
    deadline = time.monotonic() + 20
    while not set(work.promised) <= set(work.later.ask("all", timeout=20)):
        assert time.monotonic() < deadline
        time.sleep(0.001)  # a poll: nobody is told of what others are sent


def _put_off(work):
    start = 3 * next(work.numbers)
    work.put_off += range(start, start + 3)
    futures = [work.delayer.submit(f"{start + i} put off") for i in range(3)]
    work.delayer.ask("answer", timeout=20)
    for future in futures:
        with contextlib.suppress(WorkerLostError):
            assert future.result(timeout=20) == "at last"


def _spawn_and_stop(work):
    group = work.fab.spawn_batch(Echo, 3, placement=0)
    assert group.ask_all("new", timeout=20) == ["new"] * 3
    group.stop(timeout=20)
    assert not any(agent.alive for agent in group)


def _answer_a_peer(work):
    asker = work.fab.spawn_batch(Asker, 1, placement=1, other=work.quiet[0])
    assert asker[0].ask([1, 2, 3], timeout=20) == [1, 2, 3]
    asker.stop(timeout=20)


def _ask_a_peer(work):
    asker = work.fab.spawn_batch(Asker, 1, placement=0, other=work.echo)
    assert asker[0].ask([1, 2, 3], timeout=20) == [1, 2, 3]
    asker.stop(timeout=20)


ACTS = {
    "asked one by one": _ask_one,
    "asked many": _ask_many,
    "telling others": _tell_on,
    "telling one": _tell_one,
    "telling a few": _tell_a_few,
    "by the outbox": _tell_on_by_the_outbox,
    "keeping state": _keep_state,
    "at most once": _at_most_once,
    "telling later": _tell_later,
    "putting off": _put_off,
    "spawning": _spawn_and_stop,
    "answering a peer": _answer_a_peer,
    "asking a peer": _ask_a_peer,
}


def _kill_workers(library, folder, act, most, **options):
    config = FabricConfig(workers=2, peer_lane_bytes=2**14)
    with Fabric(config=config, on_error=lambda letter: None) as fab:
        work = Working(fab, library, folder, **options)
        stores = work.die_at(NEVER, act)
        died = [work.die_at(moment, act) is None for moment in sample(stores, most)]
        work.check_witness()
        print(f"{stores} stores, {sum(died)} killed of {len(died)}")
        assert sum(died) > len(died) // 2  # a run may take fewer stores than the one that was counted


@pytest.mark.parametrize("act", ACTS)
def test_all_is_answered_once_though_a_worker_is_killed_at_a_store(library, tmp_path, act):
    _kill_workers(library, tmp_path, ACTS[act], A_FEW)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("act", ACTS)
def test_all_is_answered_once_though_a_worker_is_killed_at_any_store(library, tmp_path, act):
    _kill_workers(library, tmp_path, ACTS[act], ALL)


def test_a_message_handed_back_before_its_reply_is_noticed(library, tmp_path):
    def ask(work):
        work.quiet[1].ask("a", work.patience)

    with pytest.raises(TimeoutError):
        _kill_workers(library, tmp_path, ask, ALL, fault="commit, then publish", patience=1)


def test_one_message_to_another_is_sent_once_though_its_worker_is_killed_at_any_store(library, tmp_path):
    _kill_workers(library, tmp_path, _tell_one, ALL)


def test_a_publication_that_is_said_only_afterwards_is_noticed(library, tmp_path):
    with pytest.raises(AssertionError, match="small slices are published once"):
        _kill_workers(library, tmp_path, _tell_one, ALL, fault="publish, then intend")


def _run_coordinator(library, folder, moment):
    """Returns what it said, and its exit code."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.coordinator_that_dies", library, str(moment), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=30, cwd=SOURCE.parents[2])
    return done.stdout, done.returncode


def _kill_coordinators(library, folder, most):
    said, _ = _run_coordinator(library, folder / "lives", NEVER)
    whole = [_lines(folder / "lives" / str(k)) for k in range(2)]
    assert [len(lines) for lines in whole] == [11, 10]
    for moment in sample(int(said), most):
        _, code = _run_coordinator(library, folder / str(moment), moment)
        assert code in (0, -9)
        _wait_alone()
        for k in range(2):
            lines = _lines(folder / str(moment) / str(k))
            assert lines == whole[k][: len(lines)], f"moment {moment}"


def _lines(path: Path):
    return path.read_bytes().splitlines(keepends=True)


def _wait_alone():
    """Wait until the workers of a dead coordinator have gone: within 1 s they are to notice."""
    mark = f"FABRIC_TEST_RUN={os.getpid()}".encode()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not [pid for pid in psutil.pids() if pid != os.getpid() and _is_marked(pid, mark)]:
            return
        time.sleep(0.01)
    pytest.fail("processes of a dead coordinator are still there")


def _is_marked(pid, mark):
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def test_nobody_stays_and_nothing_is_torn_when_a_coordinator_is_killed_at_a_store(library, tmp_path):
    _kill_coordinators(library, tmp_path, A_FEW // 4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nobody_stays_and_nothing_is_torn_when_a_coordinator_is_killed_at_any_store(library, tmp_path):
    _kill_coordinators(library, tmp_path, ALL)
