"""What agents do with the messages they handle, on real workers and inline: batches, coroutines, passing on."""

import pytest

from fabric import AgentError, FabricError, SpawnError
from tests.agents import Counter, Echo, Recorder, Relay
from tests.api_agents import (
    Alarm,
    Batcher,
    Forwarder,
    Made,
    Picky,
    Postponer,
    QuietSummoner,
    Raiser,
    Starter,
    Stopper,
    Waiter,
    WhoAsks,
    Witness,
)
from tests.api_coroutines import Asker, AsyncForwarder, AsyncPostponer, Chained, Overlapping, Summoner, ThreeAtOnce
from tests.api_steps import dead_since, one

PATIENCE = 30  # seconds until a test is taken to have failed


# on_batch.


def test_on_batch_gets_what_came_together_and_answers_each(fab):
    batcher = one(fab, Batcher)
    assert fab.ask_many([batcher] * 200, range(200)) == list(range(200))
    assert batcher.ask("alone") == "alone"
    sizes = batcher.ask("sizes")

    assert sum(sizes) == 201
    assert len(sizes) < 100


def test_on_batch_shares_a_batch_with_agents_that_take_messages_singly(fab):
    batcher, counter = fab.spawn_batch(Batcher, 1, placement=0)[0], fab.spawn_batch(Counter, 1, placement=0)[0]

    assert fab.ask_many([batcher, counter] * 50, [1] * 100) == [
        reply for number in range(50) for reply in (1, number + 1)
    ]


def test_on_batch_may_answer_nothing_at_all(fab):
    batcher = one(fab, Batcher, mode="nothing")

    assert fab.ask_many([batcher] * 3, [1, 2, 3]) == [None] * 3


def test_a_wrong_number_of_replies_is_an_error_for_each_of_the_batch(fab):
    batcher, echo = one(fab, Batcher, mode="short"), one(fab, Echo)
    replies = fab.ask_many([batcher, echo, batcher, batcher], [1, 2, 3, 4], return_exceptions=True)

    assert replies[1] == 2
    for reply in (replies[0], *replies[2:]):
        assert isinstance(reply, AgentError)
        assert "Batcher.on_batch was given" in str(reply)
        assert "return one for each, in order" in str(reply)


def test_an_on_batch_that_raises_is_an_error_for_each_of_the_batch(fab):
    batcher, before = one(fab, Batcher, mode="raise"), len(fab.dead_letters())
    replies = fab.ask_many([batcher] * 3, [1, 2, 3], return_exceptions=True)
    fab.tell_many([batcher] * 2, [1, 2])

    assert [str(reply.__cause__) for reply in replies] == ["no batch today"] * 3
    assert [str(letter.error.__cause__) for letter in dead_since(fab, before)] == ["no batch today"] * 2


# Waiting in handlers.


@pytest.mark.parametrize("how", ["ask", "submit", "ask_group"])
def test_a_handler_that_would_wait_raises_at_once(fab, how):
    waiter, echoes = one(fab, Waiter), fab.spawn_batch(Echo, 2)
    with pytest.raises(AgentError, match=r"ask\(\) in a handler would stop the whole worker") as caught:
        waiter.ask((echoes if how == "ask_group" else echoes[0], how), timeout=PATIENCE)

    assert type(caught.value.__cause__) is FabricError
    assert echoes[0].ask(1) == 1


# Coroutines.


def test_a_coroutine_handles_one_message_at_a_time_in_order(fab):
    agent = one(fab, Overlapping)

    assert fab.ask_many([agent] * 50, range(50), timeout=PATIENCE) == list(range(50))
    assert agent.ask("most") == (1, list(range(50)))


def test_with_max_concurrency_as_many_run_at_once_and_start_in_order(fab):
    agent = one(fab, ThreeAtOnce)

    assert fab.ask_many([agent] * 50, range(50), timeout=PATIENCE) == list(range(50))
    assert agent.ask("most") == (3, list(range(50)))


