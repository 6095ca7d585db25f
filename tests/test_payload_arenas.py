"""Large bodies and the arenas of real workers: what lies there once, what waits for room, and that all comes back.

Fabrics are looked into: how many blocks and loans of the arenas are in use says whether something was copied,
and whether all of it came back.
"""

import gc
import time

import numpy as np
import pytest

from fabric import AgentError, BackpressureError, EncodingError, Fabric, MessageTooLargeError
from tests.arenas import PATIENCE, all_came_back, holders_of, lent
from tests.payload_agents import Holder, pattern, read_only
from tests.waiting import until

SMALL_ARENA = 16 << 20
BIG = 3 << 20  # over what a lane between workers takes, under what one of the coordinator does


@pytest.fixture(scope="module")
def real():
    """A fabric of real workers with a small arena and little patience."""
    with Fabric(
        workers=2, arena_bytes=SMALL_ARENA, arena_timeout=0.5, on_error=lambda letter: None, max_restarts=1_000
    ) as fabric:
        yield fabric


def test_an_error_about_a_large_message_keeps_nothing(real):
    holders = holders_of(real)
    with pytest.raises(AgentError, match="100,000 bytes came"):
        holders[0].ask(("fail", pattern(1, 100_000)), timeout=PATIENCE)
    with pytest.raises(EncodingError, match="cannot be"):
        holders[0].ask(("answer_with", "cannot be encoded", 100_000), timeout=PATIENCE)
    with pytest.raises(EncodingError, match="crash"):
        holders[0].ask(("answer_with", "crashes when decoded", 100_000), timeout=PATIENCE)
    assert all_came_back(real, *holders)


def test_an_idle_worker_keeps_nothing_of_its_last_message(real):
    first, _ = holders_of(real)
    first.ask(pattern(1, BIG), timeout=PATIENCE)
    first.tell(pattern(1, BIG))
    deadline = time.monotonic() + PATIENCE
    while lent(real) != (0, 0):
        assert time.monotonic() < deadline, "nothing more is sent to it: it has to let go by itself"


def test_a_broadcast_to_a_thousand_agents_lies_in_the_arena_once(real):
    group = real.spawn_batch(Holder, 1_000)
    gate = real.spawn_batch(Holder, 1)[0]
    group.tell_all(("keep", read_only(np.full(80_000, 7, "u1"))))
    assert real._arena.usage()[5] == 1
    assert all(seen == [(7, 7)] for seen in group.ask_all(("look",), timeout=PATIENCE))
    assert lent(real) == (1_000, 1)
    group.ask_all(("let_go",), timeout=PATIENCE)
    group.stop()
    assert all_came_back(real, gate)


def test_a_writable_broadcast_to_agents_of_one_worker_is_not_copied_for_each(real):
    holders = holders_of(real)
    group = real.spawn_batch(Holder, 200, placement=0)
    (pid,) = {worker.pid for worker in real.statistics().workers if worker.slot == 1}
    before = _anonymous(pid)
    group.tell_all(("keep", np.full(1_000_000, 7, "u1")))
    assert group.ask_all(("look",), timeout=PATIENCE) == [[(7, 7)]] * 200
    assert _anonymous(pid) - before < 50_000_000, "200 MB are looked at, and lie there once"
    group.ask_all(("let_go",), timeout=PATIENCE)
    group.stop()
    assert all_came_back(real, *holders)


