"""InlineFabric alone: when messages are handled, that nothing else runs, and that it runs the same way each time."""

import asyncio
import bdb
import os
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from fabric import Agent, AgentError, BackpressureError, Fabric, FabricError, MessageTooLargeError
from fabric.testing import InlineFabric
from tests.agents import Counter, Echo, Recorder, Relay
from tests.api_agents import Alarm, Batcher, Postponer, Raiser, Starter, Waiter
from tests.api_coroutines import Asker, Overlapping, Stuck


@pytest.fixture
def fab():
    with InlineFabric(workers=2, on_error=lambda letter: None) as fabric:
        yield fabric


def _recorder(fab):
    """Return an agent, and what it has seen so far without asking it: it lives in this process."""
    recorder = fab.spawn_batch(Recorder, 1)[0]
    hosts = fab._turns.hosts.values()
    [agent] = [host._agents[recorder.address] for host in hosts if recorder.address in host._agents]
    return recorder, agent.seen


# When.


def test_what_is_told_is_handled_when_somebody_waits(fab):
    recorder, seen = _recorder(fab)
    recorder.tell(1)
    fab.tell_many([recorder], [2])
    assert seen == []
    fab.spawn_batch(Echo, 1)
    assert seen == [1, 2]
    recorder.tell(3)
    fab.spawn_batch(Echo, 1)[0].stop()
    assert seen == [1, 2, 3]
    recorder.tell(4)
    fab.drain()
    assert seen == [1, 2, 3, 4]


def test_submit_handles_what_is_queued_and_its_future_is_done(fab):
    recorder, seen = _recorder(fab)
    recorder.tell(1)
    future = fab.spawn_batch(Echo, 1)[0].submit("x")

    assert isinstance(future, Future)
    assert (future.done(), seen) == (True, [1])


def test_step_handles_one_batch_of_one_worker(fab):
    echoes = fab.spawn_batch(Recorder, 2)
    for number in range(3):
        echoes.tell_all(number)
    handled = []
    while fab.step():
        handled.append([worker.received for worker in fab.statistics().workers])
    start = [total - 3 for total in handled[-1]]

    assert [[now - then for now, then in zip(step, start, strict=True)] for step in handled] == [[3, 0], [3, 3]]
    assert not fab.step()


def test_a_tell_that_finds_the_queue_full_has_some_of_it_handled():
    with InlineFabric(workers=1, lane_bytes=2**16) as fab:
        recorder, seen = _recorder(fab)
        for number in range(200):
            recorder.tell(bytes([number]) * 1_000)
        assert 0 < len(seen) < 200
        fab.drain()
        assert seen == [bytes([number]) * 1_000 for number in range(200)]
        with pytest.raises(BackpressureError):
            _ = [recorder.tell_nowait(bytes(1_000)) for _ in range(100)]
        with pytest.raises(MessageTooLargeError):
            recorder.tell(bytes(40_000))


def test_close_handles_what_was_told():
    with InlineFabric(workers=1) as fab:
        recorder, seen = _recorder(fab)
        recorder.tell(1)
    assert seen == [1]


def test_workers_take_turns_and_batches_are_as_large_as_configured():
    with InlineFabric(workers=2, batch_size=10) as fab:
        batchers = fab.spawn_batch(Batcher, 2)
        fab.tell_many(list(batchers) * 25, range(50))
        fab.drain()
        assert batchers.ask_all("sizes") == [[10, 10, 5]] * 2


def test_it_runs_the_same_way_each_time():
    def run():
        seen = []
        with InlineFabric(workers=3, on_error=lambda letter: seen.append(str(letter.error))) as fab:
            witness = fab.spawn_batch(Recorder, 1)[0]
            group = fab.spawn_batch(Relay, 7)
            asker = fab.spawn_batch(Asker, 2)
            starters = fab.spawn_batch(Starter, 3, witness=witness)
            for number, ref in enumerate([*group, *group]):
                ref.tell((witness, number) if number % 5 else number)
            seen += asker.ask_each([(starters[0], 1), (starters[1], 2)])
            seen += [body if isinstance(body, int) else body.address for body in witness.ask("all")]
        return seen

    assert run() == run()


# Nothing else.


def test_there_is_no_process_no_thread_and_no_shared_memory(fab):
    fab.spawn_batch(Counter, 100).ask_all(1)
    fab.spawn_batch(Overlapping, 3).ask_all(1)

    assert threading.active_count() == 1
    assert {worker.pid for worker in fab.statistics().workers} == {os.getpid()}
    assert isinstance(fab, Fabric)
    with open("/proc/self/maps", encoding="ascii") as maps:
        assert "memfd" not in maps.read()


