"""Statistics of a fabric that is not there, which grow by the same each time: what pages of them show is known."""

import dataclasses
import itertools
import typing
from collections.abc import Callable
from typing import Any

from fabric.histogram import COUNTS, SECONDS, Histogram
from fabric.statistics import ClassStatistics, CoordinatorStatistics, Statistics, WorkerStatistics

HOSTILE = "<img src=x onerror=\"document.title='hit'\"></td><script>document.title='hit'</script>"
_QUESTIONS = Histogram.of([0.0005] * 10)
_TIMES = Histogram.of([0.002] * 49 + [0.040])
_WAITS = Histogram.of([0.00003])
PID = 2**22 + 1  # no process has it: pid_max


def made_up(number: int, workers: int = 2, name: str = HOSTILE) -> Statistics:
    """Return the figures of the `number`th second: 1,234 messages a worker each, of 2 ms, or of 40 ms one of 50."""
    times = _often(_TIMES, number)
    counted = [_worker(slot, number, times, name) for slot in range(1, workers + 1)]
    coordinator = _made(
        CoordinatorStatistics,
        slot=0,
        pid=PID,
        replies=500 * number,
        backpressure_waits=7,
        backpressure_seconds=0.25,
        round_trip=_often(_QUESTIONS, number),
    )
    of_class = ClassStatistics(name, 1234 * number * workers, 3 * number, times)
    return _made(
        Statistics,
        workers=tuple(counted),
        coordinator=coordinator,
        classes=(of_class,),
        agents=1_200_000,
        outstanding=12,
        dead_letters=4,
        restarts=1,
        seconds=1000.0 + number,
        measuring=True,
    )


def source(**options: Any) -> Callable[[], Statistics]:
    """Return what stands for the statistics() of a fabric; each call is a second later."""
    numbers = itertools.count(1)
    return lambda: made_up(next(numbers), **options)


def _worker(slot: int, number: int, times: Histogram, name: str) -> WorkerStatistics:
    return _made(
        WorkerStatistics,
        slot=slot,
        pid=PID + slot,
        alive=True,
        agents=600_000,
        messages=1234 * number,
        errors=slot - 1,
        bytes_in=2048 * number,
        lane_bytes=1536 * slot,
        lane_capacity=8192,
        in_flight=21,
        waited_seconds=0.25 * number,
        starts=slot,
        lane_time=_often(_WAITS, number),
        classes=(ClassStatistics(name, 1234 * number, 3 * number, times),),
    )


def _often(histogram: Histogram, times: int) -> Histogram:
    """Return what would be counted after so many times as much."""
    if times == 1:
        return histogram
    half = _often(histogram, times // 2)
    return half + half + histogram if times % 2 else half + half


def _made(kind: Any, **values: Any) -> Any:
    """Make one of these dataclasses with these values, and nothing in the other fields."""
    return kind(**{one.name: _nothing(one) for one in dataclasses.fields(kind)} | values)


def _nothing(field: Any) -> Any:
    if field.type is Histogram:
        return Histogram((), COUNTS if field.name == "batch_sizes" else SECONDS)
    return () if typing.get_origin(field.type) is tuple else 0
