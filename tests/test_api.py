"""What users do with agents that are there, on real workers and inline: tell, ask, futures, groups, many at once."""

import asyncio
import threading
from concurrent.futures import as_completed

import pytest

from fabric import AgentError, AgentRef, ClosedError, FabricError
from tests.agents import Counter, Echo, Recorder
from tests.api_agents import Postponer, Raiser

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


def test_a_reference_survives_only_where_its_fabric_is(fab):
    import pickle

    ref = fab.spawn_batch(Echo, 1)[0]
    copy = pickle.loads(pickle.dumps(ref))
    assert copy == ref
    assert copy.ask(1) == 1
    lost = AgentRef(type("Nowhere", (), {"identity": 1})(), 1)
    with pytest.raises(FabricError, match="no part in its fabric"):
        pickle.loads(pickle.dumps(lost))


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
