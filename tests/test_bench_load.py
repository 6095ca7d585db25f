"""The open-loop load of the benchmarks: due times, latencies counted from them, and histograms that lose little."""

import threading
from typing import Any

import numpy as np
import pytest

from bench import load
from bench.histogram import Histogram, _bucket, _middle
from bench.load import OpenLoop, Pace
from bench.recorder import Recorder
from bench.sample import percentile
from bench.timetable import POISSON, Timetable

SHARES = (0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0)
CHANCE = np.random.default_rng(11)
MS = 1_000_000


@pytest.mark.parametrize(
    "values",
    [
        CHANCE.lognormal(12, 4, 20_000).astype(np.int64),
        CHANCE.integers(0, 1_000, 5_000),
        CHANCE.exponential(3e6, 10_000).astype(np.int64),
        np.concatenate([np.full(990, 50_000), np.full(10, 3_000_000_000)]),
        np.array([123_456_789]),
    ],
    ids=["of many magnitudes", "small", "exponential", "with a tail", "one"],
)
def test_percentiles_of_a_histogram_are_within_3_percent_of_the_exact_ones(values: Any) -> None:
    found = Histogram()
    for part in np.array_split(values, 7):
        found.record(part)
    ordered = sorted(values.tolist())
    assert found.count == len(ordered)
    assert found.maximum == ordered[-1]
    for share in SHARES:
        exact = percentile(ordered, share)
        assert abs(found.percentile(share) - exact) <= 0.03 * exact


def test_buckets_follow_one_another_and_hold_what_they_say() -> None:
    edges = sorted({edge + step for power in range(52) for edge in (1 << power, 3 << power) for step in (-1, 0, 1)})
    edges = [edge for edge in edges if edge < 1 << 52]
    buckets = _bucket(np.array(edges)).tolist()
    assert buckets == sorted(buckets)
    for value, bucket in zip(edges, buckets, strict=True):
        assert abs(_middle(bucket) - value) <= value / 64
    assert _bucket(np.arange(200)).tolist()[:64] == list(range(64))
    assert set(np.diff(_bucket(np.arange(5_000))).tolist()) == {0, 1}


def test_merged_histograms_are_as_one_that_counted_all() -> None:
    values = CHANCE.integers(0, 10**9, 1_000)
    whole, left, right = Histogram(), Histogram(), Histogram()
    whole.record(values)
    left.record(values[:300])
    right.record(values[300:])
    left.merge(right)
    assert [left.percentile(share) for share in SHARES] == [whole.percentile(share) for share in SHARES]
    assert (left.count, left.maximum) == (whole.count, whole.maximum)


def test_a_histogram_of_nothing_has_no_percentiles_and_a_negative_value_is_0() -> None:
    found = Histogram()
    found.record(np.array([], np.int64))
    with pytest.raises(ValueError, match="nothing"):
        found.percentile(0.5)
    found.record(np.array([-5]))
    assert (found.percentile(1), found.maximum) == (0, 0)
    with pytest.raises(ValueError, match="share"):
        found.percentile(1.1)


