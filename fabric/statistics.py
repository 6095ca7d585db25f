"""Describe a fabric at one moment: frozen, and cheap to make (a few words read for each worker)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fabric import counters as count


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One worker: counts since the slot was first used, and what lies in its lane now."""

    slot: int
    pid: int
    alive: bool
    agents: int
    received: int
    batches: int
    errors: int
    bytes_in: int
    waited_seconds: float
    lane_bytes: int
    sent: int
    parks: int
    alarms: int
    dropped_bytes: int
    snapshots: int
    replayed: int
    expired: int
    recovery_seconds: float

    @property
    def batch_size(self) -> float:
        """Mean messages a batch."""
        return self.received / self.batches if self.batches else 0.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """A fabric: its workers, and the coordinator's own counts."""

    workers: tuple[WorkerStatistics, ...]
    agents: int
    outstanding: int
    late_replies: int
    dead_letters: int
    restarts: int
    redelivered: int
    alarms: int
    dropped_bytes: int  # in the coordinator's lanes: what could not be records, or not from a worker
    dropped_logs: int = 0  # log records of workers: not read in time, or not to be read

    @property
    def received(self) -> int:
        """Messages that the workers have taken from their lanes."""
        return sum(worker.received for worker in self.workers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return dataclasses.asdict(self)


def worker_statistics(
    slot: int, pid: int | None, agents: int, counters: memoryview, lane_bytes: int, sent: int
) -> WorkerStatistics:
    """Read a worker's counters. They are its own words, each written by it alone; nothing is locked.

    `pid` is that of the process that runs in the slot, None when none does.
    """
    return WorkerStatistics(
        slot=slot,
        pid=counters[count.PID] if pid is None else pid,
        alive=pid is not None,
        agents=agents,
        received=counters[count.RECEIVED],
        batches=counters[count.BATCHES],
        errors=counters[count.ERRORS],
        bytes_in=counters[count.BYTES_IN],
        waited_seconds=counters[count.WAITED_NS] / 1e9,
        lane_bytes=lane_bytes,
        sent=sent,
        parks=counters[count.PARKS],
        alarms=counters[count.ALARMS],
        dropped_bytes=counters[count.DROPPED_BYTES],
        snapshots=counters[count.SNAPSHOTS],
        replayed=counters[count.REPLAYED],
        expired=counters[count.EXPIRED],
        recovery_seconds=counters[count.RECOVERY_NS] / 1e9,
    )
