"""Agents with snapshot() and restore(): after any number of kills each message has had its effect once, in order."""

import json
import os
import signal
import threading
import time

import pytest

from fabric import AgentError, Fabric, WorkerLostError
from fabric.arena import Arena
from fabric.lending import Lending
from fabric.workers.journal import State
from fabric.workers.vault import Vault
from tests.keeping_agents import AsyncLedger, BatchLedger, Huge, Large, Ledger, Promiser, Teller, Unkeepable
from tests.loopback import loopback

PATIENCE = 30
KINDS = [Ledger, BatchLedger, AsyncLedger]


def _kill(fab, slot=1):
    """Kill the worker of a slot, when there is one; return its pid."""
    deadline = time.monotonic() + PATIENCE
    while True:
        pid = next(worker.pid for worker in fab.statistics().workers if worker.slot == slot)
        try:
            os.kill(pid, signal.SIGKILL)
            return pid
        except ProcessLookupError:  # dead already, and its successor has not said its name yet
            assert time.monotonic() < deadline


class Killer:
    """Kills workers while a block runs, with pauses that grow and shrink; each successor may do some work first."""

    def __init__(self, fab, pause=0.02):
        self._fab, self._pause, self._stop = fab, pause, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.kills = 0

    def _run(self):
        killed = {}
        while not self._stop.wait(self._pause * (1 + self.kills % 5)):
            worker = self._fab.statistics().workers[self.kills % 2]
            pid, received = killed.get(worker.slot, (0, -1))
            if worker.pid != pid and worker.received > received:
                os.kill(worker.pid, signal.SIGKILL)
                killed[worker.slot] = worker.pid, worker.received
                self.kills += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *rest):
        self._stop.set()
        self._thread.join()


