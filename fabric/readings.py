"""Read a fabric for whoever exports its figures: again and again, from any thread, to its end and beyond.

    scrape ──▶ Reader ──▶ Fabric.statistics()     each time: it costs what copying histograms does
                  └─────▶ psutil, at most once a second
                  └─────▶ what must only grow, kept from reading to reading

A reader does not keep its fabric alive. Of a closed one it tells what was counted last; of one that is gone, nothing.
"""

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fabric.errors import ClosedError
from fabric.statistics import Statistics, WorkerStatistics
from fabric.usage import Usage, UsageReader

_USAGE_SECONDS = 1.0  # so old may the usage of processes be: to ask for it takes 100 us a process


@dataclass(frozen=True, slots=True)
class Reading:
    """A fabric at one moment, as its exporters see it. All mappings are by slot; 0 is the coordinator."""

    statistics: Statistics
    is_open: bool
    usage: Mapping[int, Usage]  # of the processes that run
    cpu_seconds: Mapping[int, float]  # of all processes that a slot has had, as far as they were seen
    handled: Mapping[tuple[int, str], int]  # by slot and class: messages that surely ended without an error
    good_replies: Mapping[int, int]  # received, and no errors


class Reader:
    """Reads one fabric. Any thread; several at once."""

    def __init__(self, fabric: Any) -> None:
        self._fabric = weakref.ref(fabric)
        self._lock = threading.Lock()
        self._usage_reader: UsageReader | None = None
        self._usage: dict[int, Usage] = {}  # by pid
        self._usage_at = float("-inf")
        self._most: dict[Any, int] = {}
        self._lives: dict[int, tuple[int, float, float]] = {}  # by slot: pid, its CPU seconds, those of predecessors

    def read(self) -> Reading | None:
        """Return what there is to be told now. None: the fabric is gone, or another process's."""
        fabric = self._fabric()
        if fabric is None:
            return None
        is_open = not fabric._closed
        try:
            with self._lock:  # or a slower thread would bring older figures after newer ones
                statistics = fabric.statistics()
                return self._reading(statistics, is_open)
        except ClosedError:
            return None

    def _reading(self, statistics: Statistics, is_open: bool) -> Reading:
        pids = {worker.slot: worker.pid for worker in statistics.workers if worker.alive}
        pids[0] = statistics.coordinator.pid
        usage = self._look_at(pids) if is_open else {}
        processes = [statistics.coordinator, *statistics.all_workers]
        return Reading(
            statistics,
            is_open,
            usage,
            {process.slot: self._cpu_seconds(process.slot, usage.get(process.slot)) for process in processes},
            {
                (worker.slot, one.name): self._grown((worker.slot, one.name), _ended_well(worker, one))
                for worker in statistics.all_workers
                for one in worker.classes
            },
            {one.slot: self._grown(one.slot, one.replies - one.reply_errors) for one in processes},
        )

    def _look_at(self, pids: dict[int, int]) -> dict[int, Usage]:
        now = time.monotonic()
        if now - self._usage_at >= _USAGE_SECONDS or not self._usage.keys() >= set(pids.values()):
            self._usage_reader = self._usage_reader or UsageReader()
            self._usage, self._usage_at = self._usage_reader.read(pids.values()), now
        return {slot: self._usage[pid] for slot, pid in pids.items() if pid in self._usage}

    def _cpu_seconds(self, slot: int, usage: Usage | None) -> float:
        """CPU time of a slot's processes. What one used between the last look and its death is not seen."""
        pid, seconds, before = self._lives.get(slot, (0, 0.0, 0.0))
        if usage is not None:
            if usage.pid != pid:
                before += seconds
            pid, seconds = usage.pid, usage.cpu_seconds
            self._lives[slot] = pid, seconds, before
        return before + seconds

    def _grown(self, key: Any, count: int) -> int:
        """Keep a difference of two counts, which are read one after the other, from falling."""
        most = self._most[key] = max(self._most.get(key, 0), count)
        return most


def _ended_well(worker: WorkerStatistics, one: Any) -> int:
    """Return how many messages to a class have surely been handled without an error.

    A message counts when it is received, its error when it was handled. Those in between are still in the
    lane, for it is committed later: so what lies there is left out, and what is told never has to be taken back.
    """
    return int(one.messages) - int(one.errors) - worker.in_flight
