"""The sampler: nothing runs unless somebody asks, rates and recent times are of the interval, alerts are told once."""

import dataclasses
import gc
import json
import os
import threading
import weakref

import pytest

from fabric import ClosedError, Fabric
from fabric.alerts import Alert, growing, slow, stalled
from fabric.histogram import SECONDS, Histogram
from fabric.sampler import Sampler
from fabric.samples import Sample
from fabric.statistics import ClassStatistics
from fabric.usage import UsageReader
from tests.agents import Dreamer, Echo

PATIENCE = 30


@pytest.fixture(scope="module")
def base():
    """Statistics to make others of."""
    with Fabric(workers=2) as fab:
        fab.spawn_batch(Echo, 2).ask_all(1)
        return fab.statistics()


def _at(base, seconds, lane=(0, 0), received=(1, 1), times=()):
    """Statistics at a moment: bytes in the lane of each worker, records that it received, round trips."""
    workers = tuple(
        dataclasses.replace(worker, lane_bytes=lane[i], received=received[i], messages=received[i])
        for i, worker in enumerate(base.workers)
    )
    coordinator = dataclasses.replace(base.coordinator, round_trip=Histogram.of(times, SECONDS))
    return dataclasses.replace(base, seconds=seconds, workers=workers, coordinator=coordinator)


def _samples(*statistics):
    return [Sample(now, {}, then) for then, now in zip((None, *statistics), statistics, strict=False)]


def _sampler_threads():
    return [thread for thread in threading.enumerate() if thread.name == "fabric-sampler"]


def test_no_thread_samples_before_somebody_asks_for_one():
    with Fabric(workers=1) as fab:
        fab.spawn_batch(Echo, 1)[0].ask(1)
        assert fab.sampler.sample().statistics.messages == 1
        assert fab.sampler is fab.sampler
        assert _sampler_threads() == []
        fab.sampler.start()
        fab.sampler.start()
        assert len(_sampler_threads()) == 1
        assert fab.sampler.running
    assert _sampler_threads() == []


def test_a_sample_has_rates_and_recent_times_of_its_interval_and_what_processes_use():
    with Fabric(workers=2) as fab:
        group = fab.spawn_batch(Echo, 10)
        group.ask_all(1)
        first = fab.sampler.sample()
        group.ask_all(2)
        group.ask_all(3)
        second = fab.sampler.sample()

        assert (first.seconds, first.rate("messages")) == (0, 0)
        assert second.rate("messages") * second.seconds == pytest.approx(20)
        assert second.process_rate(1, "messages") * second.seconds == pytest.approx(10)
        assert second.process_rate(9, "messages") == 0
        assert (first.round_trip.count, second.round_trip.count) == (10, 20)
        assert second.worker_histogram(1, "lane_time").count == 10
        assert 0 <= second.busy(1) <= 1
        pids = [os.getpid(), *(worker.pid for worker in second.statistics.workers)]
        assert sorted(second.usage) == sorted(pids)
        used = second.usage[os.getpid()]
        assert used.resident_bytes >= used.private_bytes > 0
        assert used.threads >= 1
        assert used.descriptors > 3
        plain = json.loads(json.dumps(second.to_dict()))
        assert plain["recent"]["round_trip"]["count"] == 20
        assert plain["usage"][str(os.getpid())]["threads"] == used.threads
        assert fab.sampler.history == [first, second]


def test_a_slot_that_gets_a_worker_again_brings_nothing_of_before_into_the_interval():
    with Fabric(workers=2) as fab:
        group = fab.spawn_batch(Echo, 2)
        for _ in range(20):
            group[1].ask(1)
        fab.sampler.sample()
        group.stop()
        fab.resize(1)
        fab.sampler.sample()
        fab.resize(2)
        sample = fab.sampler.sample()
        assert sample.worker(2).lane_time.count == 20
        assert sample.worker_histogram(2, "lane_time").count == 0


def test_who_waits_is_not_busy_however_long_it_has_waited_already(base):
    def at(seconds, waited, since):
        worker = dataclasses.replace(base.workers[0], waited_seconds=waited, waiting_since=since)
        return dataclasses.replace(base, seconds=seconds, workers=(worker,))

    idle = _samples(at(10.0, 3.0, 9.5), at(10.25, 3.0, 9.5), at(10.5, 3.9, 10.4))
    assert [sample.busy(1) for sample in idle[1:]] == [pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9)]
    half = _samples(at(10.0, 3.0, 0), at(11.0, 3.2, 10.7))
    assert half[1].busy(1) == pytest.approx(0.5)


def test_a_worker_whose_coroutines_wait_is_not_busy():
    with Fabric(workers=1) as fab:
        waiter = fab.spawn_batch(Dreamer, 1)[0]
        fab.sampler.sample()
        waiter.ask(0.4, timeout=PATIENCE)
        assert fab.sampler.sample().busy(1) < 0.8


def test_it_samples_on_its_own_timer_and_keeps_so_many(base):
    came = threading.Semaphore(0)

    def take():
        came.release()
        return base

    sampler = Sampler(take, 0.001, keep=3)
    sampler.start()
    assert all(came.acquire(timeout=PATIENCE) for _ in range(5))
    sampler.close()
    assert len(sampler.history) == 3
    assert sampler.latest is sampler.history[-1]
    assert _sampler_threads() == []