def test_a_coroutine_may_ask_others_on_any_worker(fab):
    askers = [fab.spawn_batch(Asker, 1, placement=slot)[0] for slot in (0, 1)]
    echoes = [fab.spawn_batch(Echo, 1, placement=slot)[0] for slot in (0, 1)]
    refs = [asker for asker in askers for _ in echoes]

    assert fab.ask_many(refs, [(echo, "hello") for _ in askers for echo in echoes], timeout=PATIENCE) == ["hello"] * 4
    assert askers[0].ask((askers[1], (echoes[0], "deep")), timeout=PATIENCE) == "deep"


def test_a_coroutine_sees_the_errors_of_those_it_asks(fab):
    asker, raiser, echo = one(fab, Asker), one(fab, Raiser), one(fab, Echo)
    with pytest.raises(AgentError, match="KeyError: 'gone'"):
        asker.ask((raiser, KeyError("gone")), timeout=PATIENCE)
    echo.stop()
    with pytest.raises(AgentError, match="AgentNotFoundError"):
        asker.ask((echo, 1), timeout=PATIENCE)


def test_a_coroutine_may_limit_how_long_it_waits(fab):
    asker, postponer = one(fab, Asker), one(fab, Postponer)
    with pytest.raises(AgentError, match="TimeoutError"):
        asker.ask((postponer, ("ask", 0), 0.01), timeout=PATIENCE)
    postponer.tell(("answer", "late"))

    assert asker.ask((postponer, ("nothing", 0)), timeout=PATIENCE) is None


def test_what_a_coroutine_sends_when_it_wakes_up_goes_at_once(fab):
    chained, echo = one(fab, Chained), one(fab, Echo)

    assert chained.ask((echo, 20), timeout=10) == "done"


def test_a_coroutine_that_raises_answers_with_the_error_and_lives_on(fab):
    agent, before = one(fab, Overlapping), len(fab.dead_letters())
    told, asked = {"not": "hashable"}, one(fab, AsyncPostponer)
    asked.tell("raise")
    with pytest.raises(AgentError, match="raised after reply_later"):
        asked.ask("raise", timeout=PATIENCE)

    assert agent.ask(told) == told
    assert [str(letter.error.__cause__) for letter in dead_since(fab, before)] == ["raised after reply_later"]
    assert asked.ask(1, timeout=PATIENCE) == 1


# Answers that come later, or from elsewhere.


def test_an_answer_may_come_later(fab):
    postponer = one(fab, Postponer)
    futures = [postponer.submit(("ask", number)) for number in range(3)]
    postponer.tell(("answer", "now"))

    assert [future.result(timeout=PATIENCE) for future in futures] == ["now"] * 3


def test_an_answer_that_comes_later_may_be_an_error(fab):
    postponer = one(fab, Postponer)
    future = postponer.submit(("ask", 0))
    postponer.tell(("fail", "not today"))

    assert isinstance(future.exception(timeout=PATIENCE).__cause__, ValueError)
    with pytest.raises(AgentError, match="raised after reply_later"):
        postponer.ask(("raise", 0), timeout=PATIENCE)


def test_a_message_can_be_answered_once(fab):
    postponer, before = one(fab, Postponer), len(fab.dead_letters())
    assert postponer.ask(("twice", 0), timeout=PATIENCE) == 1
    postponer.tell(("twice", "forward"))

    assert ["has been answered already" in str(letter.error) for letter in dead_since(fab, before)] == [True] * 2


def test_a_coroutine_may_answer_through_a_handle(fab):
    postponer = one(fab, AsyncPostponer)

    assert fab.ask_many([postponer] * 3, [1, 2, 3], timeout=PATIENCE) == [1, 2, 3]


@pytest.mark.parametrize("kind_of_agent", [Forwarder, AsyncForwarder])
def test_a_message_may_be_passed_on_and_is_answered_by_the_other(fab, kind_of_agent):
    forwarders = [fab.spawn_batch(kind_of_agent, 1, placement=slot)[0] for slot in (0, 1)]
    others = [fab.spawn_batch(WhoAsks, 1, placement=slot)[0] for slot in (0, 1)]
    refs = [forwarder for forwarder in forwarders for _ in others] * 20
    bodies = [(other,) for _ in forwarders for other in others] * 20
    replies = fab.ask_many(refs, bodies, timeout=PATIENCE)

    assert [sender for sender, _ in replies] == [None] * 80
    assert len({correlation for _, correlation in replies}) == 80
    echo = one(fab, Echo)
    assert forwarders[0].ask((echo, "another body"), timeout=PATIENCE) == "another body"
    assert forwarders[0].ask((echo,), timeout=PATIENCE) == (echo,)