def test_handlers_run_in_the_thread_that_waits():
    class Noting(Echo):
        def on_message(self, body):
            return threading.get_ident()

    with InlineFabric(workers=1) as fab:
        assert fab.spawn_batch(Noting, 1)[0].ask(1) == threading.get_ident()


def test_the_number_of_workers_does_not_depend_on_the_machine():
    with InlineFabric() as fab:
        assert len(fab.statistics().workers) == 2


def test_bodies_go_through_the_codec(fab):
    recorder, seen = _recorder(fab)
    body = {"array": np.arange(3), "list": [1]}
    recorder.tell(body)
    fab.drain()

    assert seen[0] is not body
    assert seen[0]["list"] is not body["list"]
    assert fab.spawn_batch(Echo, 1)[0].ask(body)["list"] is not body["list"]


# Handlers that wait.


def test_a_handler_cannot_wait_even_with_a_reference_of_the_coordinator(fab):
    echo = fab.spawn_batch(Echo, 1)[0]

    class Cheat(Agent):
        def on_message(self, body):
            return {"ask": echo.ask, "drain": lambda _: fab.drain(), "step": lambda _: fab.step()}[body](1)

    agent = Cheat()
    host = fab._turns.hosts[1]
    address = fab.spawn_batch(Echo, 1, placement=0)[0]
    host._agents[address.address] = agent
    for how in ("ask", "drain", "step"):
        with pytest.raises(AgentError, match="would stop the whole worker"):
            address.ask(how)
    waiter = fab.spawn_batch(Waiter, 1)[0]
    with pytest.raises(AgentError, match="would stop the whole worker"):
        waiter.ask((echo, "ask"))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, bdb.BdbQuit])
def test_ctrl_c_and_leaving_the_debugger_end_the_call_that_waits(fab, interruption):
    raiser, echo = fab.spawn_batch(Raiser, 1)[0], fab.spawn_batch(Echo, 1)[0]
    with pytest.raises(interruption):
        raiser.ask(interruption)
    raiser.tell(interruption)
    with pytest.raises(interruption):
        fab.drain()

    assert echo.ask(1) == 1
    assert fab.dead_letters() == []


# Waits that nothing could end.


def test_a_wait_that_nothing_could_end_is_an_error(fab):
    postponer, stuck = fab.spawn_batch(Postponer, 1)[0], fab.spawn_batch(Stuck, 1)[0]
    with pytest.raises(FabricError, match="this wait would never end"):
        postponer.ask(("ask", 0))
    with pytest.raises(FabricError, match="this wait would never end"):
        postponer.submit(("ask", 0)).result()
    with pytest.raises(FabricError, match="this wait would never end"):
        stuck.ask(1)
    with pytest.raises(FabricError, match="this wait would never end"):
        fab.drain()
    with pytest.raises(TimeoutError):
        postponer.ask(("ask", 0), timeout=1_000)
    with pytest.raises(TimeoutError):
        postponer.submit(("ask", 0)).exception(timeout=1_000)
    stuck.stop()


def test_a_blocking_call_in_the_event_loop_of_the_coroutines_is_an_error(fab):
    agent = fab.spawn_batch(Overlapping, 1)[0]

    async def main():
        with pytest.raises(FabricError, match=r"await ask_async\(\)"):
            agent.ask(1)
        return await agent.ask_async(2)

    assert asyncio.run(main()) == 2


# Time.


def test_time_stands_still_until_it_is_told_to_pass(fab):
    alarm, (recorder, seen) = fab.spawn_batch(Alarm, 1)[0], _recorder(fab)
    alarm.tell((recorder, "in a millisecond"))
    fab.drain()
    fab.advance(0.0005)
    assert seen == []
    fab.advance(0.0006)
    assert seen == ["in a millisecond"]
    fab.advance(0)
    with pytest.raises(ValueError, match="time does not go back"):
        fab.advance(-1)


def test_messages_fall_due_in_order_and_what_follows_is_handled_in_between(fab):
    class Ticker(Agent):
        def __init__(self, witness):
            self.witness = witness

        def on_message(self, body):
            self.context.tell(self.witness, body)
            if body < 3:
                self.context.tell_later(10, self.ref, body + 1)

    recorder, seen = _recorder(fab)
    tickers = fab.spawn_batch(Ticker, 1, witness=recorder)
    tickers[0].tell(0)
    fab.advance(5)
    fab.spawn_batch(Ticker, 1, witness=recorder)[0].tell(2)
    for seconds, expected in ((4, [0, 2]), (2, [0, 2, 1]), (4, [0, 2, 1, 3]), (100, [0, 2, 1, 3, 2, 3])):
        fab.advance(seconds)
        assert seen == expected


