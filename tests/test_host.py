"""The agents of a worker, with no worker: batches go in; values, failures and what is sent come out."""

import threading
from array import array

import pytest

from fabric import (
    Agent,
    AgentError,
    AgentGroup,
    AgentNotFoundError,
    BackpressureError,
    EncodingError,
    FabricConfig,
    FabricError,
    MessageTooLargeError,
)
from fabric.codec import Codec, Undecodable, describe, encode_order, revive
from fabric.inline_lanes import Batch, Lanes, Outbox, Record
from fabric.messages import COORDINATOR, MESSAGE, REPLY, REQUEST, PrewarmOrder, SpawnOrder
from fabric.ring import ALIVE, STOPPED
from fabric.workers.host import Host
from tests.agents import Counter, Echo, Relay
from tests.api_agents import Batcher, Forwarder, Made, Picky, Postponer, Raiser, WhoAsks

CONFIG = FabricConfig(max_agents=50)
SLOT = 1
ASKED = 7 << 20  # a correlation id
STRANGER = 1 << 32 | 40  # an agent of another worker


class World:
    """One host, and the lanes that its agents send to."""

    def __init__(self, publish_after_us=1e12):
        self.codec = Codec()
        self.lanes = Lanes(CONFIG, 3)
        self.host = Host(77, self.codec, Outbox(self.lanes, CONFIG), self.lanes.table, publish_after_us)
        self.put(STRANGER, 2)
        self._next = 1

    def put(self, address, slot, state=ALIVE):
        self.lanes.write_table(array("Q", [address]), array("H", [slot]), state)

    def spawn(self, kind, count=1, each=None, once=False, **kwargs):
        """Return (addresses, failures)."""
        addresses = array("Q", [1 << 32 | self._next + i for i in range(count)])
        self._next += count
        for address in addresses:
            self.put(address, SLOT)
        recipe = encode_order((kind, (), kwargs))
        return list(addresses), self.host.residents.spawn(SpawnOrder(addresses.tobytes(), recipe, each, once))

    def one(self, kind, **kwargs):
        (address,), failures = self.spawn(kind, **kwargs)
        assert failures == {}
        return address

    def batch(self, messages, correlation=ASKED, sender=COORDINATOR):
        """Make a batch of (target, body)."""
        records = []
        for index, (target, body) in enumerate(messages):
            encoding, data = self.codec.encode(body)
            records.append(Record(MESSAGE, encoding, target, sender, correlation and correlation | index, data))
        return Batch(records, self.codec)

    def handle(self, messages, **options):
        """Handle a whole batch; return the values, an index that is deferred as ... ."""
        batch = self.batch(messages, **options)
        self.host.begin(batch)
        values, first = [], 0
        while first < batch.count:
            behind = self.host.handle(first) if batch.count > 1 else self.host.handle_one()
            values += [... if first + i in self.host.deferred else value for i, value in enumerate(self.host.values)]
            first = behind
        self.host.end()
        return values

    def sent(self, process):
        """Take what was sent to a process: (kind, target, sender, correlation, body) of each."""
        queue = self.lanes.queues[process]
        found = [(r.kind, r.target, r.sender, r.correlation, self.codec.decode(r.encoding, r.body)) for r in queue]
        queue.clear()
        return found

    def failures(self):
        failures, self.host.failures = self.host.failures, []
        return [(address, sender, revive(info)) for address, sender, info in failures]


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


# Spawning and stopping.


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
