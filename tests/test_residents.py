"""Agents come into a host and leave it: what cannot be made or started is reported, and leaves no trace."""

from array import array

import pytest

from fabric import AgentNotFoundError, EncodingError
from fabric.messages import COORDINATOR, PrewarmOrder, SpawnOrder
from fabric.orders import encode_order
from fabric.remote_errors import revive
from tests.agents import Echo
from tests.api_agents import Batcher, Made, Picky
from tests.hosts import World


@pytest.fixture
def world():
    return World()


def test_agents_that_cannot_be_made_or_started_are_reported_and_gone(world):
    (good, *bad), failures = world.spawn(Picky, 3, each={"refuse": ["", "init", "start"]})

    assert {position: str(revive(info).__cause__) for position, info in failures.items()} == {
        1: "refused in __init__",
        2: "refused in on_start",
    }
    assert world.host.count == 1
    assert world.handle([(good, 1), *((address, 1) for address in bad)])[0] == 1


def test_an_agent_that_did_not_start_leaves_no_trace(world):
    class Late(Batcher):
        encoding = "json"

        def on_start(self):
            raise ValueError("not today")

    [address], failures = world.spawn(Late, once=True)
    echo = world.one(Echo)

    assert list(failures) == [0]
    world.host.begin(world.batch([(address, 1), (echo, 2)]))
    assert world.host.handle(0) == 2, "one slice: nobody here runs once"
    assert isinstance(revive(world.host.values[0]), AgentNotFoundError)
    assert world.host.json_choices == {}


def test_a_recipe_that_cannot_be_read_fails_the_whole_order(world):
    failures = world.host.residents.spawn(SpawnOrder(array("Q", [1, 2]).tobytes(), b"\xff", None))

    assert sorted(failures) == [0, 1]
    assert isinstance(revive(failures[0]), EncodingError)
    assert "cannot be had in the worker: UnpicklingError" in str(revive(failures[0]))


def test_stop_runs_on_stop_once_and_reports_what_it_raises(world):
    picky, echo = world.one(Picky, refuse="stop"), world.one(Echo)
    for _ in range(2):
        world.host.residents.stop([picky, 99])
    [(address, sender, error)] = world.failures()

    assert (address, sender, str(error.__cause__)) == (picky, COORDINATOR, "refused in on_stop")
    assert world.host.count == 1
    world.host.residents.stop_all()
    assert world.host.count == 0
    assert isinstance(revive(world.handle([(echo, 1)])[0]), AgentNotFoundError)


def test_an_agent_with_on_batch_is_stopped_as_any_other(world):
    stopped = []

    class Last(Batcher):
        def on_stop(self):
            stopped.append(self.sizes)

    world.host.residents.install(5, Last(), SpawnOrder(b"", b"", None))
    world.handle([(5, "a"), (5, "b")])
    world.host.residents.stop([5])

    assert stopped == [[2]]
    assert world.failures() == []


def test_a_spawn_takes_from_the_store_and_the_store_is_refilled(world):
    recipe = encode_order((Made, (), {}))
    world.host.residents.prewarm(PrewarmOrder(recipe, 3))
    made = Made.made
    first = world.one(Made)
    assert (Made.made, world.host.warm.stored) == (made, 2)
    assert world.host.warm.refill_one()
    assert not world.host.warm.refill_one()
    assert world.handle([(first, "number")]) == [made]
    world.spawn(Made, 5)
    assert Made.made == made + 3
    world.host.residents.prewarm(PrewarmOrder(recipe, 0))
    assert not world.host.warm.refill_one()
    assert world.host.warm.stored == 0


def test_a_store_that_cannot_be_filled_is_given_up(world):
    recipe = encode_order((Made, (), {"fail": True}))
    with pytest.raises(ValueError, match="cannot be made"):
        world.host.residents.prewarm(PrewarmOrder(recipe, 3))

    assert world.host.warm.stored == 0
    assert not world.host.warm.refill_one()
