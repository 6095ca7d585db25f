"""Log-linear histograms as exponential ones: every value stays, near where it was."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fabric.exponential import SCALE, exponential
from fabric.histogram import COUNTS, SECONDS, Histogram

VALUES = st.lists(st.integers(0, 2**40 - 1).map(lambda value: value * SECONDS), max_size=50)


def bounds_of(index):
    return 2 ** ((index - 1) / 2**SCALE), 2 ** (index / 2**SCALE)


@given(VALUES)
def test_no_value_is_lost(values):
    histogram = Histogram.of(values)
    made = exponential(histogram)
    assert made.zeros + sum(made.counts.values()) == len(values)


@given(st.integers(1, 2**40 - 1))
def test_a_value_is_told_within_six_per_cent(raw):
    value = raw * SECONDS
    [index] = exponential(Histogram.of([value])).counts
    lower, upper = bounds_of(index)
    assert lower * 0.98 <= value <= upper * 1.02
    assert upper / lower < 1.045


@given(VALUES, VALUES)
def test_no_count_falls_when_more_is_counted(some, more):
    before, after = (exponential(Histogram.of(values)) for values in (some, some + more))
    assert after.zeros >= before.zeros
    assert all(after.counts[index] >= count for index, count in before.counts.items())


def test_a_batch_of_a_power_of_two_is_in_the_bucket_that_ends_there():
    for size in (1, 2, 64, 256, 4096):
        [index] = exponential(Histogram.of([size], COUNTS)).counts
        assert math.isclose(bounds_of(index)[1], size)


def test_runs_and_dense_counts_tell_the_same():
    made = exponential(Histogram.of([1e-6, 1e-6, 1.06e-6, 1.0]))
    [(first, together), (last, alone)] = made.runs()
    assert (sum(together), alone) == (3, [1])
    start, counts = made.dense()
    assert start == first
    assert len(counts) == last - first + 1
    assert sum(counts) == 4


def test_an_empty_histogram_has_no_buckets():
    made = exponential(Histogram())
    assert (made.zeros, made.runs(), made.dense()) == (0, [], (0, []))
