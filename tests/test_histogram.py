"""Histograms: what is told of values that went in, how they merge, and that Python and C have the same buckets."""

import math
import pickle
import threading
from array import array

import pytest
from fabric._native import lib
from hypothesis import given
from hypothesis import strategies as st

from fabric import histogram
from fabric.histogram import (
    BUCKETS,
    COUNTS,
    SECONDS,
    TOP,
    VALUE_BITS,
    Histogram,
    bucket_of,
    lowest_of,
)

VALUES = st.integers(0, 2**VALUE_BITS - 1)
SOME = st.lists(VALUES, min_size=1, max_size=200)


def test_python_and_c_have_the_same_buckets():
    assert BUCKETS == lib.FAB_HISTOGRAM_BUCKETS
    assert [bucket_of(lowest_of(bucket)) for bucket in range(BUCKETS)] == list(range(BUCKETS))
    assert bucket_of(2**63) == BUCKETS - 1
    assert bucket_of(-1) == 0


@given(VALUES)
def test_a_value_lies_in_its_bucket_which_is_a_32nd_of_it_wide_at_the_most(value):
    low, end = lowest_of(bucket_of(value)), lowest_of(bucket_of(value) + 1)
    assert low <= value < end
    assert end - low <= max(1, low / 32)


@given(SOME, st.floats(0, 1))
def test_a_percentile_is_that_of_the_sorted_values_within_3_percent(values, share):
    exact = sorted(values)[math.ceil(max(share * len(values), 1)) - 1]
    assert Histogram.of(values, COUNTS).percentile(share) == pytest.approx(exact, rel=1 / 32, abs=0.5)


@given(SOME)
def test_count_sum_mean_and_maximum_are_exact(values):
    found = Histogram.of(values, COUNTS)
    assert (found.count, found.sum, found.maximum) == (len(values), sum(values), max(values))
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert sum(count for _, _, count in found.buckets()) == len(values)
    assert all(low <= found.maximum for low, _, _ in found.buckets())


@given(SOME, SOME)
def test_merged_they_are_what_all_values_make_together(some, others):
    one, other = Histogram.of(some, COUNTS), Histogram.of(others, COUNTS)
    assert one + other == Histogram.of(some + others, COUNTS) == Histogram.merged([one, other], COUNTS)


@given(SOME, SOME)
def test_a_difference_has_the_counts_of_what_came_since(before, since):
    earlier = Histogram.of(before, COUNTS)
    found = Histogram.of(before + since, COUNTS) - earlier
    assert list(found.buckets()) == list(Histogram.of(since, COUNTS).buckets())
    assert found.sum == sum(since)
    assert max(since) <= found.maximum <= max(before + since)


@given(SOME)
def test_below_a_power_of_two_the_count_is_exact(values):
    bounds = [2**power for power in range(VALUE_BITS + 1)]
    assert Histogram.of(values, COUNTS).below(bounds) == [sum(value < bound for value in values) for bound in bounds]


def test_times_are_told_in_seconds():
    found = Histogram.of([0.001] * 99 + [0.5], SECONDS)
    assert found.percentile(0.5) == pytest.approx(0.001, rel=0.016)
    assert found.percentile(1) == pytest.approx(0.5, rel=0.016)
    assert found.to_dict()["count"] == 100
    assert found.to_dict()["p90"] == found.percentile(0.9)
    assert "100 values" in repr(found)


def test_of_nothing_all_figures_are_0():
    nothing = Histogram()
    assert (nothing.count, nothing.sum, nothing.mean, nothing.maximum, nothing.percentile(0.99)) == (0, 0, 0, 0, 0)
    assert not nothing
    assert list(nothing.buckets()) == []
    assert nothing.below([1.0]) == [0]
    assert not Histogram.of([], COUNTS)
    assert Histogram.of([0], COUNTS)


def test_raw_copies_are_added_up_when_they_are_looked_at():
    raw = memoryview(array("Q", [7, 4, TOP - 3, 3, 2, 1, 1]))  # of 3 and 4, as fab_survey_histogram says it
    nothing = memoryview(array("Q", [0, 0, 0, 0, 0]))
    assert Histogram([raw, nothing, raw], COUNTS) == Histogram.of([3, 4, 3, 4], COUNTS)
    assert Histogram([raw], COUNTS)
    assert not Histogram([nothing, nothing], COUNTS)


def test_threads_that_look_for_the_first_time_together_lose_nothing(monkeypatch):
    raw = memoryview(array("Q", [7, 4, TOP - 3, 3, 2, 1, 1]))
    zeros = histogram._zeros

    def while_another_looks(seen):
        def interrupted():
            monkeypatch.setattr(histogram, "_zeros", zeros)
            other = threading.Thread(target=lambda: seen.count)
            other.start()
            other.join()
            return zeros()

        return interrupted

    seen = Histogram([raw], COUNTS)
    monkeypatch.setattr(histogram, "_zeros", while_another_looks(seen))
    assert (seen.count, seen.sum) == (2, 7)
    assert (seen.count, seen.sum) == (2, 7), "nor later"


def test_a_share_is_from_0_to_1():
    with pytest.raises(ValueError, match=r"the 99th percentile is 0\.99"):
        Histogram().percentile(99)


def test_they_can_be_pickled_and_be_keys():
    one = Histogram.of([1, 2], COUNTS)
    assert pickle.loads(pickle.dumps(one)) == one
    assert len({one, Histogram.of([1, 2], COUNTS), Histogram.of([1, 3], COUNTS)}) == 2
