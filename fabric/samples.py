"""A sample: what a fabric has counted at one moment, what its processes use, and what came since the sample before.

Pure: made of statistics and usages, by the sampler or by a monitor outside.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fabric.histogram import Histogram
from fabric.statistics import ProcessStatistics, Statistics, WorkerStatistics
from fabric.usage import Usage


@dataclass(frozen=True)
class Sample:
    """A fabric at one moment. Rates and recent histograms are over the time since the sample before, `seconds` long."""

    statistics: Statistics
    usage: Mapping[int, Usage] = field(default_factory=dict)  # by pid
    before: Statistics | None = None  # of the sample before

    @property
    def seconds(self) -> float:
        """Length of the interval that ends here; 0 for the first sample."""
        return 0.0 if self.before is None else self.statistics.seconds - self.before.seconds

    def rate(self, name: str) -> float:
        """Return how much a count of Statistics grew a second: "messages", "errors", "restarts", ..."""
        return self._rate(self.statistics, self.before, operator.attrgetter(name))

    def process_rate(self, slot: int, name: str) -> float:
        """Return how much a count of a process (0: the coordinator) grew a second: "messages", "bytes_in", ..."""
        now, then = self._process(self.statistics, slot), self._process(self.before, slot)
        return 0.0 if now is None else self._rate(now, then, operator.attrgetter(name))

    def busy(self, slot: int) -> float:
        """Return which part of the interval a process was not waiting for work: 0 to 1."""
        now, then = self._process(self.statistics, slot), self._process(self.before, slot)
        if now is None or self.before is None or self.seconds <= 0:
            return 0.0
        before = 0.0 if then is None else then.waited_until(self.before.seconds)
        waited = now.waited_until(self.statistics.seconds) - before
        return min(1.0, max(0.0, 1 - waited / self.seconds))

    @cached_property
    def round_trip(self) -> Histogram:
        """Seconds from the coordinator's question to its reply, of the interval."""
        return self._since(lambda found: found.round_trip)

    @cached_property
    def lane_time(self) -> Histogram:
        """Seconds from sent to received, of the interval, of messages to agents."""
        return self._since(lambda found: found.lane_time)

    @cached_property
    def handler_time(self) -> Histogram:
        """Seconds a message in handlers, of the interval."""
        return self._since(lambda found: found.handler_time)

    def worker_histogram(self, slot: int, name: str) -> Histogram:
        """Return "lane_time", "handler_time", "batch_sizes" of one worker, of the interval."""
        now, then = self._process(self.statistics, slot), self._process(self.before, slot)
        if now is None:
            return Histogram()
        found: Histogram = getattr(now, name)
        return found if then is None else found - getattr(then, name)

    def worker(self, slot: int) -> WorkerStatistics | None:
        """Return the statistics of the worker in a slot."""
        return next((one for one in self.statistics.workers if one.slot == slot), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        rates = {name: self.rate(name) for name in ("messages", "errors", "restarts", "redelivered", "dead_letters")}
        return {
            **self.statistics.to_dict(),
            "interval": self.seconds,
            "rates": rates,
            "recent": {
                "round_trip": self.round_trip.to_dict(),
                "lane_time": self.lane_time.to_dict(),
                "handler_time": self.handler_time.to_dict(),
            },
            "usage": {str(pid): dataclasses.asdict(one) for pid, one in self.usage.items()},
        }

    def _process(self, found: Statistics | None, slot: int) -> ProcessStatistics | None:
        if found is None:
            return None
        if slot == 0:
            return found.coordinator
        return next((one for one in found.all_workers if one.slot == slot), None)  # a slot may be used again

    def _rate(self, now: Any, then: Any, count: Callable[[Any], float]) -> float:
        if then is None or self.seconds <= 0:
            return 0.0
        return max(0.0, count(now) - count(then)) / self.seconds

    def _since(self, histogram: Callable[[Statistics], Histogram]) -> Histogram:
        found = histogram(self.statistics)
        return found if self.before is None else found - histogram(self.before)
