"""Workers killed while they hold, write, lend or send large bodies: what others have stays good, and all comes back.

After each test the arenas of all processes are looked into: no loan is out, and no block is in use.
"""

import gc
import os
import signal
import time

import numpy as np
import pytest

from fabric import AgentNotFoundError, Fabric, FabricError, PoisonMessageError, WorkerLostError
from tests.arenas import PATIENCE, all_came_back, holders_of, lent
from tests.payload_agents import Holder, KeepingHolder, KillsWhenDecoded, KillsWhenEncoded, pattern
from tests.test_snapshots import Killer
from tests.waiting import until

SIZE = 300_000
ARENA = 32 << 20


@pytest.fixture
def fab():
    letters = []
    with Fabric(workers=2, max_restarts=1_000, arena_bytes=ARENA, on_error=letters.append) as fabric:
        fabric.letters = letters
        yield fabric


@pytest.fixture
def tireless():
    """One that blames no message, however often a slow machine has it in hand when its worker is killed."""
    with Fabric(workers=2, max_restarts=10**6, max_attempts=10**6, arena_bytes=ARENA) as fabric:
        yield fabric


def _kill(fab, slot):
    """Kill the worker of a slot, and see another one there."""
    before = _pid(fab, slot)
    os.kill(before, signal.SIGKILL)
    until(lambda: _pid(fab, slot) not in (before, 0))


def _pid(fab, slot):
    return next(worker.pid for worker in fab.statistics().workers if worker.slot == slot)


def _holds(array, seed):
    return np.array_equal(array, pattern(seed, SIZE))


def test_what_a_killed_worker_held_comes_back(fab):
    first, second = holders_of(fab)
    for seed in range(5):
        first.ask(("keep", pattern(seed, SIZE)), timeout=PATIENCE)
        first.ask(("write", pattern(seed, SIZE)), timeout=PATIENCE)
    second.ask(("pass_on", pattern(9, SIZE)), timeout=PATIENCE)
    assert until(lambda: lent(fab) == (10, 10)), "the eleventh was passed on by its receiver, in another block"
    assert until(lambda: len(first.ask(("show",), timeout=PATIENCE)) == 11), "else a successor gets it, and keeps it"
    _kill(fab, 1)
    assert first.ask(("show",), timeout=PATIENCE) == []
    assert all_came_back(fab, first, second)


def test_what_a_killed_worker_had_sent_stays_good_and_is_not_written_over(fab):
    first, second = holders_of(fab)
    mine = [first.ask(("make", seed, SIZE), timeout=PATIENCE) for seed in range(5)]
    first.ask(("pass_on", pattern(5, SIZE)), timeout=PATIENCE)
    until(lambda: second.ask(("show",), timeout=PATIENCE))
    for round_ in range(3):
        _kill(fab, 1)
        first.ask(("know", second), timeout=PATIENCE)
        newer = [first.ask(("make", 10 * round_ + seed + 100, SIZE), timeout=PATIENCE) for seed in range(20)]
        assert all(_holds(array, seed) for seed, array in enumerate(mine))
        assert all(_holds(array, 10 * round_ + seed + 100) for seed, array in enumerate(newer))
        (theirs,) = second.ask(("show",), timeout=PATIENCE)
        assert _holds(theirs, 5)
        mine[0][:] = 0
        assert _holds(mine[1], 1)
        mine[0] = mine[1].copy()
        mine[0][:] = pattern(0, SIZE)
        del newer, theirs
    assert first.ask(("usage",), timeout=PATIENCE) != (0, 0), "the successor knows what its predecessors lent"
    second.ask(("let_go",), timeout=PATIENCE)
    del mine
    assert all_came_back(fab, first, second)


