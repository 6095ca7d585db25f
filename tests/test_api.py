"""What users do with agents that are there, on real workers and inline: tell, ask, futures, groups, many at once."""

import asyncio
import contextlib
import dataclasses
import json
import threading
from concurrent.futures import as_completed

import pytest

from fabric import AgentError, AgentNotFoundError, AgentRef, ClosedError, DeadLetter, FabricError
from tests.agents import Counter, Echo, Recorder
from tests.api_agents import Postponer, Raiser
from tests.api_coroutines import Stuck

PATIENCE = 30  # seconds until a test is taken to have failed


# One agent.


def test_an_ask_returns_what_the_handler_returns(fab):
    counter = fab.spawn_batch(Counter, 1, start=10)[0]

    assert counter.ask(5) == 15
    assert counter.ask(5, timeout=PATIENCE) == 20


def test_tells_and_asks_of_one_thread_are_handled_in_order(fab):
    recorder = fab.spawn_batch(Recorder, 1)[0]
    for number in range(0, 300, 3):
        recorder.tell(number)
        recorder.tell_nowait(number + 1)
        recorder.submit_nowait(number + 2)

    assert recorder.ask("all") == list(range(300))


def test_an_ask_that_nobody_answers_in_time_is_a_TimeoutError_and_the_late_reply_is_dropped(fab):
    postponer = fab.spawn_batch(Postponer, 1)[0]
    late = fab.statistics().late_replies
    with pytest.raises(TimeoutError, match=r"no reply .* within 0.05 s"):
        postponer.ask(("ask", 0), timeout=0.05)
    postponer.tell(("answer", "late"))

    assert postponer.ask(("nothing", 0)) is None
    fab.drain(timeout=PATIENCE)
    assert fab.statistics().late_replies == late + 1
    assert fab.statistics().outstanding == 0


def test_a_body_may_be_changed_by_its_sender_as_soon_as_it_is_sent(fab):
    recorder = fab.spawn_batch(Recorder, 1)[0]
    body = [1]
    recorder.tell(body)
    body.append(2)
    recorder.tell(body)
    body.clear()

    assert recorder.ask("all") == [[1], [1, 2]]


def test_references_are_equal_when_they_mean_the_same_agent(fab):
    group = fab.spawn_batch(Echo, 2)

    assert group[0] == group[0]
    assert group[0] != group[1]
    assert group[0] != "agent 1"
    assert len({group[0], group[0], group[1]}) == 2
    assert repr(group[0]) == f"<AgentRef agent {group[0].address & 0xFFFFFFFF}>" or "generation" in repr(group[0])
    assert (group[0].name, repr(group)) == ("", "<AgentGroup of 2 agents>")


# Futures.


def test_futures_bring_replies_and_errors(fab):
    echo, raiser = fab.spawn_batch(Echo, 1)[0], fab.spawn_batch(Raiser, 1)[0]
    futures = [echo.submit(number) for number in range(100)]
    failing = raiser.submit(KeyError("gone"))

    assert [future.result(timeout=PATIENCE) for future in futures] == list(range(100))
    assert isinstance(failing.exception(timeout=PATIENCE), AgentError)
    with pytest.raises(AgentError, match="KeyError: 'gone'"):
        failing.result()


def test_futures_can_be_waited_for_together(fab):
    echoes = fab.spawn_batch(Echo, 10)
    futures = [echo.submit(number) for number, echo in enumerate(echoes)]

    assert sorted(future.result() for future in as_completed(futures, timeout=PATIENCE)) == list(range(10))


def test_a_future_may_be_cancelled_and_its_reply_is_dropped(fab):
    postponer = fab.spawn_batch(Postponer, 1)[0]
    future = postponer.submit(("ask", 0))

    assert future.cancel()
    assert postponer.ask(("answer", 1)) is None
    assert postponer.submit(("nothing", 0)).result(timeout=PATIENCE) is None
    assert future.cancelled()


def test_a_callback_may_send_and_one_that_raises_harms_nobody(fab, caplog):
    echo = fab.spawn_batch(Echo, 1)[0]
    done = threading.Event()
    second = []

    def go_on(future):
        second.append(echo.submit(future.result() + 1))
        done.set()
        raise ValueError("a mistake in a callback")

    first = echo.submit(1)
    first.add_done_callback(go_on)
    first.result(timeout=PATIENCE)

    assert done.wait(PATIENCE)
    assert second[0].result(timeout=PATIENCE) == 2