@pytest.fixture
def fab():
    with Fabric(workers=2, max_restarts=1_000, on_error=lambda letter: None) as fabric:
        yield fabric


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [1, 7, 100_000, 0.01])
def test_state_survives_a_kill_and_each_message_counts_once(fab, kind, every):
    agents = fab.spawn_batch(kind, 10, snapshot_every=every)
    for start in range(0, 300, 100):
        agents.tell_all(start)
        agents.ask_each(range(start + 1, start + 11))
        _kill(fab, 1 + start % 200 // 100)

    assert agents.ask_all("all") == [[x for s in (0, 100, 200) for x in (s, s + 1 + i)] for i in range(10)]


@pytest.mark.parametrize("kind", KINDS)
def test_kills_under_way_lose_nothing_and_double_nothing(fab, kind):
    agents = fab.spawn_batch(kind, 20, snapshot_every=50)
    with Killer(fab) as killer:
        deadline = time.monotonic() + 2
        numbers = 0
        while time.monotonic() < deadline:
            fab.tell_many(list(agents) * 50, [numbers + i // 20 for i in range(1_000)])
            numbers += 50
    assert killer.kills > 5
    for seen in agents.ask_all("all", timeout=PATIENCE):
        assert seen == list(range(numbers))


def test_what_agents_tell_each_other_comes_once_though_they_are_killed(fab):
    sinks = fab.spawn_batch(Ledger, 4, snapshot_every=100)
    tellers = fab.spawn_batch(Teller, 2, others=list(sinks), snapshot_every=30)
    with Killer(fab) as killer:
        deadline = time.monotonic() + 2
        count = 0
        while time.monotonic() < deadline:
            fab.tell_many([tellers[i % 2] for i in range(200)], [count + i for i in range(200)])
            count += 200
    fab.drain(timeout=PATIENCE)
    assert killer.kills > 5
    for seen in sinks.ask_all("all", timeout=PATIENCE):
        assert sorted(seen) == list(range(count))
        assert [x for x in seen if x % 2 == 0] == list(range(0, count, 2))  # in order, from each of the two


def test_a_snapshot_is_what_is_restored_not_the_whole_history(fab):
    agent = fab.spawn_batch(Ledger, 1, snapshot_every=10)[0]
    for number in range(25):
        agent.ask(number)
    _kill(fab)

    assert agent.ask("restored") == 1
    assert agent.ask("all") == list(range(25))
    statistics = fab.statistics()
    assert sum(worker.snapshots for worker in statistics.workers) >= 2
    assert sum(worker.replayed for worker in statistics.workers) in (4, 5)  # the last may come again from its lane


def test_a_message_that_kills_is_left_out_of_the_state(fab):
    agent = fab.spawn_batch(Ledger, 1, snapshot_every=1_000)[0]
    replies = fab.ask_many([agent] * 5, [1, 2, "die", 3, 4], timeout=PATIENCE, return_exceptions=True)
    _kill(fab)

    assert [type(reply).__name__ for reply in replies] == ["int", "int", "PoisonMessageError", "int", "int"]
    assert agent.ask("all") == [1, 2, 3, 4]


def test_with_on_crash_fail_the_state_has_no_message_twice(fab):
    agent = fab.spawn_batch(Ledger, 1, on_crash="fail", snapshot_every=1_000)[0]
    assert agent.ask(1) == 1
    with pytest.raises(WorkerLostError):
        agent.ask("die", timeout=PATIENCE)
    _kill(fab)

    assert agent.ask(2, timeout=PATIENCE) == 2
    assert agent.ask("all") == [1, 2]


@pytest.mark.parametrize("how", ["snapshot", "restore"])
def test_an_agent_whose_state_cannot_be_kept_or_restored_is_reported(how):
    letters = []
    with Fabric(workers=1, on_error=letters.append) as fab:
        agent = fab.spawn_batch(Unkeepable, 1, how=how, snapshot_every=1)[0]
        assert agent.ask(1) == 1
        assert agent.ask(2) == 2
        fab.drain(timeout=PATIENCE)  # committed: else it comes again
        _kill(fab)
        if how == "snapshot":
            assert agent.ask(3, timeout=PATIENCE) == 1  # it lives on, as an agent without snapshots would
        else:
            with pytest.raises(Exception, match="stopped, or never was"):
                agent.ask(3, timeout=PATIENCE)
        fab.drain(timeout=PATIENCE)
    assert "no snapshot of this" in str(letters[0].error) if how == "snapshot" else True
    assert "this cannot be restored" in str(letters[0].error) if how == "restore" else True


def test_snapshots_that_do_not_fit_the_journal_are_given_up_with_a_word():
    letters = []
    with Fabric(workers=1, journal_bytes=2**18, arena_bytes=0, on_error=letters.append) as fab:
        agents = fab.spawn_batch(Large, 10, snapshot_every=1)
        assert agents.ask_all(None) == [1] * 10
        assert agents.ask_all(None) == [2] * 10
    assert "raise journal_bytes" in str(letters[0].error)


def test_a_small_journal_is_cut_short_again_and_again():
    with Fabric(workers=1, journal_bytes=2**16, max_restarts=1_000) as fab:
        agents = fab.spawn_batch(Ledger, 5, snapshot_every=100_000)
        for start in range(0, 3_000, 1_000):
            fab.tell_many(list(agents) * 200, [start + i // 5 for i in range(1_000)])
            _kill(fab)
        fab.drain(timeout=PATIENCE)
        assert agents.ask_all("all") == [[s + i for s in (0, 1_000, 2_000) for i in range(200)]] * 5


def test_a_reply_that_was_put_off_is_an_error_when_the_worker_dies(fab):
    agent = fab.spawn_batch(Promiser, 1)[0]
    futures = [agent.submit(i) for i in range(3)]
    agent.tell("nothing")
    fab.drain(timeout=PATIENCE)
    pid = _kill(fab)
    for future in futures:
        with pytest.raises(WorkerLostError, match=f"pid {pid}.*which it had begun"):
            future.result(timeout=PATIENCE)
    late = agent.submit("again")
    agent.tell("answer")
    assert late.result(timeout=PATIENCE) == "at last"


def test_a_handle_that_is_dropped_answers_with_an_error(fab):
    agent = fab.spawn_batch(Promiser, 1)[0]
    future = agent.submit("a question")
    agent.tell("drop")
    with pytest.raises(AgentError, match="dropped the handle of reply_later"):
        future.result(timeout=PATIENCE)


def test_json_fabrics_keep_state_as_json():
    with Fabric(workers=1, encoding="json", allow_pickle=False) as fab:
        agent = fab.spawn_batch(Ledger, 1, snapshot_every=1)[0]
        agent.ask({"a": 1})
        _kill(fab)
        assert json.dumps(agent.ask("all")) == '[{"a": 1}]'


def test_wrong_classes_and_options_are_refused(fab):
    class OnlySnapshot(Promiser):
        def snapshot(self):
            return None

    class AsyncSnapshot(Ledger):
        async def snapshot(self):
            return None

    class Several(AsyncLedger):
        max_concurrency = 2

    with pytest.raises(TypeError, match=r"only one of snapshot\(\) and restore"):
        fab.spawn_batch(OnlySnapshot, 1)
    with pytest.raises(TypeError, match="nobody would await"):
        fab.spawn_batch(AsyncSnapshot, 1)
    with pytest.raises(ValueError, match="max_concurrency=2"):
        fab.spawn_batch(Several, 1)
    with pytest.raises(ValueError, match=r"Promiser has no snapshot\(\)"):
        fab.spawn_batch(Promiser, 1, snapshot_every=5)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="snapshot_every"):
            fab.spawn_batch(Ledger, 1, snapshot_every=wrong)
    with pytest.raises(TypeError, match="snapshot_every"):
        fab.spawn_batch(Ledger, 1, snapshot_every="often")


def test_snapshots_larger_than_the_journal_lie_in_the_arena_and_old_ones_do_not():
    with Fabric(workers=1, journal_bytes=2**20, max_restarts=1_000, on_error=lambda letter: None) as fab:
        agents = fab.spawn_batch(Huge, 3, snapshot_every=2)
        told = []
        for round in range(5):
            for number in range(3):
                agents.ask_all((round, number), timeout=PATIENCE)
                told.append((round, number))
            _kill(fab)
            assert agents.ask_all("all", timeout=PATIENCE) == [told] * 3
            loans, _, blocks = agents[0].ask("arena", timeout=PATIENCE)[3:]
            assert (loans, blocks) == (3, 3), "one snapshot of each is kept"
        agents[1:].stop(timeout=PATIENCE)
        assert agents[0].ask("arena", timeout=PATIENCE)[3] == 1
        assert fab.dead_letters() == []


def test_a_snapshot_that_was_put_away_and_never_journalled_is_given_up():
    with loopback(1, arena_bytes=2**20) as loop:
        segment, peer = loop.segments[1], loop.peers[1]
        arena = Arena(segment, Lending(peer), 0.0, lambda: 2**40)
        vault = Vault(arena, 1, 4096)
        small, large, lost = State(1, b"small"), State(1, b"x" * 5000), State(1, b"y" * 5000)
        kept, torn = vault.put(large), vault.put(lost)
        assert vault.put(small) == small
        assert vault.get(kept) == large

        successor = Arena(segment, Lending(peer), 0.0, lambda: 2**40)
        vault = Vault(successor, 1, 4096)
        assert (vault.get(kept), vault.get(torn)) == (large, lost)
        assert successor.usage()[3] == 2
        vault.keep_only([kept, small])
        assert successor.usage()[3] == 1
        assert vault.get(kept) == large
        vault.drop([kept])
        assert successor.usage()[3] == successor.usage()[5] == 0
        for each in (arena, successor):
            each.close()
