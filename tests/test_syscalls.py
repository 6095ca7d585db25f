"""Each system call of a fabric's life killed, or failed with ENOSPC, EMFILE, ENOMEM or EINTR: nothing is lost or left.

A sample runs here, drawn by a seed that is printed; all of it with `pytest -m soak tests/test_syscalls.py`, an hour, of
which `-k` picks a part by role and action. `python -m tests.syscall_runs worker1 kill 17` repeats one run.
"""

import os
import random
import time

import pytest

from tests.syscall_runs import ACTIONS, ROLES, Tracer

SEED = int(os.environ.get("FABRIC_TEST_SEED", random.SystemRandom().randrange(2**32)))
SAMPLE_SECONDS = 8
SAMPLE_MOST = 60
# About how many calls each role makes that may be killed, or fail so; a draw beyond the last does nothing.
CALLS = {
    "coordinator": (500, 2, 60, 170, 130),
    "server1": (2100, 0, 230, 1200, 560),
    "worker1": (560, 0, 50, 300, 80),
    "worker2": (750, 0, 70, 410, 110),
    "worker3": (740, 0, 70, 410, 110),
    "worker4": (240, 0, 25, 135, 30),
}


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    try:
        with Tracer(tmp_path_factory.mktemp("syscalls")) as tracer:
            tracer.run("nobody", "kill", 0, scenario="nothing")
            yield tracer
    except OSError as error:
        pytest.skip(f"SYSTEM CALLS ARE NOT KILLED: no C compiler, or ptrace is not permitted here ({error})")


def _draw(chance, tried):
    """Draw a run that was not tried yet: the role and the action first, so that long lives get no more than others."""
    while True:
        role, action = chance.choice(ROLES), chance.choice(["kill", *ACTIONS])
        when = chance.randint(1, CALLS[role][ACTIONS.index(action)] or 1)
        if (role, action, when) not in tried:
            tried.add((role, action, when))
            return role, action, when


def test_a_sample_of_the_system_calls_may_be_killed_or_fail(tracer):
    print(f"FABRIC_TEST_SEED={SEED}")
    chance, deadline, reached, tried = random.Random(SEED), time.monotonic() + SAMPLE_SECONDS, 0, set()
    while len(tried) < SAMPLE_MOST and time.monotonic() < deadline:
        outcome = tracer.run(*_draw(chance, tried))
        reached += outcome.facts["hit"] != ""
        assert outcome.problem() == "", f"{outcome}, FABRIC_TEST_SEED={SEED}\n{outcome.stderr}"
    assert reached > len(tried) / 2


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("role", ROLES)
def test_every_system_call_may_be_killed_or_fail(tracer, role, action):
    problems, reached, missed, when = [], 0, 0, 0
    while missed < 3:  # how many calls a life has differs a little from one to the next
        when += 1
        outcome = tracer.run(role, action, when)
        missed = 0 if outcome.facts["hit"] else missed + 1
        reached += missed == 0
        if outcome.problem():
            problems.append(f"{outcome}: {outcome.problem()}")
    print(f"{role} {action}: {reached} calls")
    assert problems == []


def test_spawned_workers_may_be_killed_at_a_sample_of_their_calls(tracer):
    chance = random.Random(SEED)
    for role in ("server1", "server3"):  # children of the coordinator: the first worker, and its successor
        outcome = tracer.run(role, "kill", chance.randint(1, 2000), scenario="spawn")
        assert outcome.problem() == "", f"{outcome}, FABRIC_TEST_SEED={SEED}\n{outcome.stderr}"


def test_with_no_descriptor_left_from_some_call_on_there_is_an_error_or_no_need(tracer):
    chance = random.Random(SEED)
    for when in chance.sample(range(1, 60), 5):
        outcome = tracer.run("coordinator", "EMFILE", when, sticky=True)
        assert outcome.problem() == "", f"{outcome}, FABRIC_TEST_SEED={SEED}\n{outcome.stderr}"


# That these tests can fail.


def test_a_process_that_is_left_behind_is_seen_and_killed(tracer):
    outcome = tracer.run("nobody", "kill", 0, scenario="leaves-a-process", grace=0.2)
    assert outcome.problem().startswith("left behind: server1")


def test_a_coordinator_that_hangs_is_seen_and_killed(tracer):
    outcome = tracer.run("nobody", "kill", 0, scenario="hangs", limit=0.5)
    assert outcome.problem().startswith("the coordinator hung")


def test_the_call_that_is_to_be_hit_is_hit(tracer):
    killed = tracer.run("coordinator", "kill", 1)
    assert (killed.facts["hit"], killed.facts["phase"], killed.facts["signal"]) == ("getpgid", 1, 9)  # the mark itself
    [step] = tracer.run("coordinator", "EMFILE", 1, sticky=True).errors
    assert (step["phase"], step["error"]) == (1, "FabricError")
    assert "memfd_create: Too many open files" in step["text"]


def test_a_heap_that_cannot_grow_is_told_as_the_kernel_tells_it(tracer):
    outcomes = [tracer.run("coordinator", "ENOMEM", when, scenario="grows") for when in range(1, 6)]
    assert "brk" in {outcome.facts["hit"] for outcome in outcomes}
    for outcome in outcomes:  # malloc goes on, with memory that it maps
        assert (outcome.facts["signal"], outcome.problem()) == (0, ""), outcome
