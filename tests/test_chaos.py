"""Short runs of tests/chaos, and proof that its counting sees what it should. Long ones: python -m tests.chaos."""

import os
import subprocess
import sys

import pytest

from tests.chaos import family, schedule
from tests.chaos.agents import content
from tests.chaos.run import Plan, run
from tests.chaos.tally import BAD, LIVES, NEXT, OVERLAPS, REPEATS, SKIPPED, Tally

SEED = int(os.environ.get("CHAOS_SEED", "3"))


@pytest.mark.parametrize(("mode", "kills"), [("retry", 24), ("fail", 16), ("snapshot", 16)])
def test_nothing_is_lost_or_doubled_or_hangs_though_any_worker_is_killed(mode, kills):
    outcome = run(Plan(SEED, kills, mode=mode, patience=30.0))
    print(outcome)
    assert outcome.problems == [], str(outcome)
    assert outcome.figures["kills"] >= kills * 0.8, "some blows find nobody there"


@pytest.mark.parametrize("assault", family.draw(SEED, len(family.ORDERS)), ids=family.ORDERS)
def test_a_program_that_is_killed_in_any_order_leaves_nothing(assault):
    killed, problems = family.run(assault)
    assert problems == [], str(assault)
    assert killed > 0


def test_the_seed_draws_the_same_blows_again():
    assert schedule.draw(7, 1_000) == schedule.draw(7, 1_000)
    assert schedule.draw(7, 100) != schedule.draw(8, 100)
    assert family.draw(7, 100) == family.draw(7, 100)


def test_every_act_is_drawn_and_without_the_server_none_of_its_own():
    assert {blow.act for blow in schedule.draw(1, 1_000)} == set(schedule._ACTS)
    assert not any("server" in blow.act for blow in schedule.draw(1, 1_000, server=False))


@pytest.fixture
def tally(tmp_path):
    made = Tally(str(tmp_path / "tally"), 2, 100, create=True)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("messages", "repeats", "skipped"),
    [([0, 1, 2, 3], 0, 0), ([0, 1, 0, 1, 2], 2, 0), ([0, 2, 3], 0, 1), ([0, 3, 1, 2], 2, 2)],
    ids=["in order", "repeated from a point", "one lost", "overtaken"],
)
def test_the_tally_sees_repeats_losses_and_overtaking(tally, messages, repeats, skipped):
    for message in messages:
        tally.begun(1, message, True)
    words = tally.words(1)

    assert (words[NEXT], words[REPEATS], words[SKIPPED]) == (max(messages) + 1, repeats, skipped)
    assert tally.runs(1, 4) == bytes(map(messages.count, range(4)))
    assert not any(tally.words(0))
    words.release()


def test_the_tally_sees_other_content(tally):
    tally.begun(0, 0, content(0, 0) == content(0, 1))
    assert tally.words(0)[BAD] == 1


OTHER = "import sys, time; from tests.chaos.tally import Tally; Tally(sys.argv[1], 2, 100).made(0); print(); input()"


@pytest.mark.parametrize("ended", [True, False])
def test_the_tally_sees_two_processes_that_host_one_agent(tally, ended):
    command = [sys.executable, "-c", OTHER, tally.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        if ended:
            other.communicate(b"\n")
        tally.made(0)
    assert (tally.words(0)[OVERLAPS], tally.words(0)[LIVES]) == (0 if ended else 1, 2)
