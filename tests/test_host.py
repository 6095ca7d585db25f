"""The agents of a worker, with no worker: batches go in; values, failures and what is sent come out."""

import pytest

from fabric import Agent, AgentError, AgentNotFoundError, EncodingError
from fabric.messages import SpawnOrder
from fabric.remote_errors import Undecodable, revive
from tests.agents import Counter, Echo
from tests.api_agents import Batcher, Raiser
from tests.hosts import STRANGER, World


@pytest.fixture
def world():
    return World()


# Handling.


def test_each_message_is_handled_by_its_agent_and_gives_a_value(world):
    counter, echo = world.one(Counter, start=10), world.one(Echo)

    assert world.handle([(counter, 1), (echo, "a"), (counter, 2)]) == [11, "a", 13]
    assert world.handle([(counter, 3)]) == [16]
    assert world.host.count == 2


def test_an_agent_that_raises_gives_an_error_and_its_neighbours_their_values(world):
    raiser, echo = world.one(Raiser), world.one(Echo)
    values = world.handle([(echo, 1), (raiser, KeyError("gone")), (echo, 2), (raiser, SystemExit)])

    assert values[::2] == [1, 2]
    assert [type(revive(values[i]).__cause__) for i in (1, 3)] == [KeyError, SystemExit]
    assert "test_host" not in values[1].traceback.split("on_message")[1]
    assert world.failures() == [], "whoever asked is told; nobody else"
    assert world.host.errors == 2


def test_a_told_message_that_fails_is_reported_with_its_sender(world):
    raiser = world.one(Raiser)
    world.handle([(raiser, ValueError("in vain"))], correlation=0, sender=STRANGER)
    [(address, sender, error)] = world.failures()

    assert (address, sender) == (raiser, STRANGER)
    assert isinstance(error, AgentError)
    assert isinstance(error.__cause__, ValueError)


def test_a_message_to_nobody_is_answered_so(world):
    echo = world.one(Echo)
    values = world.handle([(echo, 1), (99, 2)])
    world.handle([(99, 3)], correlation=0)

    assert values[0] == 1
    assert isinstance(revive(values[1]), AgentNotFoundError)
    assert [(address, type(error)) for address, _, error in world.failures()] == [(99, AgentNotFoundError)]


def test_a_body_that_could_not_be_read_is_answered_so(world):
    echo = world.one(Echo)
    batch = world.batch([(echo, 1), (echo, 2)])
    batch.bodies[1] = Undecodable(EncodingError("unreadable"))
    world.host.begin(batch)
    assert world.host.handle(0) == 2

    assert world.host.values[0] == 1
    assert str(revive(world.host.values[1])) == "unreadable"
    assert world.host.errors == 1


def test_a_slice_ends_when_replies_have_waited_long_enough():
    world = World(publish_after_us=0)
    echo = world.one(Echo)
    world.host.begin(world.batch([(echo, i) for i in range(100)]))
    behind = [world.host.handle(0)]
    while behind[-1] < 100:
        behind.append(world.host.handle(behind[-1]))

    assert behind == [*range(8, 100, 8), 100], "the clock is read after each eighth message"
    assert world.host.values == [96, 97, 98, 99]


def test_the_cursor_says_which_message_is_in_hand(world):
    seen = []

    class Looker(Agent):
        def on_message(self, body):
            seen.append((body, self._host.cursor[0]))

    looker = Looker()
    world.host.residents.install(5, looker, SpawnOrder(b"", b"", None))
    world.handle([(5, 0), (5, 1)])
    world.handle([(5, 2)])

    assert seen == [(0, 1), (1, 2), (2, 1)]


# on_batch.


def test_messages_to_an_agent_with_on_batch_are_handled_together(world):
    batcher, echo = world.one(Batcher), world.one(Echo)

    assert world.handle([(batcher, 1), (echo, "a"), (batcher, 2)]) == [1, "a", 2]
    assert world.handle([(batcher, "sizes")]) == [[2]]


@pytest.mark.parametrize(
    ("mode", "text"), [("short", "was given 3 messages and returned 2"), ("raise", "no batch today")]
)
def test_an_on_batch_that_fails_fails_its_own_messages(world, mode, text):
    batcher, echo = world.one(Batcher, mode=mode), world.one(Echo)
    values = world.handle([(batcher, 1), (echo, "a"), (batcher, 2), (batcher, 3)])

    assert values[1] == "a"
    assert all(text in str(revive(values[i])) for i in (0, 2, 3))


def test_a_message_that_runs_once_has_a_slice_of_its_own(world):
    [once], _ = world.spawn(Counter, once=True)
    other, batcher = world.one(Echo), world.one(Batcher)
    world.host.begin(world.batch([(other, 0), (once, 1), (batcher, 2), (batcher, 3), (once, 4)]))

    assert [world.host.handle(first) for first in (0, 1, 2, 4)] == [1, 2, 4, 5]
