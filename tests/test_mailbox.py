"""Agents whose on_message is a coroutine: what is in hand, in which order, and what becomes of it when they stop."""

import asyncio

import pytest

from fabric import Agent, AgentNotFoundError
from fabric.messages import REPLY, SpawnOrder
from fabric.remote_errors import revive
from tests.hosts import ASKED, STRANGER, World


class Gated(Agent):
    """Notes what it begins and ends; a message ends when its gate is opened."""

    def __init__(self):
        self.begun, self.ended, self.gates = [], [], {}

    async def on_message(self, body):
        self.begun.append(body)
        gate = self.gates[body] = asyncio.Event()
        await gate.wait()
        self.ended.append(body)
        if body == "raise":
            raise ValueError("at the gate")
        return body

    def on_stop(self):
        self.ended.append("stopped")


class ThreeGates(Gated):
    """As Gated, with three messages in hand at once."""

    max_concurrency = 3


class Coroutines(World):
    """A host with an event loop that turns when it is told to."""

    def turn(self):
        """Let coroutines run until each awaits something."""
        loop = self.host.loop()
        for _ in range(5):
            loop.call_soon(loop.stop)
            loop.run_forever()

    def replies(self, process=0):
        """Take what was answered: the index of each question and the answer."""
        return {correlation - ASKED: body for kind, _, _, correlation, body in self.sent(process) if kind == REPLY}


@pytest.fixture
def world():
    made = Coroutines()
    yield made
    made.host.residents.stop_all()
    made.turn()
    made.host.loop().close()


def _install(world, agent):
    world.host.residents.install(5, agent, SpawnOrder(b"", b"", None))
    return agent


def test_one_message_is_in_hand_at_a_time_and_the_next_waits(world):
    agent = _install(world, Gated())
    assert world.handle([(5, "a"), (5, "b")]) == [..., ...]
    stretch = world.host.stretch
    world.turn()
    assert (agent.begun, stretch.in_hand, world.host.busy_coroutines) == (["a"], 2, True)
    agent.gates["a"].set()
    world.turn()
    assert (agent.begun, agent.ended) == (["a", "b"], ["a"])
    assert world.replies() == {0: "a"}
    agent.gates["b"].set()
    world.turn()

    assert world.replies() == {1: "b"}
    assert [ticket.stretch for ticket in world.host.finished] == [stretch, stretch]
    assert not world.host.busy_coroutines


def test_as_many_are_in_hand_as_the_agent_says_and_end_in_any_order(world):
    agent = _install(world, ThreeGates())
    world.handle([(5, number) for number in range(5)])
    world.turn()
    assert agent.begun == [0, 1, 2]
    for number in (1, 2):
        agent.gates[number].set()
    world.turn()

    assert agent.begun == [0, 1, 2, 3, 4]
    assert agent.ended == [1, 2]
    assert world.replies() == {1: 1, 2: 2}


def test_a_coroutine_that_raises_answers_with_the_error_and_the_next_begins(world):
    agent = _install(world, Gated())
    world.handle([(5, "raise"), (5, "b")])
    world.turn()
    agent.gates["raise"].set()
    world.turn()

    assert str(revive(world.replies()[0]).__cause__) == "at the gate"
    assert agent.begun == ["raise", "b"]
    assert world.host.errors == 1


def test_a_told_message_whose_coroutine_raises_is_reported(world):
    agent = _install(world, Gated())
    world.handle([(5, "raise")], correlation=0, sender=STRANGER)
    world.turn()
    agent.gates["raise"].set()
    world.turn()
    [(address, sender, error)] = world.failures()

    assert (address, sender, str(error.__cause__)) == (5, STRANGER, "at the gate")


def test_the_context_of_a_coroutine_is_that_of_its_own_message(world):
    seen = []

    class Looker(Agent):
        max_concurrency = 10

        async def on_message(self, body):
            for _ in range(3):
                seen.append((body, self.context.correlation_id - ASKED))
                await asyncio.sleep(0)

    _install(world, Looker())
    world.handle([(5, number) for number in range(3)])
    world.turn()

    assert len(seen) == 9
    assert all(body == index for body, index in seen)


def test_stopping_cancels_what_is_in_hand_and_refuses_what_waits(world):
    agent = _install(world, Gated())
    world.handle([(5, "a"), (5, "b"), (5, "c")])
    world.turn()
    world.host.residents.stop([5])
    assert agent.ended == ["stopped"]
    assert 5 in world.host.mailboxes, "until its last coroutine has ended"
    world.turn()

    assert {index: type(revive(info)) for index, info in world.replies().items()} == {
        1: AgentNotFoundError,
        2: AgentNotFoundError,
        0: AgentNotFoundError,
    }
    assert len(world.host.finished) == 3
    assert world.host.mailboxes == {}
    assert not world.host.busy_coroutines


def test_an_agent_with_nothing_in_hand_is_gone_as_soon_as_it_stops(world):
    agent = _install(world, Gated())
    world.host.residents.stop([5, 5])

    assert agent.ended == ["stopped"]
    assert world.host.mailboxes == {}


def test_what_a_coroutine_sends_wakes_whoever_sleeps_in_the_event_loop(world):
    woken = []

    class Teller(Agent):
        async def on_message(self, body):
            self._host.ref_to(STRANGER).tell(body)
            woken.append(list(woken))
            self.context.tell_later(1, self._host.ref_to(STRANGER), body)

    _install(world, Teller())
    world.handle([(5, "hello")])
    world.host.wake = lambda: woken.append("woken")
    world.turn()

    assert woken[:2] == ["woken", ["woken"]]
    assert woken.count("woken") >= 3, "for the tell, the tell_later and the reply"
    assert [body for *_, body in world.sent(2)] == ["hello"]
