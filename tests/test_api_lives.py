"""How agents start and stop, and workers come and go, on real workers and inline."""

import pytest

from tests.agents import Counter, Recorder
from tests.api_agents import Picky, Postponer, Starter, Witness
from tests.api_coroutines import Stuck

PATIENCE = 30  # seconds until a test is taken to have failed


# Start and stop.


def test_an_agent_knows_itself_and_may_send_when_it_starts(fab):
    witness = fab.spawn_batch(Witness, 1)[0]
    starters = fab.spawn_batch(Starter, 4, witness=witness)
    heard = witness.ask(("await", 4), timeout=PATIENCE)

    assert {ref for _, ref in heard} == set(starters)
    assert all(sender == ref for sender, ref in heard)


def test_stop_lets_an_agent_handle_what_was_sent_before_and_runs_on_stop(fab):
    witness = fab.spawn_batch(Witness, 1)[0]
    picky = fab.spawn_batch(Picky, 4, witness=witness)
    futures = [ref.submit(1) for ref in picky]
    picky[0].stop()
    assert [ref.alive for ref in picky] == [False, True, True, True]
    picky[1:].stop(timeout=PATIENCE)
    picky.stop()

    assert [future.result(timeout=PATIENCE) for future in futures] == [1] * 4
    assert [body for _, body in witness.ask(("await", 4), timeout=PATIENCE)] == ["stopped"] * 4


def test_an_on_stop_that_raises_is_a_dead_letter(fab):
    before = len(fab.dead_letters())
    picky = fab.spawn_batch(Picky, 1, refuse="stop")[0]
    picky.stop()
    fab.drain(timeout=PATIENCE)

    letter = fab.dead_letters()[before]
    assert (letter.agent, str(letter.error.__cause__)) == (picky.address, "refused in on_stop")


def test_the_index_of_a_stopped_agent_is_used_again_under_another_address(kind):
    with kind(workers=1, max_agents=2) as fab:
        first = fab.spawn_batch(Counter, 2)
        old = first[0]
        first.stop()
        second = fab.spawn_batch(Recorder, 2)

        assert not old.alive
        assert not set(first.addresses) & set(second.addresses)
        assert "(generation 2)" in repr(second[0])
        assert second.ask_all("all") == [[], []]


def test_what_a_coroutine_has_in_hand_when_its_agent_stops_is_refused(fab):
    stuck = fab.spawn_batch(Stuck, 1)[0]
    futures = [stuck.submit(number) for number in range(3)]
    stuck.stop(timeout=PATIENCE)

    assert [type(future.exception(timeout=PATIENCE)).__name__ for future in futures] == ["AgentNotFoundError"] * 3
    fab.drain(timeout=PATIENCE)


def test_many_batches_come_and_go(fab):
    for number in range(200):
        counters = fab.spawn_batch(Counter, 2, start=number)
        assert counters.ask_all(1) == [number + 1] * 2
        counters.stop()


def test_a_message_may_be_answered_by_an_agent_that_is_about_to_stop(fab):
    postponer = fab.spawn_batch(Postponer, 1)[0]
    future = postponer.submit(("ask", 0))
    postponer.tell(("answer", "just in time"))
    postponer.stop()

    assert future.result(timeout=PATIENCE) == "just in time"


# Size.


def test_workers_can_be_added_and_sent_away(kind):
    with kind(workers=1, max_workers=3) as fab:
        first = fab.spawn_batch(Counter, 2)
        for _ in range(3):
            fab.resize(3)
            more = fab.spawn_batch(Counter, 6)
            assert [worker.agents for worker in fab.statistics().workers][1:] == [2, 2]
            with pytest.raises(ValueError, match=r"workers in slots \[2, 3\] still have agents"):
                fab.resize(1)
            more.stop()
            fab.resize(1)
            assert len(fab.statistics().workers) == 1
        fab.resize(1)
        assert first.ask_all(1) == [1, 1]
        for wrong in (0, 4, -1):
            with pytest.raises(ValueError, match="must be from 1 to max_workers=3"):
                fab.resize(wrong)