def test_a_large_message_that_comes_again_is_as_it_was_sent(fab, tmp_path):
    first, second = holders_of(fab)
    body = pattern(3, SIZE)
    futures = [first.submit(("sum", body)) for _ in range(20)]
    dying = first.submit(("die_once", str(tmp_path / "flag"), body))
    futures += [first.submit(("sum", body)) for _ in range(20)]
    assert np.array_equal(dying.result(PATIENCE), body), "what the dead one wrote is not there"
    assert [future.result(PATIENCE) for future in futures] == [[int(body.sum(dtype="u8"))]] * 40
    assert fab.statistics().restarts == 1
    del dying, futures
    assert all_came_back(fab, first, second)


@pytest.mark.parametrize("where", ["encoding the reply", "encoding a message", "lending", "decoding"])
def test_a_worker_may_be_killed_at_any_step_of_a_large_body(fab, tmp_path, where):
    first, second = holders_of(fab)
    flag = str(tmp_path / "flag")
    if where == "encoding the reply":
        (came,) = first.ask(("answer_with", "kills when encoded", flag, SIZE), timeout=PATIENCE)
        assert np.array_equal(came, pattern(1, SIZE))
        del came
    elif where == "encoding a message":
        asked = first.submit(("answer_with", "kills when encoded", flag, SIZE))
        futures = [first.submit(("make", seed, SIZE)) for seed in range(10)]
        assert all(_holds(future.result(PATIENCE), seed) for seed, future in enumerate(futures))
        assert np.array_equal(asked.result(PATIENCE)[0], pattern(1, SIZE))
        del asked, futures
    elif where == "lending":
        with pytest.raises(PoisonMessageError):
            first.ask(("send_and_die", 1, SIZE), timeout=PATIENCE)
        assert second.ask(("show",), timeout=PATIENCE) == [], "what was not published was not sent"
    else:
        body = first.ask([KillsWhenDecoded(flag, pattern(1, SIZE))], timeout=PATIENCE)[0]
        assert np.array_equal(body.array, pattern(1, SIZE))
        del body
    assert all_came_back(fab, first, second)


def test_a_large_message_that_kills_each_time_becomes_a_dead_letter_and_goes_back(fab):
    first, second = holders_of(fab)
    first.tell(("die", pattern(1, SIZE)))
    with pytest.raises(PoisonMessageError):
        first.ask(("die", [pattern(2, SIZE)]), timeout=PATIENCE)
    assert first.ask(("sum", pattern(3, SIZE)), timeout=PATIENCE) == [int(pattern(3, SIZE).sum(dtype="u8"))]
    (letter,) = until(lambda: list(fab.letters))
    assert type(letter.error) is PoisonMessageError
    del letter
    fab.letters.clear()
    assert all_came_back(fab, first, second)


def test_kills_in_mid_stream_lose_no_reply_and_spoil_no_body(tireless):
    first, second = holders_of(tireless)
    with Killer(tireless) as killer:
        for round_ in range(40):
            seeds = range(8 * round_, 8 * round_ + 8)
            refs = [first, second] * 4
            bodies = [pattern(seed, SIZE) for seed in seeds]
            came = tireless.ask_many(refs, bodies, timeout=PATIENCE)
            assert all(np.array_equal(a, b) for a, b in zip(came, bodies, strict=True))
            made = tireless.ask_many(refs, [("make", seed, SIZE) for seed in seeds], timeout=PATIENCE)
            assert all(_holds(array, seed) for seed, array in zip(seeds, made, strict=True))
            del came, made
    assert killer.kills > 3
    assert all_came_back(tireless, first, second)


@pytest.mark.parametrize("every", [1, 7, 0.01])
def test_agents_with_snapshots_take_each_large_message_once(tireless, every):
    agents = tireless.spawn_batch(KeepingHolder, 4, snapshot_every=every)
    total, count = [0] * 4, 0
    with Killer(tireless) as killer:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline or killer.kills < 3:
            bodies = [pattern(count + k, 40_000) for k in range(4)]
            agents.tell_each(bodies, timeout=PATIENCE)
            total = [before + int(body.sum(dtype="u8")) for before, body in zip(total, bodies, strict=True)]
            count += 1
    assert agents.ask_all("what", timeout=PATIENCE) == [(count, one) for one in total]
    agents.stop()
    assert all_came_back(tireless, *holders_of(tireless))