# Groups.


def test_groups_ask_and_tell_all_and_each(fab):
    counters = fab.spawn_batch(Counter, 1_000, start=10)
    assert counters.ask_all(1) == [11] * 1_000
    assert counters.ask_each(range(1_000)) == [11 + i for i in range(1_000)]
    counters.tell_all(1, timeout=PATIENCE)
    counters.tell_each(-number for number in range(1_000))

    assert counters.ask_all(0, timeout=PATIENCE) == [12] * 1_000


def test_a_group_is_a_sequence_of_references(fab):
    counters = fab.spawn_batch(Counter, 10, each={"start": range(10)})

    assert [ref.ask(0) for ref in counters] == list(range(10))
    assert [counters[i].ask(0) for i in (0, 3, -1)] == [0, 3, 9]
    assert counters[2:8:2].ask_all(0) == [2, 4, 6]
    assert counters[::-1].ask_all(0) == list(range(9, -1, -1))
    assert len(counters[20:]) == 0
    assert counters[1] in counters
    assert counters.index(counters[4]) == 4
    assert len(counters.addresses) == 10
    with pytest.raises(IndexError):
        counters[10]


def test_the_number_of_bodies_must_be_that_of_the_agents(fab):
    echoes = fab.spawn_batch(Echo, 3)
    for send in (echoes.ask_each, echoes.tell_each):
        with pytest.raises(ValueError, match="3 agents and 2 bodies"):
            send([1, 2])
    for send in (fab.ask_many, fab.tell_many):
        with pytest.raises(ValueError, match="3 agents and 4 bodies"):
            send(echoes, range(4))


def test_an_empty_group_has_nothing_to_say(fab):
    nobody = fab.spawn_batch(Echo, 0)

    assert nobody.ask_all(1) == nobody.ask_each([]) == fab.ask_many([], []) == []
    nobody.tell_all(1)
    nobody.stop()


# Many.


def test_ask_many_takes_any_references_and_bodies_in_any_order(fab):
    counters, echoes = fab.spawn_batch(Counter, 3), fab.spawn_batch(Echo, 3)
    refs = [counters[0], echoes[2], counters[0], counters[2], echoes[0]]

    assert fab.ask_many(refs, [1, "a", 2, 5, None]) == [1, "a", 3, 5, None]
    assert fab.ask_many((ref for ref in refs), iter([1, "b", 1, 1, b"c"]), timeout=PATIENCE) == [4, "b", 5, 6, b"c"]


