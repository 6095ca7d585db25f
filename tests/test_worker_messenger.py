"""What agents send from a worker, with no worker: now or later, with whose name, to whom; and what is refused."""

import threading
from array import array

import pytest

from fabric import (
    AgentError,
    AgentGroup,
    AgentNotFoundError,
    BackpressureError,
    EncodingError,
    FabricError,
    MessageTooLargeError,
)
from fabric.messages import COORDINATOR, MESSAGE, REPLY, REQUEST
from fabric.remote_errors import Undecodable, describe, revive
from fabric.ring import ALIVE, STOPPED
from tests.agents import Echo, Relay
from tests.api_agents import Forwarder, Postponer, WhoAsks
from tests.hosts import ASKED, STRANGER, World


@pytest.fixture
def world():
    return World()


# Sending.


def test_what_a_handler_sends_goes_out_with_its_name(world):
    relay = world.one(Relay)
    stranger = world.host.ref_to(STRANGER)
    world.handle([(relay, 0)])
    batch = world.batch([(relay, None)])
    batch.bodies[0] = (stranger, "hello")
    world.host.begin(batch)
    world.host.handle(0)
    world.host.end()

    assert world.sent(2) == [(MESSAGE, STRANGER, relay, 0, "hello")]


def test_the_context_knows_the_message_in_hand(world):
    who = world.one(WhoAsks)
    [(sender, correlation)] = world.handle([(who, 0)], sender=STRANGER)
    assert (sender.address, correlation) == (STRANGER, ASKED)
    assert world.handle([(who, 0)], correlation=0) == [(None, 0)]
    for use in (lambda c: c.sender, lambda c: c.correlation_id, lambda c: c.reply_later(), lambda c: c.forward(sender)):
        with pytest.raises(FabricError, match="no message is in hand"):
            use(world.host.context)


def test_a_reply_that_comes_later_goes_to_whoever_asked(world):
    postponer = world.one(Postponer)
    assert world.handle([(postponer, ("ask", 0)), (postponer, ("nothing", 0))], sender=STRANGER) == [..., None]
    world.handle([(postponer, ("answer", "now"))], correlation=0)

    assert world.sent(2) == [(REPLY, STRANGER, postponer, ASKED, "now")]


def test_a_handler_that_raises_before_it_has_answered_answers_with_that(world):
    postponer = world.one(Postponer)
    [value] = world.handle([(postponer, ("raise", 0))])
    assert str(revive(value).__cause__) == "raised after reply_later"
    world.handle([(postponer, ("answer", "too late"))], correlation=0)
    assert "has been answered already" in str(world.failures()[0][2])
    assert world.handle([(postponer, ("twice", 0))]) == [...]
    assert world.sent(0) == [(REPLY, COORDINATOR, postponer, ASKED, 1)]
    assert "has been answered already" in str(world.failures()[0][2]), "nobody else would learn of it"


def test_a_forwarded_message_keeps_its_sender_and_its_question(world):
    forwarder = world.one(Forwarder)
    batch = world.batch([(forwarder, None)], sender=STRANGER)
    batch.bodies[0] = (world.host.ref_to(STRANGER), "another body")
    world.host.begin(batch)
    world.host.handle(0)

    assert 0 in world.host.deferred
    assert world.sent(2) == [(MESSAGE, STRANGER, STRANGER, ASKED, "another body")]


@pytest.mark.parametrize("dead", [STOPPED, ALIVE])
def test_what_cannot_be_forwarded_is_not_deferred(world, dead):
    forwarder = world.one(Forwarder)
    batch = world.batch([(forwarder, None)])
    batch.bodies[0] = (world.host.ref_to(STRANGER), bytes(200_000))
    world.put(STRANGER, 2, dead)
    world.host.begin(batch)
    world.host.handle_one()

    assert world.host.deferred == {}
    expected = AgentNotFoundError if dead == STOPPED else MessageTooLargeError
    assert isinstance(revive(world.host.values[0]).__cause__, expected)


def test_groups_are_told_by_members_and_refused_by_length(world):
    group = AgentGroup(world.host, array("Q", [STRANGER] * 3))
    group.tell_all("all")
    group.tell_each(range(3))
    with pytest.raises(ValueError, match="3 agents and 2 bodies"):
        group.tell_each([1, 2])

    assert [body for *_, body in world.sent(2)] == ["all"] * 3 + [0, 1, 2]


@pytest.mark.parametrize("use", ["ask", "submit", "submit_nowait"])
def test_whatever_would_wait_is_refused(world, use):
    with pytest.raises(FabricError, match="would stop the whole worker"):
        getattr(world.host.ref_to(STRANGER), use)(1)
    for group in (AgentGroup(world.host, array("Q", [STRANGER])), AgentGroup(world.host, array("Q"))):
        with pytest.raises(FabricError, match="would stop the whole worker"):
            group.ask_all(1)