def test_what_a_worker_that_is_given_up_held_and_never_saw_comes_back():
    with Fabric(workers=2, max_restarts=0, arena_bytes=ARENA, on_error=lambda letter: None) as fab:
        first, second = holders_of(fab)
        first.ask(("keep", pattern(1, SIZE)), timeout=PATIENCE)
        second.ask(("pass_on", pattern(2, SIZE)), timeout=PATIENCE)
        until(lambda: len(first.ask(("show",), timeout=PATIENCE)) == 2)
        theirs = first.ask(("make_and_keep", 4, SIZE), timeout=PATIENCE)
        dying = [first.submit(("die", pattern(3, SIZE))) for _ in range(3)]
        for future in dying:
            with pytest.raises((WorkerLostError, PoisonMessageError)):
                future.result(PATIENCE)
        with pytest.raises(AgentNotFoundError):
            first.ask(1, timeout=PATIENCE)
        assert _holds(theirs, 4)
        assert all_came_back(fab, second)
        assert _holds(theirs, 4)
        del theirs  # one error is raised to all who asked: its traceback may keep this frame for longer


def test_what_a_worker_held_that_leaves_comes_back():
    with Fabric(workers=2, max_workers=2, arena_bytes=ARENA, on_error=lambda letter: None) as fab:
        first, second = holders_of(fab)
        came = second.ask(("make", 4, SIZE), timeout=PATIENCE)
        for seed in range(3):
            second.ask(("keep", pattern(seed, SIZE)), timeout=PATIENCE)
            first.ask(("pass_on", pattern(seed, SIZE)), timeout=PATIENCE)
        second.stop()
        fab.resize(1)
        assert all_came_back(fab, first)
        assert _holds(came, 4)
        fab.resize(2)
        again = fab.spawn_batch(Holder, 1, placement=1)[0]
        newer = [again.ask(("make", seed, SIZE), timeout=PATIENCE) for seed in range(10, 20)]
        assert _holds(came, 4)
        assert all(_holds(array, seed) for seed, array in enumerate(newer, start=10))
        del came, newer
        assert all_came_back(fab, first, again)


def test_replies_that_nobody_waits_for_come_back(fab):
    first, second = holders_of(fab)
    futures = [first.submit(("make", seed, SIZE)) for seed in range(10)]
    for future in futures:
        future.cancel()
    del futures, future
    for ref in (first, second):
        try:
            ref.ask(("make", 1, SIZE), timeout=1e-9)
        except TimeoutError:
            pass
    assert all_came_back(fab, first, second)


def test_messages_to_who_has_stopped_come_back(fab):
    first, second = holders_of(fab)
    third = fab.spawn_batch(Holder, 1, placement=1)[0]
    first.ask(("know", third), timeout=PATIENCE)
    third.stop()
    with pytest.raises(FabricError):
        first.ask(("pass_on", pattern(1, SIZE)), timeout=PATIENCE)
    with pytest.raises(AgentNotFoundError):
        third.ask(pattern(1, SIZE), timeout=PATIENCE)
    assert all_came_back(fab, first, second)


def test_a_sender_that_fails_to_encode_keeps_nothing(fab, tmp_path):
    first, second = holders_of(fab)

    class Broken:
        def __reduce_ex__(self, protocol):
            raise ValueError("broken")

    for body in ([pattern(1, SIZE), Broken()], {"a": pattern(1, SIZE), "b": (x for x in "")}):
        for send in (first.ask, first.tell, fab.spawn_batch(Holder, 3).ask_all):
            with pytest.raises(FabricError):
                send(body, timeout=PATIENCE)
        with pytest.raises(FabricError):
            fab.ask_many([first, second], [pattern(1, SIZE), body], timeout=PATIENCE)
    assert KillsWhenEncoded(str(tmp_path), pattern(1, SIZE)).__reduce_ex__(5)[0] is tuple
    gc.collect()
    assert lent(fab) == (0, 0)