def test_a_told_message_may_be_passed_on(fab):
    recorder, forwarder = one(fab, Recorder), one(fab, Forwarder)
    fab.tell_many([forwarder] * 3, [(recorder, number) for number in range(3)])
    fab.drain(timeout=PATIENCE)

    assert recorder.ask("all") == [0, 1, 2]


def test_what_cannot_be_passed_on_is_answered_with_the_error(fab):
    echo, forwarder = one(fab, Echo), one(fab, Forwarder)
    echo.stop()
    with pytest.raises(AgentError, match="AgentNotFoundError"):
        forwarder.ask((echo,), timeout=PATIENCE)


# The context.


def test_an_agent_knows_who_sent_it_a_message(fab):
    who, asker, recorder = one(fab, WhoAsks), one(fab, Asker), one(fab, Witness)
    relay = one(fab, Relay)
    sender, correlation = who.ask(0)
    assert sender is None
    assert correlation > 0
    assert asker.ask((who, 0), timeout=PATIENCE)[0] == asker
    relay.tell((recorder, "hello"))
    recorder.tell("from outside")

    assert sorted(recorder.ask(("await", 2), timeout=PATIENCE), key=lambda item: item[1]) == [
        (None, "from outside"),
        (relay, "hello"),
    ]


def test_the_context_says_when_there_is_no_message_in_hand(fab):
    class Hasty(Starter):
        def on_start(self):
            self.context.sender  # noqa: B018

    with pytest.raises(SpawnError, match="no message is in hand"):
        fab.spawn_batch(Hasty, 1, witness=None)


def test_a_message_may_be_sent_later(fab):
    alarm, witness = one(fab, Alarm), one(fab, Witness)
    assert alarm.ask(0.001, timeout=PATIENCE) == "awake"
    alarm.tell((witness, ["as it was"]))

    assert witness.ask(("await", 1), timeout=PATIENCE) == [(alarm, ["as it was"])]


def test_what_is_to_be_sent_later_must_be_sendable_now(fab):
    alarm, before = one(fab, Alarm), len(fab.dead_letters())
    echo = one(fab, Echo)
    echo.stop()
    alarm.tell((echo, "nobody there"))

    assert "AgentNotFoundError" in str(dead_since(fab, before)[0].error)


def test_an_agent_may_have_agents_spawned_and_use_them(fab):
    summoner = one(fab, Summoner)
    group = summoner.ask((Counter, 10, {"start": 5, "name": "summoned"}), timeout=PATIENCE)

    assert group.ask_all(1) == [6] * 10
    assert fab.find("summoned-9") == group[9]
    with pytest.raises(AgentError, match="SpawnError: 1 of 1 agents of Made could not be made") as caught:
        summoner.ask((Made, 1, {"fail": True}), timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, SpawnError)
    with pytest.raises(AgentError, match=r"subclass of fabric\.Agent"):
        summoner.ask((dict, 1, {}), timeout=PATIENCE)


def test_an_agent_need_not_wait_for_those_it_has_spawned(fab):
    summoner, witness = one(fab, QuietSummoner), one(fab, Witness)
    summoner.tell((Starter, 3, {"witness": witness}))

    assert len(witness.ask(("await", 3), timeout=PATIENCE)) == 3


def test_an_agent_may_stop_itself_and_others(fab):
    witness, stopper = one(fab, Witness), one(fab, Stopper)
    victims = fab.spawn_batch(Picky, 2, witness=witness)
    stopper.tell(victims[0])
    assert witness.ask(("await", 1), timeout=PATIENCE) == [(victims[0], "stopped")]
    stopper.tell(victims[1])
    assert len(witness.ask(("await", 2), timeout=PATIENCE)) == 2
    assert not any(ref.alive for ref in victims)

    class LastWords(Stopper):
        def on_stop(self):
            self.context.tell(witness, "gone")

    last = one(fab, LastWords)
    last.tell("self")
    assert witness.ask(("await", 3), timeout=PATIENCE)[2] == (last, "gone")
