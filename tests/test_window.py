import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.window import Window

LANE = 8 * 2**20
TARGET = 0.02
KIB = 1024
MB = 1_000_000


class Simulation:
    """A producer that always has more to send, looks every `tick` seconds, and fills its lane to the window.

    `rate(time)` is the consumer's bytes a second; its head moves by whole `commit`s, as a real one's does.
    """

    def __init__(self, rate, tick=0.001, commit=1, window=None):
        self.window = window or Window(LANE, TARGET)
        self.rate = rate
        self.tick = tick
        self.commit = commit
        self.now = 1000.0
        self.start = self.now
        self.tail = 0
        self.done = 0.0
        self.limits = []

    @property
    def head(self):
        whole = int(self.done) // self.commit * self.commit
        return self.tail if self.done >= self.tail else whole

    def run(self, seconds):
        for _ in range(round(seconds / self.tick)):
            self.window.observe(self.head, self.now, self.tail - self.head)
            self.tail = max(self.tail, self.head + self.window.limit)
            self.limits.append(self.window.limit)
            self._consume()
        return self.window.limit

    def _consume(self):
        """Advance in steps far finer than a tick, so that a rate that changes is followed."""
        for _ in range(20):
            self.done = min(self.tail, self.done + self.rate(self.now - self.start) * self.tick / 20)
            self.now += self.tick / 20


def steady(rate):
    return lambda time: rate


def wanted(rate):
    return min(LANE, max(16 * KIB, rate * TARGET))


def test_a_window_starts_at_an_eighth_of_the_lane():
    assert Window(LANE, TARGET).limit == LANE // 8


@pytest.mark.parametrize("rate", [2 * MB, 10 * MB, 50 * MB, 300 * MB])
@pytest.mark.parametrize("tick", [0.0001, 0.001, 0.01])
def test_a_steady_consumer_has_a_target_time_of_work_ahead_of_it(rate, tick):
    limit = Simulation(steady(rate), tick).run(0.5)

    assert limit == pytest.approx(wanted(rate), rel=0.1)


def test_a_slow_consumer_has_the_floor():
    assert Simulation(steady(10_000)).run(5.0) == 16 * KIB


def test_a_consumer_faster_than_the_lane_has_all_of_it():
    assert Simulation(steady(5_000 * MB)).run(0.5) == LANE


def test_a_lane_smaller_than_the_floor_is_used_whole():
    assert Window(4 * KIB, TARGET).limit == 4 * KIB


@pytest.mark.parametrize("tick", [0.0005, 0.002, 0.02])
@pytest.mark.parametrize(("before", "after"), [(1 * MB, 100 * MB), (100 * MB, 1 * MB), (2 * MB, 200 * MB)])
def test_a_hundredfold_change_of_rate_is_followed_within_ten_target_times(before, after, tick):
    simulation = Simulation(lambda time: before if time < 1.0 else after, tick)
    assert simulation.run(1.0) == pytest.approx(wanted(before), rel=0.5)

    assert simulation.run(10 * TARGET) == pytest.approx(wanted(after), rel=0.5)


