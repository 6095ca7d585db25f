"""When a worker is replaced by a fresh one: no process, no clock."""

import math

import pytest

from fabric.recycling import RecyclePolicy, Service

MIB = 2**20


def test_without_limits_a_worker_serves_for_ever():
    service = Service(RecyclePolicy(), 0.0)

    assert service.due is None
    assert service.finished(10**9, 1e9) is None
    assert service.measured(MIB) is None
    assert service.measured(2**50) is None


def test_a_worker_goes_when_it_has_done_its_tasks_and_not_before():
    service = Service(RecyclePolicy(max_tasks=1_000), 0.0)

    assert service.finished(999, 5.0) is None
    assert service.finished(1, 5.0) == "after 1,000 tasks"


def test_the_reason_counts_the_tasks_that_were_done_over_the_limit():
    assert Service(RecyclePolicy(max_tasks=1), 0.0).finished(1, 0.0) == "after 1 task"
    assert Service(RecyclePolicy(max_tasks=1_000), 0.0).finished(1_256, 0.0) == "after 1,256 tasks"


@pytest.mark.parametrize(
    ("limit", "now", "reason"),
    [(3_600, 3_600.2, "after 3,600 s"), (0.5, 0.52, "after 0.52 s"), (10, 12.34, "after 12.3 s")],
)
def test_a_worker_goes_when_its_time_is_up(limit, now, reason):
    service = Service(RecyclePolicy(max_seconds=limit), 100.0)

    assert service.due == 100.0 + limit
    assert service.finished(1, 100.0 + limit * 0.99) is None
    assert service.finished(0, 100.0 + now) == reason


def test_a_worker_goes_when_its_memory_has_grown_by_more_than_it_may():
    service = Service(RecyclePolicy(max_growth_bytes=500 * MIB), 0.0)

    assert service.measured(188 * MIB) is None, "the first sample is what growth is measured from"
    assert service.measured(688 * MIB) is None
    expected = "its memory grew by 512 MiB to 700 MiB, over max_growth 500 MiB"
    assert service.measured(700 * MIB) == expected


def test_memory_that_shrinks_again_is_no_reason():
    service = Service(RecyclePolicy(max_growth_bytes=1), 0.0)

    assert service.measured(10 * MIB) is None
    assert service.measured(5 * MIB) is None
    assert service.measured(10 * MIB) is None
    assert service.measured(10 * MIB + 2) == "its memory grew by 2 bytes to 10 MiB, over max_growth 1 byte"


def test_the_first_limit_that_is_reached_counts():
    service = Service(RecyclePolicy(max_tasks=10, max_seconds=60, max_growth_bytes=MIB), 0.0)

    assert service.finished(9, 61.0) == "after 61 s"
    assert service.finished(1, 61.0) == "after 10 tasks"


@pytest.mark.parametrize("name", ["max_tasks", "max_seconds", "max_growth_bytes"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_that_is_no_positive_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value} .*None sets no limit"):
        RecyclePolicy(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tasks", 1.5), ("max_tasks", True), ("max_seconds", "1"), ("max_growth_bytes", 1e9)],
)
def test_a_limit_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=rf"^{name}=.*{type(value).__name__}"):
        RecyclePolicy(**{name: value})


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_seconds_without_end_are_refused(value):
    with pytest.raises(ValueError, match=r"^max_seconds="):
        RecyclePolicy(max_seconds=value)
