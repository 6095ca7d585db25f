import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.waves import Finished, SpawnWave, StopAgents, WaitUntil, Wave, WavePlan


def perform(plan, seconds_per_wave=0.0, failures=lambda index: 0):
    """Carry a plan out on a clock of its own; return the instructions, each with its time."""
    now = 0.0
    log = []
    todo = list(plan.start(now))
    while todo:
        step = todo.pop(0)
        log.append((now, step))
        if isinstance(step, SpawnWave):
            now += seconds_per_wave
            failed = failures(step.index)
            todo += plan.acknowledged(step.index, step.count - failed, failed, now)
        elif isinstance(step, WaitUntil):
            now = step.time
            todo += plan.woke(now)
    return log


def test_waves_cover_the_batch_and_the_last_one_is_the_rest():
    steps = [step for _, step in perform(WavePlan(25, 10))]

    assert steps == [SpawnWave(0, 0, 10), SpawnWave(1, 10, 10), SpawnWave(2, 20, 5), Finished(25, 0)]


def test_nothing_to_spawn_is_finished_at_once():
    assert WavePlan(0, 10).start(5.0) == (Finished(0, 0),)


def test_a_wave_begins_only_after_the_one_before_is_acknowledged():
    plan = WavePlan(20, 10)
    plan.start(0.0)

    with pytest.raises(RuntimeError, match="no wave is waiting"):
        plan.woke(100.0)


def test_the_interval_runs_from_start_to_start():
    starts = [time for time, step in perform(WavePlan(40, 10, interval=1.0), 0.25) if isinstance(step, SpawnWave)]

    assert starts == [0.0, 1.0, 2.0, 3.0]


def test_a_late_wave_starts_at_once_and_no_burst_follows_it():
    plan = WavePlan(40, 10, interval=1.0)
    assert plan.start(0.0) == (SpawnWave(0, 0, 10),)
    assert plan.acknowledged(0, 10, 0, now=3.5) == (SpawnWave(1, 10, 10),)
    assert plan.acknowledged(1, 10, 0, now=3.75) == (WaitUntil(4.5),)
    assert plan.woke(4.5) == (SpawnWave(2, 20, 10),)
    assert plan.acknowledged(2, 10, 0, now=4.5) == (WaitUntil(5.5),)


def test_who_wakes_early_is_told_again_how_long_to_wait():
    plan = WavePlan(20, 10, interval=1.0)
    plan.start(0.0)
    plan.acknowledged(0, 10, 0, now=0.5)

    assert plan.woke(0.75) == (WaitUntil(1.0),)
    assert plan.woke(1.0) == (SpawnWave(1, 10, 10),)


def test_a_failure_does_not_keep_the_next_wave_from_starting_by_default():
    steps = [step for _, step in perform(WavePlan(20, 10), failures=lambda index: 3 * (index == 0))]

    assert steps == [SpawnWave(0, 0, 10), SpawnWave(1, 10, 10), Finished(17, 3)]


def test_stop_ends_with_the_wave_that_failed_and_keeps_what_there_is():
    steps = [step for _, step in perform(WavePlan(30, 10, 0.0, "stop"), failures=lambda index: index)]

    assert steps == [SpawnWave(0, 0, 10), SpawnWave(1, 10, 10), Finished(19, 1)]


def test_rollback_stops_all_that_was_spawned_so_far():
    steps = [step for _, step in perform(WavePlan(30, 10, 0.0, "rollback"), failures=lambda index: index)]

    assert steps == [SpawnWave(0, 0, 10), SpawnWave(1, 10, 10), StopAgents((0, 1)), Finished(0, 1)]


def test_rollback_leaves_out_a_wave_that_spawned_nothing():
    plan = WavePlan(30, 10, 0.0, "rollback")
    plan.start(0.0)
    plan.acknowledged(0, 10, 0, 0.0)
    assert plan.acknowledged(1, 0, 10, 0.0) == (StopAgents((0,)), Finished(0, 10))

    plan = WavePlan(30, 10, 0.0, "rollback")
    plan.start(0.0)
    assert plan.acknowledged(0, 0, 10, 0.0) == (Finished(0, 10),)


def test_a_failure_in_the_last_wave_is_rolled_back_too():
    plan = WavePlan(10, 10, 0.0, "rollback")
    plan.start(0.0)

    assert plan.acknowledged(0, 9, 1, 0.0) == (StopAgents((0,)), Finished(0, 1))