def test_tell_many_is_handled_in_order_between_single_tells(fab):
    recorders = fab.spawn_batch(Recorder, 2)
    for recorder in recorders:
        recorder.tell("first")
    fab.tell_many(list(recorders) * 3_000, [number // 2 for number in range(6_000)], timeout=PATIENCE)
    for recorder in recorders:
        recorder.tell("last")

    assert recorders.ask_all("all") == [["first", *range(3_000), "last"]] * 2


def test_errors_among_many_raise_the_first_or_are_returned_in_place(fab):
    raisers = fab.spawn_batch(Raiser, 2)
    bodies = [KeyError("a"), ValueError("b")]
    with pytest.raises(AgentError, match="KeyError: 'a'"):
        raisers.ask_each(bodies)
    with pytest.raises(AgentError, match="KeyError: 'a'"):
        fab.ask_many(raisers, bodies)
    replies = raisers.ask_each(bodies, return_exceptions=True) + fab.ask_many(raisers, bodies, return_exceptions=True)

    assert [type(reply.__cause__) for reply in replies] == [KeyError, ValueError] * 2


def test_many_asks_that_are_not_answered_in_time_are_a_TimeoutError(fab):
    postponers = fab.spawn_batch(Postponer, 3)
    with pytest.raises(TimeoutError, match="of 3 replies did not come within"):
        fab.ask_many(postponers, [("ask", 0), ("nothing", 0), ("ask", 0)], timeout=0.05)

    assert postponers.ask_all(("nothing", 0)) == [None] * 3


def test_only_references_of_this_fabric_can_be_sent_to(fab, kind):
    mine = fab.spawn_batch(Echo, 1)
    with kind(workers=1) as other:
        theirs = other.spawn_batch(Echo, 1)
        for refs in ([mine[0], theirs[0]], theirs):
            with pytest.raises(ValueError, match="belongs to another fabric"):
                fab.ask_many(refs, [1] * len(refs))
    with pytest.raises(TypeError, match="an AgentRef is wanted, not 7"):
        fab.tell_many([mine[0], 7], [1, 2])


# Asyncio.


def test_asks_can_be_awaited(fab):
    echo, raiser = fab.spawn_batch(Echo, 1)[0], fab.spawn_batch(Raiser, 1)[0]

    async def main():
        assert await echo.ask_async("a") == "a"
        assert await asyncio.gather(*[echo.ask_async(number) for number in range(50)]) == list(range(50))
        with pytest.raises(AgentError, match="ValueError: b"):
            await raiser.ask_async(ValueError("b"))

    asyncio.run(main())


def test_many_asks_can_be_awaited(fab):
    counters, raiser = fab.spawn_batch(Counter, 100), fab.spawn_batch(Raiser, 1)[0]

    async def main():
        assert await fab.ask_many_async(counters, range(100)) == list(range(100))
        assert await fab.ask_many_async(iter(counters), iter(range(100)), timeout=PATIENCE) == list(range(0, 200, 2))
        with pytest.raises(AgentError, match="ValueError: b"):
            await fab.ask_many_async([counters[0], raiser], [1, ValueError("b")])
        replies = await fab.ask_many_async([raiser], [ValueError("b")], return_exceptions=True)
        assert isinstance(replies[0], AgentError)
        with pytest.raises(ValueError, match="1 agents and 2 bodies"):
            await fab.ask_many_async([raiser], [1, 2])

    asyncio.run(main())


def test_an_awaited_ask_that_is_not_answered_in_time_is_a_TimeoutError(fab):
    postponer = fab.spawn_batch(Postponer, 1)[0]

    async def main():
        with pytest.raises(TimeoutError):
            await postponer.ask_async(("ask", 0), timeout=0.05)
        asked = asyncio.ensure_future(postponer.ask_async(("ask", 0)))
        await asyncio.sleep(0)
        postponer.tell(("answer", "now"))
        return await asked

    assert asyncio.run(main()) == "now"


def test_a_fabric_is_an_async_context_manager(kind):
    async def main():
        async with kind(workers=1) as fab:
            recorder = fab.spawn_batch(Recorder, 1)[0]
            recorder.tell(1)
            assert await recorder.ask_async("all") == [1]
        with pytest.raises(ClosedError):
            await recorder.ask_async("all")

    asyncio.run(main())


# Drain, and what went wrong unseen.


def test_drain_waits_until_all_that_was_told_is_handled(fab):
    recorders = fab.spawn_batch(Recorder, 10)
    fab.tell_many(list(recorders) * 500, range(5_000))
    fab.drain(timeout=PATIENCE)
    received = fab.statistics().received
    fab.drain()

    assert fab.statistics().received == received
    assert sum(map(len, recorders.ask_all("all"))) == 5_000


def test_drain_gives_up_in_time(kind):
    with kind(workers=1, drain=False) as fab:
        fab.spawn_batch(Stuck, 1)[0].tell("wait for ever")
        with pytest.raises(TimeoutError, match=r"still in flight after 0.05 s"):
            fab.drain(timeout=0.05)


def test_a_told_message_that_fails_is_kept_and_given_to_on_error(kind):
    letters, came = [], threading.Semaphore(0)

    def on_error(letter):
        letters.append(letter)
        came.release()
        raise ValueError("a mistake in on_error")

    with kind(workers=2, on_error=on_error) as fab:
        raiser, counter = fab.spawn_batch(Raiser, 1)[0], fab.spawn_batch(Counter, 1)[0]
        raiser.tell(ValueError("first"))
        fab.drain(timeout=PATIENCE)
        counter.tell("not a number")
        fab.drain(timeout=PATIENCE)

        first, second = fab.dead_letters()
        assert all(came.acquire(timeout=PATIENCE) for _ in range(2))
        assert letters == [first, second]
        assert isinstance(first, DeadLetter)
        assert (first.agent, first.sender) == (raiser.address, 0)
        assert isinstance(first.error, AgentError)
        assert isinstance(first.error.__cause__, ValueError)
        assert isinstance(second.error.__cause__, TypeError)
        assert first.seconds <= second.seconds
        assert fab.statistics().dead_letters == 2
        assert counter.ask(1) == 1


def test_without_on_error_a_failed_message_is_logged(kind, caplog):
    with kind(workers=1) as fab:
        fab.spawn_batch(Raiser, 1)[0].tell(ValueError("told in vain"))
        fab.drain(timeout=PATIENCE)

    assert "a told message failed: agent 1 raised ValueError: told in vain" in caplog.text


def test_what_is_told_to_a_stopped_agent_is_refused_at_once(fab):
    echoes = fab.spawn_batch(Echo, 3)
    echoes[1].stop()
    for send in (echoes[1].ask, echoes[1].tell, echoes[1].tell_nowait, echoes[1].submit, echoes[1].submit_nowait):
        with pytest.raises(AgentNotFoundError, match="has stopped, or never was"):
            send(1)
    for send in (echoes.ask_all, echoes.tell_all):
        with pytest.raises(AgentNotFoundError, match="number 1 of 3"):
            send(1)

    assert echoes[::2].ask_all(1) == [1, 1]


# Watching, and the end.


def test_statistics_are_a_frozen_snapshot(kind):
    with kind(workers=2) as fab:
        counters = fab.spawn_batch(Counter, 100)
        counters.ask_all(1)
        counters[0].tell("not a number")
        fab.drain(timeout=PATIENCE)
        found = fab.statistics()

        assert [worker.slot for worker in found.workers] == [1, 2]
        assert [worker.agents for worker in found.workers] == [50, 50]
        assert all(worker.alive and worker.pid > 0 and worker.batches > 0 for worker in found.workers)
        assert found.received >= 101
        assert (found.agents, found.outstanding, found.restarts, found.dead_letters, found.alarms) == (100, 0, 0, 1, 0)
        assert sum(worker.errors for worker in found.workers) == 1
        assert json.loads(json.dumps(found.to_dict()))["agents"] == 100
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.agents = 0
    assert fab.statistics().agents == 100, "the last one stays when the fabric is closed"


def test_a_closed_fabric_refuses_everything_and_closes_again(kind):
    with kind(workers=1) as fab:
        echoes = fab.spawn_batch(Echo, 2, name="clerk")
        echo = echoes[0]
        echoes.tell_all("drained")
    fab.close()
    uses = [
        lambda: echo.ask(1),
        lambda: echo.tell(1),
        lambda: echo.tell_nowait(1),
        lambda: echo.submit(1),
        lambda: echo.stop(),
        lambda: echoes.ask_all(1),
        lambda: echoes.tell_each([1, 2]),
        lambda: fab.ask_many([echo], [1]),
        lambda: fab.tell_many([echo], [1]),
        lambda: asyncio.run(echo.ask_async(1)),
        lambda: fab.spawn_batch(Echo, 1),
        lambda: fab.spawn_waves(Echo, 1, wave_size=1),
        lambda: fab.prewarm(Echo, 1),
        lambda: fab.drain(),
        lambda: fab.resize(1),
        lambda: fab.find("clerk-0"),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="this fabric is closed"):
            use()

    assert not echo.alive
    assert fab.dead_letters() == []
    assert repr(fab) == "<Fabric: closed>"


def test_close_drains_unless_it_is_told_not_to(kind):
    for drain, expected in ((True, 1), (False, 0)):
        with kind(workers=1, drain=drain, on_error=lambda letter: None) as fab:
            fab.spawn_batch(Raiser, 1)[0]
            stuck = fab.spawn_batch(Stuck, 1)[0]
            if drain:
                fab.spawn_batch(Raiser, 1)[0].tell(ValueError())
            else:
                stuck.tell("never handled to the end")
        assert fab.statistics().dead_letters == expected


def test_who_waits_while_the_fabric_is_closed_is_told(kind):
    with kind(workers=1, drain=False) as fab:
        future = fab.spawn_batch(Stuck, 1)[0].submit("never answered")
    with pytest.raises(ClosedError):
        future.result(timeout=PATIENCE)


def test_an_exception_in_the_with_statement_closes_without_waiting(kind):
    fab = kind(workers=1)
    with contextlib.suppress(KeyError), fab:
        fab.spawn_batch(Stuck, 1)[0].tell("never handled to the end")
        raise KeyError("a mistake of the user")
    with pytest.raises(ClosedError):
        fab.drain()


def test_a_reference_survives_only_where_its_fabric_is(fab):
    import pickle

    ref = fab.spawn_batch(Echo, 1)[0]
    copy = pickle.loads(pickle.dumps(ref))
    assert copy == ref
    assert copy.ask(1) == 1
    lost = AgentRef(type("Nowhere", (), {"identity": 1})(), 1)
    with pytest.raises(FabricError, match="no part in its fabric"):
        pickle.loads(pickle.dumps(lost))
