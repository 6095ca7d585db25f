"""A worker that is replaced for a reason of ours: it leaves when its work is done, and nobody notices."""

import logging
import os
import signal
import threading

import pytest

from fabric import Agent, BackpressureError, Fabric
from tests.agents import Counter, Doorkeeper, Echo
from tests.waiting import until

PATIENCE = 30


class Traced(Agent):
    """Writes down, in a file, that it was made and that it was stopped, and by which process."""

    def __init__(self, path):
        self.path = path
        self._write("made")

    def on_message(self, body):
        return os.getpid()

    def on_stop(self):
        self._write("stopped")

    def _write(self, what):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{what} {os.getpid()}\n")


class Pid(Agent):
    """Answers with the process it is in."""

    def on_message(self, body):
        return os.getpid()


def _fill(agent):
    while True:
        agent.tell_nowait(b"x" * 1000)


def test_what_was_sent_before_is_handled_by_the_old_and_what_comes_after_by_its_successor():
    with Fabric(workers=1) as fab:
        agent = fab.spawn_batch(Pid, 1)[0]
        old = fab.statistics().workers[0].pid
        before = [agent.submit(None) for _ in range(300)]
        fab._supervisor.recycle(1, "for a test")
        after = [agent.submit(None) for _ in range(300)]

        assert {future.result(PATIENCE) for future in before} == {old}
        (new,) = {future.result(PATIENCE) for future in after}
        assert new != old
        until(lambda: fab.statistics().workers[0].pid == new)


def test_a_recycled_worker_is_no_death_and_is_logged_with_the_reason(caplog):
    with caplog.at_level(logging.INFO, "fabric"), Fabric(workers=1, max_restarts=0) as fab:
        agent = fab.spawn_batch(Echo, 1)[0]
        old = fab.statistics().workers[0].pid
        fab._supervisor.recycle(1, "it was big")
        assert agent.ask("hello", timeout=PATIENCE) == "hello"

        assert (fab.statistics().restarts, fab._supervisor.recycled) == (0, 1)
        records = [record for record in caplog.records if "it was big" in record.getMessage()]
        assert [record.levelno for record in records] == [logging.INFO]
        assert f"worker 1 (pid {old})" in records[0].getMessage()
        assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_agents_are_stopped_in_the_old_one_and_made_in_the_new_one(tmp_path):
    path = str(tmp_path / "trace")
    with Fabric(workers=1) as fab:
        agent = fab.spawn_batch(Traced, 1, path=path)[0]
        old = agent.ask(None, timeout=PATIENCE)
        fab._supervisor.recycle(1, "for a test")
        new = agent.ask(None, timeout=PATIENCE)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    assert lines == [f"made {old}", f"stopped {old}", f"made {new}"]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_all_that_is_asked_is_answered_while_workers_are_recycled_again_and_again(start_method):
    times = 50 if start_method == "forkserver" else 5
    with Fabric(workers=2, start_method=start_method) as fab:
        agents = fab.spawn_batch(Echo, 20)
        replies, stop = [], threading.Event()

        def ask():
            number = 0
            while not stop.is_set():
                replies.append((number, fab.ask_many(agents, [number] * 20, timeout=PATIENCE)))
                assert agents[number % 20].ask(number, timeout=PATIENCE) == number
                number += 1

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        for turn in range(times):
            fab._supervisor.recycle(1 + turn % 2, "for a test")
            until(lambda turn=turn: fab._supervisor.recycled == turn + 1)
        stop.set()
        for asker in askers:
            asker.join(PATIENCE)
        assert replies
        assert all(got == [number] * 20 for number, got in replies)
        assert (fab.statistics().restarts, len(fab._supervisor.slots)) == (0, 2)


def test_each_of_three_questions_has_a_worker_of_its_own_when_there_is_a_recycling_behind_each():
    with Fabric(workers=1) as fab:
        agent = fab.spawn_batch(Pid, 1)[0]
        futures = []
        for _ in range(3):
            futures.append(agent.submit(None))
            fab._supervisor.recycle(1, "for a test")

        assert len({future.result(PATIENCE) for future in futures}) == 3
        until(lambda: fab._supervisor.recycled == 3)
        assert agent.ask(None, timeout=PATIENCE) not in {future.result() for future in futures}


def test_a_worker_that_is_killed_while_it_is_to_leave_has_died_and_its_successor_leaves(tmp_path):
    gate = tmp_path / "open"
    with Fabric(workers=1) as fab:
        keeper, echo = fab.spawn_batch(Doorkeeper, 1, path=str(gate))[0], fab.spawn_batch(Echo, 1)[0]
        old = fab.statistics().workers[0].pid
        waiting = keeper.submit("wait")
        fab._supervisor.recycle(1, "for a test")
        behind = echo.submit("behind")
        os.kill(old, signal.SIGKILL)
        gate.touch()

        assert waiting.result(PATIENCE) == "wait"
        assert behind.result(PATIENCE) == "behind"
        assert (fab.statistics().restarts, fab._supervisor.recycled) == (1, 1)


def test_to_recycle_never_waits_even_when_the_lane_is_full(tmp_path):
    gate = tmp_path / "open"
    with Fabric(workers=1, lane_bytes=1 << 16) as fab:
        keeper = fab.spawn_batch(Doorkeeper, 1, path=str(gate))[0]
        futures = [keeper.submit("wait")]
        with pytest.raises(BackpressureError):
            _fill(keeper)
        fab._supervisor.recycle(1, "for a test")
        gate.touch()
        futures.append(keeper.submit("after"))
        assert [future.result(PATIENCE) for future in futures] == ["wait", "after"]
        until(lambda: fab._supervisor.recycled == 1)
        assert keeper.ask("new", timeout=PATIENCE) == "new"


def test_the_state_of_agents_goes_with_the_old_process():
    with Fabric(workers=1) as fab:
        counter = fab.spawn_batch(Counter, 1)[0]
        assert counter.ask(1, timeout=PATIENCE) == 1
        fab._supervisor.recycle(1, "for a test")
        assert counter.ask(1, timeout=PATIENCE) == 1


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("drain", [True, False])
def test_a_fabric_is_closed_while_its_workers_are_recycled(start_method, drain):
    for turn in range(10 if start_method == "forkserver" else 2):
        fab = Fabric(workers=2, start_method=start_method)
        agents = fab.spawn_batch(Echo, 10)
        pids = [worker.pid for worker in fab.statistics().workers]
        for slot in (1, 2):
            fab._supervisor.recycle(slot, "for a test")
        if turn % 2:
            until(lambda pids=pids, fab=fab: [w.pid for w in fab.statistics().workers] != pids)
        agents.tell_all("hello")
        fab.close(drain=drain)


def test_nothing_happens_where_there_is_no_worker():
    with Fabric(workers=1, max_workers=2) as fab:
        fab._supervisor.recycle(2, "for a test")
        assert fab._supervisor.recycled == 0
