"""What agents send to others, on real workers and inline: groups, order, and what there is no room for."""

import pytest

from fabric import AgentNotFoundError, BackpressureError, Fabric
from tests.agents import Echo, Gate, Recorder, Relay
from tests.api_agents import Shouter
from tests.api_coroutines import Hop
from tests.api_steps import dead_since, one

PATIENCE = 30  # seconds until a test is taken to have failed


def _fill_lane_of(agent):
    for sent in range(10_000):
        try:
            agent.tell_nowait(b"x" * 64)
        except BackpressureError:
            return sent
    raise AssertionError("the lane took 10,000 messages and was not full")


def test_references_and_groups_travel_in_messages_and_work_where_they_arrive(fab):
    shouter, recorders = one(fab, Shouter), fab.spawn_batch(Recorder, 4, name="listener")
    echo = one(fab, Echo)
    returned = echo.ask({"one": recorders[0], "all": recorders, "some": recorders[1:3]})
    assert returned["one"] == recorders[0]
    assert list(returned["all"]) == list(recorders)
    assert [ref.name for ref in returned["some"]] == ["listener-1", "listener-2"]
    shouter.tell(("all", recorders, "hello"))
    shouter.tell(("each", returned["some"], [1, 2]))
    shouter.tell(("once", recorders[3], "you"))
    fab.drain(timeout=PATIENCE)

    assert returned["all"].ask_all("all") == [["hello"], ["hello", 1], ["hello", 2], ["hello", "you"]]


def test_a_handler_that_tells_a_group_the_wrong_number_of_bodies_sends_nothing(fab):
    shouter, recorders, before = one(fab, Shouter), fab.spawn_batch(Recorder, 3), len(fab.dead_letters())
    shouter.tell(("each", recorders, [1, 2]))

    assert "3 agents and 2 bodies" in str(dead_since(fab, before)[0].error)
    assert recorders.ask_all("all") == [[]] * 3


def test_what_an_agent_tells_a_stopped_one_raises_in_its_handler(fab):
    relay, echo, before = one(fab, Relay), one(fab, Echo), len(fab.dead_letters())
    echo.stop()
    relay.tell((echo, 1))

    letter = dead_since(fab, before)[0]
    assert letter.agent == relay.address
    assert isinstance(letter.error.__cause__, AgentNotFoundError)


def test_what_agents_send_arrives_in_order(fab):
    shouters = [fab.spawn_batch(Shouter, 1, placement=slot)[0] for slot in (0, 1)]
    recorder = one(fab, Recorder)
    for number in range(1_000):
        shouters[number % 2].tell(("once", recorder, number))
    fab.drain(timeout=PATIENCE)
    seen = recorder.ask("all")

    assert [number for number in seen if number % 2 == 0] == list(range(0, 1_000, 2))
    assert [number for number in seen if number % 2 == 1] == list(range(1, 1_000, 2))


def test_a_handler_that_sends_more_than_the_outbox_takes_is_told(kind):
    with kind(workers=2, outbox_bytes=2**16) as fab:
        shouter, recorder = fab.spawn_batch(Shouter, 1, placement=0)[0], fab.spawn_batch(Recorder, 1, placement=1)[0]
        sent = shouter.ask(("many", recorder, b"x" * 1_000), timeout=PATIENCE)
        fab.drain(timeout=PATIENCE)

        assert 20 < sent < 64
        assert recorder.ask("all") == [b"x" * 1_000] * sent
        assert shouter.ask(("many", recorder, b"x" * 1_000), timeout=PATIENCE) > 0, "there is room again"


def test_a_full_lane_refuses_whoever_does_not_wait(kind, tmp_path):
    with kind(workers=1, lane_bytes=2**16, drain=False) as fab:
        gates = fab.spawn_batch(Gate, 2, path=str(tmp_path / "open"))
        fab.drain(timeout=PATIENCE)
        gates[0].tell("wait")
        sent = _fill_lane_of(gates[1])
        with pytest.raises(BackpressureError):
            gates[1].submit_nowait(b"x" * 64)
        (tmp_path / "open").touch()

        assert gates[1].ask("count", timeout=PATIENCE) == sent


def test_coroutines_that_ask_each_other_need_no_more_room_than_the_lanes_have(kind):
    with kind(workers=2) as fab:
        hops = fab.spawn_batch(Hop, 2)
        chains = 1_000 if kind is Fabric else 50
        replies = fab.ask_many([hops[0]] * chains, [(8, list(hops))] * chains, timeout=60)
        assert replies == [8] * chains
