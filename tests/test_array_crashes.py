"""Array agents whose workers die, chunks that are damaged, lanes that are full: nothing is lost, doubled or misread."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from fabric import AgentError, EncodingError, Fabric, PoisonMessageError, WorkerLostError
from fabric.records import Part, RowType, pack
from fabric.switchboard import Letter
from tests.agents import Echo
from tests.range_agents import PAYMENT, Accounts, Deadly, Keeping, KeepingWalkers, Slow

PATIENCE = 60


@pytest.fixture
def fab():
    with Fabric(workers=2, max_restarts=1_000, on_error=lambda letter: None) as fabric:
        yield fabric


class Killer:
    """Kills workers by turns while a block runs, each not before it has received something."""

    def __init__(self, fab):
        self._fab, self._stop, self._thread = fab, threading.Event(), threading.Thread(target=self._run)
        self.kills = 0

    def _run(self):
        killed = {}
        while not self._stop.wait(0.02 * (1 + self.kills % 4)):
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


def _payments(start, count):
    records = np.ones(count, PAYMENT)
    records["serial"] = np.arange(start, start + count)
    return records


def test_every_record_asked_is_answered_once_though_both_workers_are_killed(fab):
    group = fab.spawn_array(Deadly, 100)
    records = np.arange(1_000, 201_000)
    records[[50_000, 150_001]] = 2
    ids = np.arange(200_000) % 100

    assert (group.ask_records(ids, records, timeout=PATIENCE) == records).all()
    assert fab.statistics().restarts == 2


def test_records_asked_and_told_while_workers_are_killed_are_all_answered_or_reported(fab):
    group = fab.spawn_array(Deadly, 1_000)
    ids = np.random.default_rng(1).integers(0, 1_000, 300_000)
    records = np.arange(1_000, 301_000)
    with Killer(fab) as killer:
        deadline = time.monotonic() + PATIENCE
        while killer.kills < 6:
            assert time.monotonic() < deadline
            group.tell_records(ids, records, timeout=PATIENCE)
            assert (group.ask_records(ids, records, timeout=PATIENCE) == records).all()
    fab.drain(timeout=PATIENCE)

    assert fab.dead_letters() == []
    assert fab.statistics().outstanding == 0


def test_agents_with_snapshots_count_each_record_once_and_in_order_though_workers_are_killed():
    with Fabric(workers=2, max_restarts=1_000, journal_bytes=1 << 24) as fab:
        accounts = fab.spawn_array(Keeping, 500, snapshot_every=10)
        chance, expected, sent = np.random.default_rng(2), np.zeros(500, int), 0
        with Killer(fab) as killer:
            deadline = time.monotonic() + PATIENCE
            while killer.kills < 6:
                assert time.monotonic() < deadline
                ids = chance.integers(0, 500, 2_000)
                np.add.at(expected, ids, 1)
                send = accounts.tell_records if sent % 3 else accounts.ask_records
                send(ids, _payments(2_000 * sent, 2_000), timeout=PATIENCE)
                sent += 1
        fab.drain(timeout=PATIENCE)

        assert (np.concatenate(accounts.hosts.ask_all("totals", timeout=PATIENCE)) == expected).all()
        assert accounts.hosts.ask_all("in order", timeout=PATIENCE) == [True, True]
        assert sum(accounts.hosts.ask_all("received", timeout=PATIENCE)) == 2_000 * sent


def test_records_from_worker_to_worker_arrive_once_though_workers_are_killed():
    with Fabric(workers=2, max_restarts=1_000) as fab:
        walkers = fab.spawn_array(KeepingWalkers, 1_000, stride=501, snapshot_every=5)
        tokens, hops, rounds = 3_000, 30, 0
        with Killer(fab) as killer:
            deadline = time.monotonic() + PATIENCE
            while killer.kills < 6:
                assert time.monotonic() < deadline
                records = np.zeros(tokens, KeepingWalkers.dtype)
                records["left"] = hops
                walkers.tell_records(np.arange(tokens) % 1_000, records, timeout=PATIENCE)
                rounds += 1
                fab.drain(timeout=PATIENCE)

        visits = np.concatenate(walkers.hosts.ask_all("visits", timeout=PATIENCE))
        assert visits.sum() == rounds * tokens * (hops + 1)
        assert visits.min() == visits.max()
        assert fab.dead_letters() == []


def test_a_record_that_kills_its_worker_once_is_counted_once(fab):
    accounts = fab.spawn_array(Keeping, 10, snapshot_every=1)
    records = _payments(0, 20)
    records["amount"][13] = -1
    accounts.tell_records(np.arange(20) % 10, records)
    fab.drain(timeout=PATIENCE)

    assert np.concatenate(accounts.hosts.ask_all("totals")).tolist() == [2, 2, 2, 0, 2, 2, 2, 2, 2, 2]
    assert accounts.hosts.ask_all("received") == [10, 10]
    assert fab.statistics().restarts == 1


def test_with_on_crash_fail_a_chunk_that_was_running_is_not_run_again(fab):
    group = fab.spawn_array(Deadly, 10, on_crash="fail")
    with pytest.raises(WorkerLostError):
        group.ask_records(range(10), np.array([9] * 9 + [2]), timeout=PATIENCE)

    assert group.ask_records(range(10), np.arange(10, 20), timeout=PATIENCE).tolist() == list(range(10, 20))
    assert fab.statistics().restarts == 1


def test_a_chunk_that_kills_each_worker_is_put_aside_with_a_copy_of_its_bytes(fab):
    group = fab.spawn_array(Deadly, 10)
    with pytest.raises(PoisonMessageError):
        group.ask_records([0, 9], np.array([1, 7]), timeout=PATIENCE)
    group.tell_records([0], np.array([1]))
    fab.drain(timeout=PATIENCE)
    letter = fab.dead_letters()[-1]
    group.tell_records(np.zeros(1_000_000, int), np.full(1_000_000, 8))  # over where it lay in the lane
    fab.drain(timeout=PATIENCE)

    assert (letter.agent, letter.encoding, type(letter.body)) == (group.hosts[0].address, "records", bytes)
    assert (
        letter.body == pack(RowType("i8", ""), Part(0, slice(0, 1), None), np.zeros(1, int), np.ones(1, int)).tobytes()
    )


def test_told_records_whose_handler_raises_are_a_dead_letter_and_asked_ones_an_AgentError(fab):
    group = fab.spawn_array(Deadly, 10)
    group.tell_records([0, 1], np.array([3, 8]))
    with pytest.raises(AgentError, match="a three"):
        group.ask_records(range(10), np.array([8] * 9 + [3]), timeout=PATIENCE)
    fab.drain(timeout=PATIENCE)

    [letter] = fab.dead_letters()
    assert "a three" in str(letter.error)
    assert group.ask_records([0], np.array([8]), timeout=PATIENCE).tolist() == [8]


def test_what_a_worker_that_is_given_up_owes_is_an_error():
    with Fabric(workers=2, max_restarts=0, on_error=lambda letter: None) as fab:
        group = fab.spawn_array(Deadly, 10)
        with pytest.raises(WorkerLostError):
            group.ask_records(range(10), np.array([8] * 9 + [1]), timeout=PATIENCE)


def _send(fab, address, correlation, dtype, ids, records):
    """Send a chunk past all checks."""
    rows = RowType(dtype, "dtype")
    body = pack(rows, Part(0, slice(0, len(ids)), None), np.asarray(ids), np.asarray(records, rows.dtype))
    slot = fab._switchboard.slot_of(address)
    fab._switchboard.send_chunks([Letter(slot, address, correlation, body)], None)


@pytest.mark.parametrize(("dtype", "ids"), [("f8", [0]), ("i8", [9]), ("i8", [-1])])
def test_a_chunk_of_another_dtype_or_for_others_becomes_a_dead_letter_and_the_rest_goes_on(fab, dtype, ids):
    accounts, deadly = fab.spawn_array(Accounts, 10), fab.spawn_array(Deadly, 10)
    _send(fab, deadly.hosts[0].address, 0, dtype, ids, [8])
    _send(fab, accounts.hosts[1].address, 0, dtype, ids, [8])
    assert deadly.ask_records([0], np.array([8]), timeout=PATIENCE).tolist() == [8]
    fab.drain(timeout=PATIENCE)

    assert [type(letter.error) for letter in fab.dead_letters()] == [EncodingError, EncodingError]
    assert accounts.hosts.ask_all("received") == [0, 0]


def test_records_for_an_ordinary_agent_are_never_handed_to_it(fab):
    echo = fab.spawn_batch(Echo, 1)[0]
    _send(fab, echo.address, 0, "i8", [0], [8])
    assert echo.ask("after", timeout=PATIENCE) == "after"
    fab.drain(timeout=PATIENCE)

    [letter] = fab.dead_letters()
    assert isinstance(letter.error, EncodingError)
    assert "no array agent" in str(letter.error)


def test_views_do_not_change_while_they_are_handled_though_the_lane_is_full():
    with Fabric(workers=2, lane_bytes=1 << 16) as fab:
        group = fab.spawn_array(Slow, 100)
        records = np.frombuffer(np.random.default_rng(4).bytes(64 * 20_000), "V64")
        sums = records.view("u1").reshape(-1, 64).sum(axis=1, dtype="u8")
        ids = np.random.default_rng(5).integers(0, 100, len(records))
        for _ in range(3):
            group.tell_records(ids, records, timeout=PATIENCE)
            assert (group.ask_records(ids, records, timeout=PATIENCE) == sums).all()

        assert group.hosts.ask_all("changed", timeout=PATIENCE) == [0, 0]


def test_threads_may_ask_at_once(fab):
    group = fab.spawn_array(Deadly, 100)
    wrong = []

    def ask(start):
        records = np.arange(start, start + 50_000)
        for _ in range(5):
            replies = group.ask_records(records % 100, records, timeout=PATIENCE)
            wrong.extend(replies[replies != records])

    threads = [threading.Thread(target=ask, args=(1_000_000 * number + 10,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert fab.statistics().outstanding == 0


def test_records_that_find_no_room_or_no_answer_in_time_are_a_TimeoutError(fab):
    group = fab.spawn_array(Slow, 10, workers=[0])
    group.hosts.ask_all("changed", timeout=PATIENCE)
    records = np.zeros(1_000_000, "V64")
    pid = fab.statistics().workers[0].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match="not all replies to 1 records"):
            group.ask_records([0], records[:1], timeout=0.05)
        with pytest.raises(TimeoutError, match="no room for records from about position"):
            group.tell_records(np.zeros(len(records), int), records, timeout=0.05)
        with pytest.raises(TimeoutError, match="no room for records"):
            group.ask_records(np.zeros(len(records), int), records, timeout=0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    fab.drain(timeout=PATIENCE)

    assert group.ask_records([0], records[:1], timeout=PATIENCE).tolist() == [0]
    assert fab.statistics().outstanding == 0