def test_an_ask_that_only_time_can_answer_lets_it_pass_up_to_its_timeout(fab):
    alarm = fab.spawn_batch(Alarm, 1)[0]
    assert alarm.ask(3_600) == "awake"
    with pytest.raises(TimeoutError):
        alarm.ask(3_600, timeout=60)
    assert alarm.submit(3_600).result() == "awake"

    async def main():
        return await alarm.ask_async(3_600)

    assert asyncio.run(main()) == "awake"


def test_waves_take_no_time(fab):
    before = fab._turns.now
    waves = list(fab.spawn_waves(Counter, 30, wave_size=10, interval=3_600))

    assert [wave.seconds for wave in waves] == [0.0] * 3
    assert fab._turns.now - before == 7_200


def test_what_a_coroutine_awaits_outside_takes_its_real_time(fab):
    class Sleepy(Agent):
        async def on_message(self, body):
            await asyncio.sleep(body)
            return await asyncio.get_running_loop().run_in_executor(None, lambda: body)

    sleepy = fab.spawn_batch(Sleepy, 1)[0]
    assert sleepy.ask(0.01) == 0.01
    with pytest.raises(TimeoutError):
        sleepy.ask(30, timeout=0.01)
    sleepy.stop()


# Asyncio.


def test_in_an_event_loop_messages_are_handled_in_its_next_pass(fab):
    recorder, seen = _recorder(fab)

    async def main():
        recorder.tell(1)
        assert seen == []
        await asyncio.sleep(0)
        assert seen == [1]

    asyncio.run(main())


def test_coroutines_run_in_the_event_loop_that_runs(fab):
    class Noting(Agent):
        async def on_message(self, body):
            await asyncio.sleep(0)
            return id(asyncio.get_running_loop())

    noting = fab.spawn_batch(Noting, 1)[0]

    async def main():
        there = await asyncio.gather(*[noting.ask_async(number) for number in range(3)])
        return set(there) == {id(asyncio.get_running_loop())}

    assert asyncio.run(main())
    assert noting.ask(3) == id(fab._turns.own_loop)


def test_an_async_with_waits_for_coroutines_and_closes():
    async def main():
        async with InlineFabric(workers=1) as fab:
            agent = fab.spawn_batch(Overlapping, 1)[0]
            recorder, seen = _recorder(fab)
            agent.tell("told")
            relay = fab.spawn_batch(Asker, 1)[0]
            relay.tell((recorder, "asked"))
        assert seen == ["asked"]
        assert repr(fab) == "<Fabric: closed>"

    asyncio.run(main())


def test_an_unclosed_one_warns():
    fab = InlineFabric(workers=1)
    with pytest.warns(ResourceWarning, match="unclosed"):
        fab.__del__()


# Large bodies.


def test_what_was_lent_is_the_receivers_own_and_goes_back():
    with InlineFabric(workers=2, arena_bytes=1 << 20) as fab:
        first, second = fab.spawn_batch(Keeps, 2)
        with fab.loan(200_000, "u1") as array:
            array[:] = 1
            first.tell(array)
            array[:] = 2
            second.tell(array)  # a second time, as it is now
            assert fab._arena.usage()[3] == 2, "lent, and in a queue"
            fab.drain()
            assert fab._arena.usage()[3:] == (0, 1 << 20, 1)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 3
        kept = [first.ask("look"), second.ask("look")]
        assert kept[0].tobytes() in (b"\1" * 200_000, b"\2" * 200_000), "until it is received, writing may be seen"
        kept[0][:] = kept[1][:] = 9
        assert second.ask("look").tobytes() == b"\2" * 200_000
        assert (array == 2).all()
        del array
        assert fab._arena.usage()[3:] == (0, 1 << 20, 0)


def test_a_full_arena_is_an_error_at_once_where_nobody_can_give_back():
    with InlineFabric(workers=1, arena_bytes=1 << 20) as fab:
        (keeper,) = fab.spawn_batch(Keeps, 1)
        with fab.loan((1 << 20) - 4096, "u1") as full:
            with pytest.raises(BackpressureError, match="600,000 bytes was asked for"):
                keeper.tell(bytes(600_000))
            with pytest.raises(TimeoutError, match="600,000 bytes was asked for"):
                keeper.ask(bytes(600_000), timeout=5)
        del full
        assert keeper.ask(bytes(600_000)) == 600_000


class Keeps(Agent):
    """Keeps what comes, and shows it."""

    def on_message(self, body):
        if isinstance(body, str):
            return self.kept
        self.kept = body
        return len(body)
