"""Name every figure that a fabric exports: what Prometheus, OpenTelemetry, the documentation and Grafana go by.

Pure: a Reading goes in, labelled values come out. Units are those of UCUM, as OpenTelemetry writes them;
Prometheus's names are made of ours: fabric_<name>[_seconds|_bytes][_total].
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fabric.histogram import COUNTS, Histogram, bucket_of, lowest_of
from fabric.readings import Reading
from fabric.statistics import ProcessStatistics

SECONDS, BYTES = "s", "By"
_SUFFIXES = {SECONDS: "seconds", BYTES: "bytes"}
Rows = Iterable[tuple[tuple[str, ...], Any]]
_WORKER = ("worker",)

# Bounds of classic buckets. Of times: powers of two of nanoseconds, which are ends of our own buckets, so counts are
# exact. 1 us to 17 s.
TIME_BOUNDS = tuple(2**power / 1e9 for power in range(10, 35))
SIZE_BOUNDS = tuple(float(2**power) for power in range(13))


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: a counter only grows, a histogram's values are fabric.histogram.Histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str  # "s", "By", or what is counted: "{message}"
    help: str
    labels: tuple[str, ...]
    read: Callable[[Reading], Rows]
    bounds: tuple[float, ...] = ()

    @property
    def suffix(self) -> str:
        """The unit as Prometheus writes it; empty for counts."""
        return _SUFFIXES.get(self.unit, "")

    @property
    def prometheus_name(self) -> str:
        """Its whole name in Prometheus: of a histogram without _bucket, _sum and _count."""
        parts = ("fabric", self.name, self.suffix, "total" if self.kind == "counter" else "")
        return "_".join(part for part in parts if part)

    def rows(self, reading: Reading) -> Rows:
        """Return the values, each with those of its labels; of a closed fabric what was counted only."""
        if reading.is_open or self.kind != "gauge" or self.name == "up":
            return self.read(reading)
        return ()


def up_to(bounds: Iterable[float], histogram: Histogram) -> list[int]:
    """Return how many values are up to each bound of classic buckets.

    The bound of a time ends a bucket of ours. That of a size begins one, which is counted too: exact up to 64.
    """
    if histogram.scale == COUNTS:
        bounds = [lowest_of(bucket_of(int(bound)) + 1) for bound in bounds]
    return histogram.below(bounds)


def worker_label(slot: int) -> str:
    """Return how a process is called in labels."""
    return str(slot) if slot else "coordinator"


def _processes(reading: Reading) -> Iterator[tuple[tuple[str], ProcessStatistics]]:
    for one in (reading.statistics.coordinator, *reading.statistics.all_workers):
        yield (worker_label(one.slot),), one


def _of_fabric(name: str) -> Callable[[Reading], Rows]:
    return lambda reading: [((), getattr(reading.statistics, name))]


def _of_coordinator(name: str) -> Callable[[Reading], Rows]:
    return lambda reading: [((), getattr(reading.statistics.coordinator, name))]


def _of_workers(name: str) -> Callable[[Reading], Rows]:
    """What is counted: of slots that have a worker no more too, or a total would fall."""
    return lambda reading: [((str(one.slot),), getattr(one, name)) for one in reading.statistics.all_workers]


def _now_of_workers(name: str) -> Callable[[Reading], Rows]:
    return lambda reading: [((str(one.slot),), getattr(one, name)) for one in reading.statistics.workers]


def _of_all(name: str) -> Callable[[Reading], Rows]:
    return lambda reading: [(labels, getattr(one, name)) for labels, one in _processes(reading)]


def _of_usage(name: str) -> Callable[[Reading], Rows]:
    return lambda reading: [((worker_label(slot),), getattr(one, name)) for slot, one in reading.usage.items()]


def _messages(reading: Reading) -> Rows:
    for worker in reading.statistics.all_workers:
        for one in worker.classes:
            yield (str(worker.slot), one.name, "ok"), reading.handled[worker.slot, one.name]
            yield (str(worker.slot), one.name, "error"), one.errors


def _replies(reading: Reading) -> Rows:
    for labels, one in _processes(reading):
        yield (*labels, "ok"), reading.good_replies[one.slot]
        yield (*labels, "error"), one.reply_errors


def _late_replies(reading: Reading) -> Rows:
    yield ("coordinator",), reading.statistics.late_replies
    yield from _of_workers("late_replies")(reading)


def _dropped_bytes(reading: Reading) -> Rows:
    yield ("coordinator",), reading.statistics.dropped_bytes
    yield from _of_workers("dropped_bytes")(reading)


def _started(reading: Reading) -> Rows:
    epoch = round(time.time() - time.monotonic(), 2)
    return [((str(one.slot),), epoch + one.started) for one in reading.statistics.workers if one.alive]


def _handler_time(reading: Reading) -> Rows:
    for worker in reading.statistics.all_workers:
        for one in worker.classes:
            yield (str(worker.slot), one.name), one.handler_time


def _round_trip(reading: Reading) -> Rows:
    return [(labels, one.round_trip) for labels, one in _processes(reading) if one.round_trip or one.slot == 0]


def _cpu(reading: Reading) -> Rows:
    return [((worker_label(slot),), seconds) for slot, seconds in reading.cpu_seconds.items()]


def _counter(
    name: str, unit: str, text: str, read: Callable[[Reading], Rows], labels: tuple[str, ...] = _WORKER
) -> Figure:
    return Figure(name, "counter", unit, text, labels, read)


def _gauge(
    name: str, unit: str, text: str, read: Callable[[Reading], Rows], labels: tuple[str, ...] = _WORKER
) -> Figure:
    return Figure(name, "gauge", unit, text, labels, read)


MESSAGES = (
    _counter(
        "messages",
        "{message}",
        "Messages that agents were handed, by class and by how they ended; what comes again after a crash counts again",
        _messages,
        ("worker", "agent_class", "status"),
    ),
    _counter("messages_sent", "{message}", "Messages to agents that were sent", _of_all("messages_sent")),
    _counter(
        "asks_sent", "{message}", "Messages to agents and orders to workers that expect a reply", _of_all("asks_sent")
    ),
    _counter("replies_sent", "{reply}", "Replies that were sent", _of_all("replies_sent")),
    _counter("replies", "{reply}", "Replies that were received", _replies, ("worker", "status")),
    _counter("sent", BYTES, "Bytes of records that were sent, headers included", _of_all("bytes_out")),
    _counter("received", BYTES, "Bytes of records that were received, headers included", _of_all("bytes_in")),
    _counter("records_received", "{record}", "Records of any kind that were received", _of_all("received")),
    _counter("batches", "{batch}", "Batches in which records were received", _of_all("batches")),
    _counter("array_records", "{record}", "Records that array agents were handed", _of_workers("rows")),
    _gauge("in_flight_records", "{record}", "Records in the lane from the coordinator", _now_of_workers("in_flight")),
    _gauge("lane_used", BYTES, "Bytes in the lane from the coordinator", _now_of_workers("lane_bytes")),
    _gauge("lane_capacity", BYTES, "Size of the lane from the coordinator", _now_of_workers("lane_capacity")),
    _gauge("outstanding_asks", "{message}", "Asks without a reply yet", _of_fabric("outstanding"), ()),
)

TIMES = (
    Figure(
        "round_trip",
        "histogram",
        SECONDS,
        "Time from question to reply, where it was asked",
        _WORKER,
        _round_trip,
        TIME_BOUNDS,
    ),
    Figure(
        "lane_time",
        "histogram",
        SECONDS,
        "Time of messages from sent to received",
        _WORKER,
        _of_workers("lane_time"),
        TIME_BOUNDS,
    ),
    Figure(
        "handler_time",
        "histogram",
        SECONDS,
        "Time of a message in its handler, by class; fast ones are sampled and scaled",
        ("worker", "agent_class"),
        _handler_time,
        TIME_BOUNDS,
    ),
    Figure(
        "batch_size",
        "histogram",
        "{message}",
        "Messages to agents that were received together",
        _WORKER,
        _of_workers("batch_sizes"),
        SIZE_BOUNDS,
    ),
    _counter("encoding", SECONDS, "Time spent encoding bodies; single ones are sampled", _of_all("encode_seconds")),
    _counter("decoding", SECONDS, "Time spent decoding bodies; single ones are sampled", _of_all("decode_seconds")),
    _counter("idle", SECONDS, "Time spent waiting for work; the rest is busy", _of_all("waited_seconds")),
    _counter("parks", "{wait}", "Waits in which it slept", _of_all("parks")),
    _counter("wake_ups", "{wait}", "Sleeps that a bell ended", _of_all("wake_ups")),
    _counter("spins_won", "{wait}", "Waits that ended before it slept", _of_all("spins_won")),
    _counter("backpressure_waits", "{wait}", "Sends that waited for room", _of_coordinator("backpressure_waits"), ()),
    _counter(
        "backpressure", SECONDS, "Time that sends waited for room, in all", _of_coordinator("backpressure_seconds"), ()
    ),
    _counter(
        "refused_sends", "{message}", "Sends that may not wait and found no room", _of_coordinator("refusals"), ()
    ),
    _counter("timeouts", "{call}", "Calls that gave up waiting", _of_coordinator("timeouts"), ()),
)

TROUBLE = (
    _counter("dead_letters", "{message}", "Told messages that could not be handled", _of_fabric("dead_letters"), ()),
    _counter("restarts", "{process}", "Workers that died and were replaced", _of_fabric("restarts"), ()),
    _counter(
        "recycled", "{process}", "Workers that left as they were told and were replaced", _of_fabric("recycled"), ()
    ),
    _counter(
        "redelivered", "{message}", "Messages that a dead worker had begun, sent again", _of_fabric("redelivered"), ()
    ),
    _counter("poisoned", "{message}", "Messages put aside: they killed too many workers", _of_fabric("poisoned"), ()),
    _counter("dropped_logs", "{record}", "Log records of workers that were lost", _of_fabric("dropped_logs"), ()),
    _counter("dropped", BYTES, "Bytes in lanes that could not be records", _dropped_bytes),
    _counter(
        "lost_wake_ups", "{wait}", "Wake-ups that the safety net had to make up for: must be 0", _of_all("alarms")
    ),
    _counter("late_replies", "{reply}", "Replies that nobody waited for any more", _late_replies),
    _counter("lost_messages", "{message}", "Messages to agents that had stopped meanwhile", _of_workers("lost")),
    _counter(
        "expired_messages", "{message}", "Messages skipped, for whoever asked had given up", _of_workers("expired")
    ),
    _counter("replayed_messages", "{message}", "Messages handled again to restore agents", _of_workers("replayed")),
    _counter("snapshots", "{snapshot}", "Snapshots taken of agents", _of_workers("snapshots")),
    _counter("recovery", SECONDS, "Time from workers seen dead to successors at work", _of_workers("recovery_seconds")),
    _counter("process_starts", "{process}", "Processes that the slot has had", _of_workers("starts")),
)

PROCESSES = (
    _gauge("up", "{fabric}", "1 while the fabric is open", lambda reading: [((), int(reading.is_open))], ()),
    _gauge("metrics_on", "{fabric}", "1 while metrics are kept", lambda r: [((), int(r.statistics.measuring))], ()),
    _gauge(
        "worker_up",
        "{process}",
        "1 while a process runs in the slot",
        lambda reading: [((str(one.slot),), int(one.alive)) for one in reading.statistics.workers],
    ),
    _gauge("agents", "{agent}", "Agents alive", _now_of_workers("agents")),
    _gauge("arena_used", BYTES, "Bytes in use in the arena for large payloads", _of_all("arena_bytes")),
    _gauge("arena_loans", "{loan}", "Pieces of the arena that others hold", _of_all("arena_loans")),
    _gauge("process_start_time", SECONDS, "When the process began, since 1970", _started),
    _counter("process_cpu", SECONDS, "CPU time of the processes that the slot has had, as far as seen", _cpu),
    _gauge(
        "process_resident_memory",
        BYTES,
        "Memory of the process, touched shared pages included",
        _of_usage("resident_bytes"),
    ),
    _gauge("process_private_memory", BYTES, "Of this: shared with nobody", _of_usage("private_bytes")),
    _gauge("process_threads", "{thread}", "Threads of the process", _of_usage("threads")),
    _gauge("process_open_fds", "{descriptor}", "Open descriptors of the process", _of_usage("descriptors")),
)

FIGURES = (*MESSAGES, *TIMES, *TROUBLE, *PROCESSES)