def test_requests_go_to_the_coordinator(world):
    relay = world.one(Relay)
    world.host.begin(world.batch([(relay, 0)]))
    world.host.context.spawn_batch(Echo, 3, name="x")
    world.host.ref_to(STRANGER).stop()
    spawn, stop = world.sent(0)
    world.host.loop().close()

    assert (spawn[0], spawn[2], tuple(spawn[4])) == (REQUEST, relay, (Echo, 3, {"name": "x"}, None))
    assert (stop[0], stop[4]) == (REQUEST, array("Q", [STRANGER]).tobytes())


def test_a_question_is_answered_to_whoever_asked_it_once(world):
    host, stranger = world.host, world.host.ref_to(STRANGER)
    good, bad, unread, ours = (host.ask_async(stranger, i, None) for i in range(4))
    correlations = [correlation for _, _, _, correlation, _ in world.sent(2)]
    answers = ["yes", describe(KeyError("gone"), agent=5), Undecodable(EncodingError("no")), None]
    answers[3] = describe(ValueError("the coordinator's own"))
    try:
        assert all(host.resolve(c, answer) for c, answer in zip(correlations, answers, strict=True))
        assert not any(host.resolve(c, answer) for c, answer in zip(correlations, answers, strict=True))
        assert good.result() == "yes"
        assert isinstance(bad.exception(), AgentError)
        assert isinstance(unread.exception(), EncodingError)
        assert isinstance(ours.exception(), ValueError)
    finally:
        host.loop().close()


def test_a_reply_that_cannot_be_sent_becomes_an_error(world):
    world.host.send_reply(STRANGER, 1, ASKED, bytes(200_000))
    world.host.send_reply(STRANGER, 1, ASKED, threading.Lock())
    errors = [revive(body) for *_, body in world.sent(2)]

    assert [type(error) for error in errors] == [MessageTooLargeError, EncodingError]


def test_a_message_that_finds_nobody_is_answered_or_reported(world):
    world.host._undeliverable(99, STRANGER, ASKED)
    world.host._undeliverable(99, STRANGER, 0)

    [(kind, target, sender, correlation, body)] = world.sent(2)
    assert (kind, target, sender, correlation) == (REPLY, STRANGER, 99, ASKED)
    assert isinstance(revive(body), AgentNotFoundError)
    assert [(a, s, type(e)) for a, s, e in world.failures()] == [(99, STRANGER, AgentNotFoundError)]


# Later.


def test_messages_for_later_go_in_the_order_of_their_times(world):
    now, relay = [100.0], world.one(Relay)
    world.host.clock = lambda: now[0]
    stranger = world.host.ref_to(STRANGER)
    world.host.begin(world.batch([(relay, 0)]))
    for seconds, body in ((3, "third"), (1, ["first"]), (2, "second"), (2, "second too")):
        world.host.context.tell_later(seconds, stranger, body)
    world.host.end()

    assert world.host.due_timers(100.5) == 0.5
    assert world.sent(2) == []
    assert world.host.due_timers(102.0) == 1.0
    assert world.sent(2) == [(MESSAGE, STRANGER, relay, 0, body) for body in (["first"], "second", "second too")]
    assert world.host.due_timers(200.0) is None
    assert [body for *_, body in world.sent(2)] == ["third"]


def test_a_message_for_later_whose_receiver_has_stopped_is_reported(world):
    world.host.clock = lambda: 0.0
    world.host.context.tell_later(1, world.host.ref_to(STRANGER), "x")
    with pytest.raises(EncodingError):
        world.host.context.tell_later(1, world.host.ref_to(STRANGER), threading.Lock())
    world.put(STRANGER, 2, STOPPED)
    with pytest.raises(AgentNotFoundError):
        world.host.context.tell_later(1, world.host.ref_to(STRANGER), "x")
    assert world.host.due_timers(1.0) is None

    assert [(address, type(error)) for address, _, error in world.failures()] == [(STRANGER, AgentNotFoundError)]


def test_a_message_for_later_waits_for_room_in_the_outbox(world, monkeypatch):
    world.host.clock = lambda: 0.0
    world.host.context.tell_later(1, world.host.ref_to(STRANGER), "x")

    def full(*message):
        raise BackpressureError("full")

    with monkeypatch.context() as patch:
        patch.setattr(world.host.outbox, "tell", full)
        assert 0 < world.host.due_timers(1.0) < 1
    assert world.host.due_timers(1.0) is None
    assert [body for *_, body in world.sent(2)] == ["x"]