def test_a_new_interval_holds_at_once(base):
    came = threading.Semaphore(0)

    def take():
        came.release()
        return base

    sampler = Sampler(take, 1_000_000)
    sampler.start()
    assert came.acquire(timeout=PATIENCE)
    sampler.start(0.001)
    assert came.acquire(timeout=PATIENCE)
    sampler.close()
    with pytest.raises(ValueError, match="over 0 seconds"):
        sampler.start(0)


def test_the_thread_ends_with_a_sampler_that_nobody_holds(base):
    sampler = Sampler(lambda: base, 0.001)
    sampler.start()
    gone, (thread,) = weakref.ref(sampler), _sampler_threads()
    del sampler
    thread.join(PATIENCE)
    gc.collect()
    assert not thread.is_alive()
    assert gone() is None


def test_an_alert_is_told_once_until_it_ends_and_comes_again(base):
    statistics = iter(
        _at(base, second, times=times)
        for second, times in enumerate(
            [[0.9], [0.9, 0.5], [0.9, 0.5, 0.6], [0.9, 0.5, 0.6, 0.001], [0.9, 0.5, 0.6, 0.7]]
        )
    )
    told = []
    sampler = Sampler(lambda: next(statistics), 30)
    sampler.when(slow(0.1), told.append, start=False)
    counts = []
    for _ in range(5):
        sampler.sample()
        counts.append(len(told))
    assert counts == [0, 1, 1, 1, 2], "of the first sample there is no interval"
    assert told[0].text.startswith("99.0% of round trip is 0.499 s")


def test_a_callback_may_ask_for_a_sample_and_may_raise(base, caplog):
    times = iter(_at(base, second, times=[0.5] * second) for second in range(3))
    sampler = Sampler(lambda: next(times), 30)
    seen = []

    def callback(alert):
        seen.append(sampler.sample())
        raise ValueError("a mistake in the callback")

    sampler.when(slow(0.1), callback, start=False)
    sampler.sample()
    sampler.sample()
    assert len(seen) == 1
    assert "a callback of the sampler raised" in caplog.text


def test_stalled_are_those_with_work_that_have_handled_nothing(base):
    history = _samples(
        _at(base, 0, lane=(100, 100), received=(5, 5)),
        _at(base, 1, lane=(100, 100), received=(5, 6)),
        _at(base, 2, lane=(100, 0), received=(5, 6)),
    )
    assert stalled(2)(history[:2]) == [], "not after one interval"
    (alert,) = stalled(2)(history)
    assert alert == Alert("stalled 1", f"worker 1 (pid {base.workers[0].pid}) has handled nothing of 100 bytes", 1)
    assert stalled(1)(_samples(_at(base, 0), _at(base, 1))) == [], "an idle worker is not stalled"


def test_who_handles_a_batch_that_came_before_is_not_stalled(base):
    history = _samples(*(_at(base, second, lane=(300 - second, 0), received=(5, 5)) for second in range(3)))
    assert len(stalled(2)(history)) == 1
    on = dataclasses.replace(ClassStatistics("Slow"), handler_time=Histogram.of([1.0] * 2, SECONDS))
    worker, other = history[-1].statistics.workers
    statistics = dataclasses.replace(
        history[-1].statistics, workers=(dataclasses.replace(worker, classes=(on,)), other)
    )
    assert stalled(2)([*history[:2], Sample(statistics, {}, history[1].statistics)]) == []


def test_growing_are_those_whose_queue_grew_each_time(base):
    lanes = [(10, 10), (20, 20), (30, 15), (40, 40)]
    history = _samples(*(_at(base, second, lane=lane) for second, lane in enumerate(lanes)))
    assert [alert.worker for alert in growing(3)(history)] == [1]
    assert growing(3)(history[:3]) == []
    assert [alert.key for alert in growing(1)(history)] == ["growing 1", "growing 2"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: slow(1, of="nothing"), "round_trip"),
        (lambda: stalled(0), "1 or more"),
        (lambda: growing(0), "1 or more"),
    ],
)
def test_conditions_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_of_a_closed_fabric_there_is_no_new_sample():
    with Fabric(workers=1) as fab:
        sampler = fab.sampler
        kept = sampler.sample()
    with pytest.raises(ClosedError):
        sampler.sample()
    assert sampler.history == [kept]


def test_who_asks_a_closed_fabric_for_samples_first_starts_no_thread():
    with Fabric(workers=1) as fab:
        pass
    called = []
    fab.sampler.start(0.01)
    fab.sampler.at_close(lambda: called.append("at once"))
    assert (_sampler_threads(), called) == ([], ["at once"])


def test_who_samples_does_not_keep_the_fabric():
    fab = Fabric(workers=1)
    sampler = fab.sampler
    fab.close()
    gone = weakref.ref(fab)
    del fab
    gc.collect()
    assert gone() is None
    with pytest.raises(ClosedError):
        sampler.sample()


def test_a_process_that_is_gone_is_left_out():
    reader = UsageReader()
    assert [*reader.read([os.getpid(), 2**22 + 1, 0])] == [os.getpid()]