@given(
    st.integers(1, 200),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from(["continue", "stop", "rollback"]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sets(st.integers(0, 200), max_size=3),
)
def test_a_plan_always_finishes_and_its_sums_are_right(count, wave_size, interval, on_failure, takes, failing):
    log = perform(WavePlan(count, wave_size, interval, on_failure), takes, lambda index: int(index in failing))
    waves = [(time, step) for time, step in log if isinstance(step, SpawnWave)]
    failed = sum(step.index in failing for _, step in waves)
    tried = sum(step.count for _, step in waves)

    assert [step.first for _, step in waves] == list(range(0, tried, wave_size))
    assert [step.index for _, step in waves] == list(range(len(waves)))
    assert all(after - before >= max(interval, takes) for (before, _), (after, _) in pairwise(waves))
    if on_failure == "continue" or not failed:
        assert tried == count
    kept = 0 if on_failure == "rollback" and failed else tried - failed
    assert log[-1][1] == Finished(kept, failed)
    assert sum(isinstance(step, Finished) for _, step in log) == 1


@pytest.mark.parametrize("index", [1, -1])
def test_an_acknowledgement_of_another_wave_is_refused(index):
    plan = WavePlan(20, 10)
    plan.start(0.0)

    with pytest.raises(RuntimeError, match=f"wave {index} is not under way"):
        plan.acknowledged(index, 10, 0, 0.0)


def test_a_second_acknowledgement_or_start_is_refused():
    plan = WavePlan(10, 10)
    plan.start(0.0)
    plan.acknowledged(0, 10, 0, 0.0)

    with pytest.raises(RuntimeError, match="wave 0 is not under way; none is"):
        plan.acknowledged(0, 10, 0, 0.0)
    with pytest.raises(RuntimeError, match="started before"):
        plan.start(0.0)


@pytest.mark.parametrize(("spawned", "failed"), [(9, 0), (10, 1), (11, -1), (0, 0)])
def test_an_acknowledgement_that_does_not_add_up_is_refused(spawned, failed):
    plan = WavePlan(20, 10)
    plan.start(0.0)

    with pytest.raises(ValueError, match="do not make wave 0's 10 agents"):
        plan.acknowledged(0, spawned, failed, 0.0)
    assert plan.acknowledged(0, 10, 0, 0.0) == (SpawnWave(1, 10, 10),)


@pytest.mark.parametrize(
    ("arguments", "kind", "name"),
    [
        ((-1, 10), ValueError, "count"),
        ((True, 10), TypeError, "count"),
        ((1.0, 10), TypeError, "count"),
        ((1, 0), ValueError, "wave_size"),
        ((1, None), TypeError, "wave_size"),
        ((1, 1, -0.5), ValueError, "interval"),
        ((1, 1, float("nan")), ValueError, "interval"),
        ((1, 1, float("inf")), ValueError, "interval"),
        ((1, 1, "1"), TypeError, "interval"),
        ((1, 1, 0.0, "retry"), ValueError, "on_failure"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments, kind, name):
    with pytest.raises(kind, match=f"^{name}="):
        WavePlan(*arguments)


@pytest.mark.parametrize(
    ("wave", "text"),
    [
        (Wave(3, 1_000, 0, 0.0123, None), "wave 3: 1,000 spawned, 0 failed in 12.3 ms (81 k/s)"),
        (Wave(0, 100, 7, 0.0123, None), "wave 0: 100 spawned, 7 failed in 12.3 ms (8.1 k/s)"),
        (Wave(0, 5, 0, 2.5, None), "wave 0: 5 spawned, 0 failed in 2.5 s (2 /s)"),
        (Wave(0, 99_990, 0, 10.0, None), "wave 0: 99,990 spawned, 0 failed in 10 s (10 k/s)"),
        (Wave(0, 9_999, 0, 10.0, None), "wave 0: 9,999 spawned, 0 failed in 10 s (1.0 k/s)"),
        (Wave(0, 250_000, 0, 0.2, None), "wave 0: 250,000 spawned, 0 failed in 200.0 ms (1.2 M/s)"),
        (Wave(1, 0, 10, 0.5, None), "wave 1: 0 spawned, 10 failed in 500.0 ms"),
        (Wave(1, 10, 0, 0.0, None), "wave 1: 10 spawned, 0 failed in 0.0 ms"),
    ],
)
def test_a_wave_reads_as_a_line(wave, text):
    assert str(wave) == text


def test_a_wave_is_frozen_and_does_not_print_its_agents():
    wave = Wave(3, 1_000, 0, 0.5, agents=list(range(1_000)))

    with pytest.raises(dataclasses.FrozenInstanceError):
        wave.spawned = 0
    assert repr(wave) == "Wave(index=3, spawned=1000, failed=0, seconds=0.5)"
    assert len(wave.agents) == 1_000
