"""The fabric as users use it: real workers, real lanes."""

import pytest

from fabric import AgentError, AgentNotFoundError, ClosedError, Fabric
from tests.agents import Counter, Echo, Recorder, Relay


@pytest.fixture(scope="module")
def fab():
    with Fabric(workers=2) as fabric:
        yield fabric


def test_an_ask_returns_what_the_agent_returns(fab):
    counters = fab.spawn_batch(Counter, 3, start=10)

    assert counters[0].ask(5) == 15
    assert counters[0].ask(5) == 20
    assert counters[1].ask(1) == 11


def test_ask_all_and_ask_each_reply_in_order(fab):
    counters = fab.spawn_batch(Counter, 1_000, start=10)

    assert counters.ask_all(1) == [11] * 1_000
    assert counters.ask_each(range(1_000)) == [11 + i for i in range(1_000)]


def test_told_messages_are_handled_in_order_and_drain_waits_for_them(fab):
    recorder = fab.spawn_batch(Recorder, 1)[0]
    for number in range(1_000):
        recorder.tell(number)
    fab.tell_many([recorder] * 1_000, range(1_000, 2_000))
    fab.drain(timeout=30)

    assert recorder.ask("all") == list(range(2_000))


def test_agents_of_different_workers_send_to_each_other(fab):
    recorders = fab.spawn_batch(Recorder, 2)
    relays = fab.spawn_batch(Relay, 2)
    for relay in relays:
        for recorder in recorders:
            relay.tell((recorder, "hello"))
    fab.drain(timeout=30)

    assert recorders.ask_all("all") == [["hello", "hello"]] * 2


def test_an_agent_that_raises_answers_with_an_agent_error_and_lives_on(fab):
    counter = fab.spawn_batch(Counter, 1)[0]
    with pytest.raises(AgentError, match="unsupported operand") as caught:
        counter.ask("not a number")

    assert isinstance(caught.value.__cause__, TypeError)
    assert counter.ask(1) == 1


def test_a_stopped_agent_is_not_found(fab):
    echo = fab.spawn_batch(Echo, 1)[0]
    assert echo.alive
    echo.stop()

    assert not echo.alive
    with pytest.raises(AgentNotFoundError):
        echo.ask(1)


def test_a_future_brings_the_reply(fab):
    echo = fab.spawn_batch(Echo, 1)[0]

    assert [future.result(timeout=30) for future in [echo.submit(i) for i in range(100)]] == list(range(100))


def test_a_closed_fabric_refuses():
    with Fabric(workers=1) as fabric:
        echo = fabric.spawn_batch(Echo, 1)[0]
    with pytest.raises(ClosedError):
        echo.ask(1)