def test_constant_arrivals_are_evenly_spaced_phase_after_phase() -> None:
    timetable = Timetable([(0.01, 1_000), (0.001, 10_000)])
    due = all_of(timetable).tolist()
    assert due == [*range(0, 10 * MS, MS), *range(10 * MS, 11 * MS, MS // 10)]
    assert timetable.next_due is None


def test_a_timetable_gives_what_is_due_and_skips_nothing_when_asked_late() -> None:
    timetable = Timetable([(200, 1_000)])
    assert timetable.take(2 * MS, 100).tolist() == [0, MS, 2 * MS]
    assert (timetable.taken, timetable.next_due) == (3, 3 * MS)
    assert not len(timetable.take(3 * MS - 1, 100))
    assert len(timetable.take(150_000 * MS, 1_000)) == 1_000
    assert np.array_equal(all_of(timetable, 150_000 * MS), np.arange(1_003, 150_001) * MS)
    assert (timetable.taken, timetable.next_due) == (150_001, 150_001 * MS)


def test_poisson_arrivals_are_the_same_by_seed_and_have_exponential_gaps() -> None:
    def due(seed: int) -> Any:
        timetable = Timetable([(100, 1_000), (1, 10)], POISSON, seed)
        return all_of(timetable)

    first = due(1)
    assert np.array_equal(first, due(1))
    assert not np.array_equal(first[:1_000], due(2)[:1_000])
    gaps = np.diff(first[first < 100 * 10**9]) / MS
    assert (gaps >= 0).all()
    assert abs(len(gaps) - 100_000) < 5 * 100_000**0.5
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.03)
    assert 0 < len(first[first >= 100 * 10**9]) < 40
    assert first[-1] < 101 * 10**9


def test_latency_counts_from_when_a_message_was_due_and_not_at_all_while_it_warms_up() -> None:
    found = Recorder(since=100)
    found.record(np.array([50, 99, 100, 130]), 150)
    found.record(np.array([200]), np.array([203]))
    assert sorted(found.latencies.percentile(share) for share in (0, 0.5, 1)) == [3, 20, 50]
    assert found.latencies.count == 3
    assert found.last == 203


def test_a_burst_is_over_with_the_first_window_that_is_calm_again() -> None:
    due = np.arange(0, 1_000 * MS, MS)
    waited = np.where(due < 350 * MS, 50 * MS, 2 * MS)  # until 0.35 s after the burst
    found = Recorder(0, calm_since=0)
    found.record(due[:600], due[:600] + waited[:600])
    other = Recorder(0, calm_since=0)
    other.record(due[600:], due[600:] + waited[600:])
    other.merge(found)
    assert other.calm_after(10) == 0.4
    assert other.calm_after(60) == 0
    assert other.calm_after(1) is None
    assert other.latencies.count == 1_000


def all_of(timetable: Timetable, now: int = 10**12) -> Any:
    """What is due by then, as it is given bit by bit."""
    parts = [timetable.take(now, 10**6)]
    while len(parts[-1]):
        parts.append(timetable.take(now, 10**6))
    return np.concatenate(parts)


class Clock:
    """Stands for the module time in bench.load: sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 10**9

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def test_a_stop_of_the_service_is_in_the_latency_of_all_that_was_due_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(load, "time", clock)
    loop = OpenLoop(Timetable([(1, 1_000)]), Pace(senders=1, every_ms=0))
    from_due, from_sending, firsts, waits = Recorder(0), Recorder(0), [], []

    def send(first: int, due: Any) -> None:
        sent = np.full(len(due), clock.now)
        clock.now += 300 * MS if first == 100 else MS // 10
        firsts.append((first, len(due)))
        waits.extend((clock.now - due).tolist())
        from_due.record(due, clock.now)
        from_sending.record(sent, clock.now)

    assert loop.run(send) == 1_000
    assert [first for first, _ in firsts] == np.cumsum([0, *(count for _, count in firsts[:-1])]).tolist()
    assert sum(wait > 100 * MS for wait in waits) == pytest.approx(200, abs=5)  # of 300 that were due in these 300 ms
    assert from_due.latencies.percentile(0.9) > 150 * MS
    assert from_sending.latencies.percentile(0.99) < MS  # what leaving them out would have made of it


def test_several_senders_send_each_message_once() -> None:
    loop = OpenLoop(Timetable([(0.05, 100_000)]), Pace(senders=4, every_ms=0.5))
    got, guard, paused = [], threading.Lock(), []

    def send(first: int, due: Any) -> None:
        with guard:
            got.extend(enumerate(due.tolist(), first))

    assert loop.run(send, 0.01, lambda: paused.append(len(got))) == 5_000
    assert sorted(got) == [(number, loop.start + number * 10_000) for number in range(5_000)]
    assert len(paused) == 1


def test_what_a_sender_raises_ends_the_load_and_is_raised() -> None:
    loop = OpenLoop(Timetable([(3_600, 1_000)]), Pace(senders=3, every_ms=0))

    def send(first: int, due: Any) -> None:
        raise OSError(f"no such agent {first}")

    with pytest.raises(OSError, match="no such agent"):
        loop.run(send)