def _anonymous(pid):
    """The bytes of memory that belong to a process alone."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def test_more_than_the_arena_goes_through_it_one_after_the_other(real):
    first, second = holders_of(real)
    bodies = [pattern(seed % 7, BIG) for seed in range(20)]
    sums = [[int(body.sum(dtype="u8"))] for body in bodies]
    refs = [first, second] * 10
    assert real.ask_many(refs, [("sum", body) for body in bodies], timeout=PATIENCE) == sums
    assert real.ask_many(refs, [("sum", 1)] + [("sum", body) for body in bodies[1:]], timeout=PATIENCE)[1:] == sums[1:]
    real.tell_many(refs, [("sum", body) for body in bodies], timeout=PATIENCE)
    futures = [ref.submit(("sum", body)) for ref, body in zip(refs, bodies, strict=True)]
    assert [future.result(PATIENCE) for future in futures] == sums
    assert all_came_back(real, first, second)


def test_replies_that_together_exceed_the_arena_come_as_they_are_let_go_of(real):
    first, second = holders_of(real)
    done = []
    for seed in range(20):
        done.append(first.submit(("make", seed, BIG)))
        if seed >= 3:
            came = done[seed - 3].result(PATIENCE)
            assert np.array_equal(came, pattern(seed - 3, BIG))
            done[seed - 3] = came = None
    del done
    assert all_came_back(real, first, second)


def test_replies_that_are_all_kept_end_in_an_error_that_says_so(real):
    first, second = holders_of(real)
    size = 4 << 20
    replies = real.ask_many([first] * 6, [("make", 1, size)] * 6, timeout=PATIENCE, return_exceptions=True)
    came = [reply for reply in replies if isinstance(reply, np.ndarray)]
    errors = [reply for reply in replies if not isinstance(reply, np.ndarray)]
    assert len(came) >= 3
    assert all(np.array_equal(reply, pattern(1, size)) for reply in came)
    assert errors
    assert all("let go of arrays that were received or lent, or raise arena_bytes" in str(error) for error in errors)
    del replies, came, errors
    assert all_came_back(real, first, second)


def test_replies_that_find_no_room_wait_once_for_all_of_them():
    with Fabric(workers=1, arena_bytes=SMALL_ARENA, arena_timeout=3.0) as fab:
        (holder,) = fab.spawn_batch(Holder, 1)
        replies = fab.ask_many([holder] * 40, [("make", 1, 4 << 20)] * 40, timeout=PATIENCE, return_exceptions=True)
        refused = sum(isinstance(reply, AgentError | EncodingError) for reply in replies)
        assert refused >= 36, "they come when the time of ask_many is long over, if each waits"
        del replies
        gc.collect()
        kept = [holder.ask(("make", 1, 4 << 20), timeout=PATIENCE) for _ in range(3)]  # there is room again
        assert len(kept) == 3


def test_a_handler_that_fills_its_arena_is_told_so_at_once(real):
    first, second = holders_of(real)
    count, why = first.ask(("flood", BIG), timeout=PATIENCE)
    assert count == SMALL_ARENA // BIG
    assert f"{BIG:,} bytes was asked for" in why
    kept = until(lambda: [seen for seen in [second.ask(("look",), timeout=PATIENCE)] if len(seen) == count])
    assert kept == [[(k, k) for k in range(count)]]
    second.ask(("let_go",))
    assert all_came_back(real, first, second)


def test_a_timeout_bounds_how_long_a_full_arena_is_waited_for():
    with Fabric(workers=1, arena_bytes=SMALL_ARENA, arena_timeout=1_000.0) as fab:
        group = fab.spawn_batch(Holder, 2)
        with fab.loan(SMALL_ARENA - 4096, "u1") as full:
            body = bytes(5 << 20)
            ways = {
                "ask": lambda: group[0].ask(body, timeout=0.1),
                "tell": lambda: group[0].tell(body, timeout=0.1),
                "ask_all": lambda: group.ask_all(body, timeout=0.1),
                "tell_all": lambda: group.tell_all(body, timeout=0.1),
                "ask_each": lambda: group.ask_each([body, body], timeout=0.1),
                "ask_many": lambda: fab.ask_many(list(group), [body] * 2, timeout=0.1),
                "tell_many": lambda: fab.tell_many(list(group), [body] * 2, timeout=0.1),
                "tell without any": lambda: group[0].tell(body, timeout=0),
                "tell_nowait": lambda: group[0].tell_nowait(body),
                "submit_nowait": lambda: group[0].submit_nowait(body),
            }
            for way, send in ways.items():
                begun = time.monotonic()
                error = BackpressureError if "nowait" in way else TimeoutError
                with pytest.raises(error, match="5,242,880 bytes was asked for"):
                    send()
                assert time.monotonic() - begun < PATIENCE, way
            assert group[0].ask(bytes(1 << 20), timeout=PATIENCE) == bytes(1 << 20), "what fits a lane goes there"
        del full
        gc.collect()
        assert group[0].ask(body, timeout=PATIENCE) == body
        with pytest.raises(MessageTooLargeError):
            group[0].ask(bytes(SMALL_ARENA + 1), timeout=PATIENCE)


def test_a_received_array_that_is_sent_on_is_sent_as_it_is_now(real):
    first, second = holders_of(real)
    body = first.ask(("make", 5, 100_000), timeout=PATIENCE)
    body[:10] = 42
    came = second.ask(body, timeout=PATIENCE)
    assert np.array_equal(came, body)
    came[:] = 0
    assert (body[:10] == 42).all()
    first.ask(("pass_on", body), timeout=PATIENCE)
    (seen,) = until(lambda: second.ask(("show",), timeout=PATIENCE))
    assert np.array_equal(seen, body)
    second.ask(("let_go",))
    del body, came, seen
    assert all_came_back(real, first, second)


@pytest.mark.parametrize("size", [5_000_000, 100_000])
def test_json_fabrics_send_large_arrays_bytes_and_texts(size):
    with Fabric(workers=2, encoding="json", allow_pickle=False) as fab:
        group = fab.spawn_batch(Holder, 2)
        array = pattern(1, size)
        for came in group.ask_all(array, timeout=PATIENCE):
            assert np.array_equal(came, array)
        assert group[0].ask(array.tobytes(), timeout=PATIENCE) == array.tobytes()
        text = {"text": "é" * size, "numbers": list(range(1_000))}
        assert fab.ask_many(list(group), [text, [text]], timeout=PATIENCE) == [text, [text]]
        with pytest.raises(EncodingError, match="cannot be said in JSON"):
            fab.spawn_batch(Holder, 1)[0].ask({1, 2}, timeout=PATIENCE)
        del came
        gc.collect()
        group.ask_all(None, timeout=PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while lent(fab) != (0, 0):
            assert time.monotonic() < deadline
