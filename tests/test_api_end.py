"""What users see of what went wrong unseen, of how it all stands, and of the end, on real workers and inline."""

import asyncio
import contextlib
import dataclasses
import json
import threading

import pytest

from fabric import AgentError, AgentNotFoundError, ClosedError, DeadLetter
from tests.agents import Counter, Echo, Recorder
from tests.api_agents import Raiser
from tests.api_coroutines import Stuck

PATIENCE = 30  # seconds until a test is taken to have failed


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