def test_a_consumer_that_works_in_bursts_has_a_window_near_its_mean_rate():
    simulation = Simulation(lambda time: 80 * MB if time % 0.004 < 0.001 else 0.0, tick=0.0005)
    simulation.run(0.5)
    late = simulation.limits[len(simulation.limits) // 2 :]

    assert wanted(10 * MB) < min(late)
    assert max(late) < wanted(40 * MB)


@pytest.mark.parametrize("commit", [1_000, 16 * KIB, 100 * KIB])
def test_a_head_that_moves_in_large_steps_is_measured_between_them(commit):
    simulation = Simulation(steady(20 * MB), tick=0.0005, commit=commit)
    simulation.run(1.0)
    late = simulation.limits[len(simulation.limits) // 2 :]

    assert wanted(20 * MB) / 2 < min(late)
    assert max(late) < wanted(20 * MB) * 2


def test_idle_time_is_not_slowness():
    simulation = Simulation(steady(50 * MB))
    busy = simulation.run(0.5)
    window, head = simulation.window, simulation.tail
    for hour in range(1, 10):
        window.observe(head, simulation.now + 3600.0 * hour, 0)

    assert window.limit == busy


def test_a_trickle_that_the_consumer_keeps_up_with_leaves_the_window_alone():
    window = Window(LANE, TARGET)
    for i in range(1_000):
        window.observe(100 * i, 0.05 * i, 0)

    assert window.limit == LANE // 8


def test_a_full_window_now_and_then_does_not_widen_it():
    window = Window(LANE, TARGET)
    head = 0
    for second in range(100):
        window.observe(head, float(second), 0)
        head += window.limit

    assert window.limit == LANE // 8


def test_work_after_idle_time_is_timed_from_its_push_on():
    window = Window(LANE, TARGET)
    window.observe(0, 0.0, 0)
    window.observe(0, 100.0, 0)
    window.observe(1 * MB, 100.1, 1 * MB)

    assert window.limit == pytest.approx(wanted(10 * MB), rel=0.05)


def test_a_consumer_that_stands_closes_its_window_the_longer_the_more():
    window = Window(LANE, TARGET)
    window.observe(0, 0.0, 0)
    limits = []
    for tenths in range(1, 5):
        window.observe(0, 0.1 * tenths, 400 * KIB)
        limits.append(window.limit)

    assert limits == [400 * KIB // 5, 400 * KIB // 10, 400 * KIB // 15, 400 * KIB // 20]
    window.observe(0, 3600.0, 400 * KIB)
    assert window.limit == 16 * KIB


def test_a_pause_shorter_than_the_target_changes_nothing():
    window = Window(LANE, TARGET)
    window.observe(0, 0.0, 0)
    window.observe(0, 0.019, 100)

    assert window.limit == LANE // 8


def test_a_consumer_that_stood_is_trusted_again_within_ten_target_times():
    simulation = Simulation(lambda time: 0.0 if 0.5 < time < 10.5 else 50 * MB)
    simulation.run(10.5)
    assert simulation.window.limit == 16 * KIB

    assert simulation.run(10 * TARGET) == pytest.approx(wanted(50 * MB), rel=0.1)


def test_a_burst_of_any_speed_is_unlearned_as_fast_as_one_that_fills_the_lane():
    window = Window(LANE, TARGET)
    window.observe(0, 0.0, 0)
    window.observe(10**15, 0.002, 0)
    assert window.limit == LANE
    for i in range(1, 101):
        window.observe(10**15 + 2_000 * i, 0.002 + 0.002 * i, 100_000)

    assert window.limit == pytest.approx(wanted(1 * MB), rel=0.5)


def test_counters_that_pass_two_to_the_64_are_followed():
    window, shifted = Window(LANE, TARGET), Window(LANE, TARGET)
    for i in range(100):
        head = 30_000 * i
        window.observe(head, 0.001 * i, 50_000)
        shifted.observe((2**64 - 1_000_000 + head) % 2**64, 0.001 * i, 50_000)

    assert shifted.limit == window.limit == pytest.approx(wanted(30 * MB), rel=0.05)


def test_a_lane_begun_anew_is_not_taken_for_a_leap():
    window = Window(LANE, TARGET)
    window.observe(5_000_000, 0.0, 100)
    window.observe(0, 1.0, 100)

    assert window.limit == LANE // 8


def test_two_observations_at_one_time_are_one():
    window = Window(LANE, TARGET)
    window.observe(0, 1.0, 0)
    window.observe(1_000_000, 1.0, 100)
    window.observe(1_000_000, 0.5, 0)

    assert window.limit == LANE // 8


@settings(deadline=None)
@given(
    st.integers(1, 2**26),
    st.floats(1e-4, 10.0),
    st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(-1.0, 1e6), st.integers(0, 2**26)), max_size=30),
)
def test_whatever_is_observed_the_limit_stays_between_the_floor_and_the_lane(lane_bytes, target, seen):
    window = Window(lane_bytes, target)
    for head, now, backlog in seen:
        window.observe(head, now, backlog)

        assert min(16 * KIB, lane_bytes) <= window.limit <= lane_bytes


@settings(deadline=None, max_examples=30)
@given(st.floats(6.0, 8.5), st.sampled_from([0.0005, 0.001, 0.005]), st.sampled_from([1, 64, 4096]))
def test_any_steady_consumer_is_found_from_the_start(log_rate, tick, commit):
    limit = Simulation(steady(10**log_rate), tick, commit).run(20 * TARGET)

    assert limit == pytest.approx(wanted(10**log_rate), rel=0.5)


@pytest.mark.parametrize(("lane_bytes", "target"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_window_over_nothing_is_refused(lane_bytes, target):
    with pytest.raises(ValueError, match=f"lane_bytes={lane_bytes} and target_seconds={target}"):
        Window(lane_bytes, target)
