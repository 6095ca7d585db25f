import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.restart import GiveUp, RestartAfter, RestartPolicy


def test_the_first_restart_is_immediate_and_the_next_wait_twice_as_long_each():
    policy = RestartPolicy(max_restarts=10, restart_window=60.0)
    delays = [policy.died(0.0, progressed=False).delay for _ in range(10)]

    assert delays == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_one_death_more_than_allowed_within_the_window_gives_up():
    policy = RestartPolicy(max_restarts=3, restart_window=5.0)

    assert all(isinstance(policy.died(0.1 * i, progressed=False), RestartAfter) for i in range(3))
    decision = policy.died(0.4, progressed=False)
    assert isinstance(decision, GiveUp)
    assert "died 4 times within 5 s" in decision.reason
    assert "max_restarts=3, restart_window=5" in decision.reason


def test_deaths_farther_apart_than_the_window_are_restarted_at_once_for_ever():
    policy = RestartPolicy(max_restarts=1, restart_window=5.0)

    assert [policy.died(5.1 * i, progressed=False) for i in range(20)] == [RestartAfter(0.0)] * 20


def test_a_death_at_the_very_end_of_the_window_still_counts():
    policy = RestartPolicy(max_restarts=1, restart_window=5.0)
    policy.died(0.0, progressed=False)

    assert isinstance(policy.died(5.0, progressed=False), GiveUp)


def test_a_death_after_progress_is_restarted_at_once_and_wipes_the_slate():
    policy = RestartPolicy(max_restarts=3, restart_window=5.0)
    for _ in range(3):
        policy.died(0.0, progressed=False)

    assert policy.died(0.0, progressed=True) == RestartAfter(0.0)
    assert [policy.died(0.0, progressed=False) for _ in range(3)] == [
        RestartAfter(0.0),
        RestartAfter(0.1),
        RestartAfter(0.2),
    ]
    assert isinstance(policy.died(0.0, progressed=False), GiveUp)


def test_deaths_after_progress_never_give_up():
    policy = RestartPolicy(max_restarts=0, restart_window=5.0)

    assert {policy.died(0.0, progressed=True) for _ in range(100)} == {RestartAfter(0.0)}


def test_no_restarts_allowed_gives_up_at_the_first_death_without_progress():
    decision = RestartPolicy(max_restarts=0, restart_window=5.0).died(0.0, progressed=False)

    assert isinstance(decision, GiveUp)
    assert "died once" in decision.reason


@given(st.integers(0, 40), st.floats(0.5, 60.0))
def test_a_worker_that_dies_as_it_starts_is_given_up_however_long_its_back_off(max_restarts, window):
    policy = RestartPolicy(max_restarts, window)
    now = 0.0
    for _ in range(max_restarts):
        decision = policy.died(now, progressed=False)
        assert isinstance(decision, RestartAfter)
        now += decision.delay + 0.001

    assert isinstance(policy.died(now, progressed=False), GiveUp)


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.booleans()), max_size=60))
def test_delays_stay_between_none_and_the_longest(deaths):
    policy = RestartPolicy(max_restarts=1_000_000, restart_window=1e9)
    now = 0.0
    for seconds, progressed in deaths:
        now += seconds
        decision = policy.died(now, progressed)

        assert isinstance(decision, RestartAfter)
        assert decision.delay == 0.0 or 0.1 <= decision.delay <= 5.0
        assert not progressed or decision.delay == 0.0


def test_thousands_of_deaths_do_not_overflow_the_back_off():
    policy = RestartPolicy(max_restarts=5_000, restart_window=1e9)

    assert [policy.died(0.0, progressed=False) for _ in range(5_000)][-1] == RestartAfter(5.0)
