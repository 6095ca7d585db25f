"""Describe a fabric at one moment: frozen, and cheap to make (a few words and copies of histograms a worker)."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fabric import counters as count
from fabric.histogram import Histogram
from fabric.lanes import NO_TRAFFIC
from fabric.measured import Traffic
from fabric.meters import Measures

_Kind = TypeVar("_Kind", bound="ProcessStatistics")


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """The agents of one class, or several classes: messages that they were handed, and of these the errors."""

    name: str
    messages: int = 0
    errors: int = 0
    handler_time: Histogram = field(default_factory=Histogram)  # seconds a message, while handlers ran


@dataclass(frozen=True, slots=True)
class ProcessStatistics:
    """What every process counts, since its slot was first used: successors of a dead worker go on counting.

    Histograms of times are in seconds. Those with "metrics" are 0 or empty while Fabric.metrics is off.
    """

    slot: int
    pid: int
    received: int  # records of any kind
    batches: int
    bytes_in: int
    waited_seconds: float  # without work
    waiting_since: (
        float  # monotonic seconds: since when it waits now, which waited_seconds does not count yet; 0: at work
    )
    parks: int  # times that it slept
    wake_ups: int  # of these: that a bell ended
    spins_won: int  # waits that ended before it slept
    alarms: int  # lost wake-ups: must be 0
    dropped_bytes: int
    messages_sent: int  # metrics: to agents
    asks_sent: int  # metrics: to agents, and orders to workers, that expect a reply
    replies_sent: int  # metrics
    bytes_out: int  # metrics
    messages: int  # metrics: to agents, received
    replies: int  # metrics: received
    reply_errors: int  # metrics: of these
    encode_seconds: float
    decode_seconds: float
    arena_bytes: int  # in use
    arena_loans: int
    lane_time: Histogram  # metrics: from sent to received
    batch_sizes: Histogram  # metrics: messages received together
    round_trip: Histogram  # metrics: from question to reply, of those that it asked

    def waited_until(self, now: float) -> float:
        """Return waited_seconds with what it waits now, up to this moment (monotonic seconds)."""
        return self.waited_seconds + (max(0.0, now - self.waiting_since) if self.waiting_since else 0.0)


@dataclass(frozen=True, slots=True)
class WorkerStatistics(ProcessStatistics):
    """One worker; and what lies in its lane now."""

    alive: bool
    agents: int
    errors: int  # messages whose handler raised, or that found no agent
    lost: int  # messages to agents that had stopped meanwhile
    late_replies: int
    lane_bytes: int  # in its lane from the coordinator
    lane_capacity: int
    in_flight: int  # metrics: records in that lane
    sent: int  # records that the coordinator put there
    rows: int  # records that its array agents were handed
    snapshots: int
    replayed: int
    expired: int
    recovery_seconds: float
    starts: int  # processes that this slot has had
    started: float  # monotonic seconds
    waited_before: float  # of waited_seconds: by predecessors of the process that runs
    classes: Sequence[ClassStatistics]  # metrics; only those that it had messages for

    @property
    def batch_size(self) -> float:
        """Mean messages a batch."""
        return self.received / self.batches if self.batches else 0.0

    @property
    def lane_fill(self) -> float:
        """How full its lane is: 0 to 1."""
        return self.lane_bytes / self.lane_capacity if self.lane_capacity else 0.0

    @property
    def handler_time(self) -> Histogram:
        """Seconds a message, over all classes."""
        return Histogram.merged(one.handler_time for one in self.classes)

    def busy_seconds(self, now: float | None = None) -> float:
        """Seconds of this process's life in which it did not wait for work; of predecessors nothing is known."""
        moment = time.monotonic() if now is None else now
        waited = self.waited_until(moment) - self.waited_before
        return max(0.0, moment - self.started - waited)


@dataclass(frozen=True, slots=True)
class CoordinatorStatistics(ProcessStatistics):
    """The coordinator, as one of the processes."""

    timeouts: int  # calls that gave up waiting
    backpressure_waits: int  # calls that waited for room
    backpressure_seconds: float  # and how long
    refusals: int  # calls that may not wait and found no room


@dataclass(frozen=True, slots=True)
class Statistics:
    """A fabric: its workers, its coordinator, its agents by class.

    Example:
        >>> fab.statistics().round_trip.percentile(0.99)  # seconds
        5.2e-06
    """

    workers: tuple[WorkerStatistics, ...]
    former: tuple[WorkerStatistics, ...]  # of slots that have a worker no more: totals go on counting them
    coordinator: CoordinatorStatistics
    classes: Sequence[ClassStatistics]
    agents: int
    outstanding: int  # questions without a reply
    late_replies: int  # that nobody waited for any more
    dead_letters: int
    restarts: int
    recycled: int  # workers that left as they were told, and were replaced
    redelivered: int
    poisoned: int  # messages that killed too many workers
    alarms: int
    dropped_bytes: int  # in the coordinator's lanes: what could not be records, or not from a worker
    dropped_logs: int  # log records of workers: not read in time, or not to be read
    seconds: float  # monotonic: when this was taken
    measuring: bool  # are metrics on?

    @property
    def all_workers(self) -> tuple[WorkerStatistics, ...]:
        """Workers and former ones: all that the totals are made of."""
        return self.workers + self.former

    @property
    def received(self) -> int:
        """Records that the workers have taken from their lanes."""
        return sum(worker.received for worker in self.all_workers)

    @property
    def messages(self) -> int:
        """Messages that agents were handed, those of other agents and those that came again included."""
        return sum(worker.messages for worker in self.all_workers)

    @property
    def errors(self) -> int:
        """Messages whose handler raised, or that found no agent."""
        return sum(worker.errors for worker in self.all_workers)

    @property
    def round_trip(self) -> Histogram:
        """Seconds from the coordinator's question to its reply: end to end."""
        return self.coordinator.round_trip

    @property
    def lane_time(self) -> Histogram:
        """Seconds from sent to received, of messages to agents."""
        return Histogram.merged(worker.lane_time for worker in self.all_workers)

    @property
    def handler_time(self) -> Histogram:
        """Seconds a message, while handlers ran."""
        return Histogram.merged(one.handler_time for one in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; a histogram is its count, sum, mean, percentiles and maximum."""
        return _plain(self)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.to_dict()
    if isinstance(value, (tuple, _Classes)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    return value


class Source(Protocol):
    """Where the figures are read: fabric.meters.Meters, or what stands for it without a segment."""

    @property
    def measuring(self) -> bool: ...
    def pids(self) -> Sequence[int]: ...
    def class_names(self) -> Sequence[str]: ...
    def counters_of(self, process: int) -> memoryview: ...
    def traffic(self) -> Sequence[Traffic]: ...
    def measures(self, process: int, classes: int) -> Measures: ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is not read from counters: which slots there are, and what lies in their lanes."""

    slots: Sequence[int]  # that have a worker
    former: Sequence[int]  # that had one
    agents: Callable[[int], int]  # by slot
    lane: Callable[[int], tuple[int, int, int]]  # by slot: bytes in it, its capacity, records that went into it
    pids: Callable[[int], int]  # by slot; 0: nobody runs there
    facts: Mapping[str, int]  # fields of Statistics


def take(source: Source, known: Known) -> Statistics:
    """Read all figures. They are words of many writers: nothing is locked, nobody is asked."""
    names = source.class_names()
    traffic = source.traffic()
    own = source.counters_of(0)
    measures = {slot: source.measures(slot, len(names)) for slot in (*known.slots, *known.former)}
    workers, former = (
        tuple(
            _worker(slot, source.counters_of(slot), _at(traffic, slot), measures[slot], names, known) for slot in slots
        )
        for slots in (known.slots, known.former)
    )
    coordinator = _coordinator(source.pids()[0], own, _at(traffic, 0), source.measures(0, 0))
    counted = {
        "agents": sum(worker.agents for worker in workers),
        "outstanding": max(0, coordinator.asks_sent - coordinator.replies),
        "late_replies": own[count.LATE_REPLIES],
        "dead_letters": own[count.DEAD_LETTERS],
        "restarts": own[count.RESTARTS],
        "recycled": own[count.RECYCLED],
        "redelivered": own[count.REDELIVERED],
        "poisoned": own[count.POISONED],
        "dropped_bytes": own[count.DROPPED_BYTES],
        "dropped_logs": own[count.DROPPED_LOGS],
    }
    return Statistics(
        workers=workers,
        former=former,
        coordinator=coordinator,
        classes=_Classes(names, list(measures.values())),
        alarms=coordinator.alarms + sum(worker.alarms for worker in (*workers, *former)),
        seconds=time.monotonic(),
        measuring=source.measuring,
        **{**counted, **known.facts},
    )


def _at(traffic: Sequence[Traffic], slot: int) -> Traffic:
    return traffic[slot] if slot < len(traffic) else NO_TRAFFIC


def _process(slot: int, pid: int, counters: memoryview, traffic: Traffic, measures: Measures) -> tuple[Any, ...]:
    """What is counted by all processes alike, in the order of ProcessStatistics.

    They are its own words, each written by it alone.
    """
    return (
        slot,
        pid,
        counters[count.RECEIVED],
        counters[count.BATCHES],
        counters[count.BYTES_IN],
        counters[count.WAITED_NS] / 1e9,
        counters[count.WAITING_SINCE_NS] / 1e9,
        counters[count.PARKS],
        counters[count.WAKE_UPS],
        counters[count.SPINS_WON],
        counters[count.ALARMS],
        counters[count.DROPPED_BYTES],
        traffic.messages,
        traffic.asks,
        traffic.replies,
        traffic.bytes,
        counters[count.MESSAGES],
        counters[count.REPLIES],
        counters[count.REPLY_ERRORS],
        counters[count.ENCODE_NS] / 1e9,
        counters[count.DECODE_NS] / 1e9,
        counters[count.ARENA_BYTES],
        counters[count.ARENA_LOANS],
        measures.lane_time,
        measures.batch_sizes,
        measures.round_trip,
    )


def _worker(
    slot: int, counters: memoryview, traffic: Traffic, measures: Measures, names: Sequence[str], known: Known
) -> WorkerStatistics:
    pid = known.pids(slot)
    lane_bytes, capacity, sent = known.lane(slot)
    return _make_worker(
        *_process(slot, pid or counters[count.PID], counters, traffic, measures),
        pid != 0,
        known.agents(slot),
        counters[count.ERRORS],
        counters[count.LOST],
        counters[count.LATE_REPLIES],
        lane_bytes,
        capacity,
        traffic.in_flight,
        sent,
        counters[count.ROWS],
        counters[count.SNAPSHOTS],
        counters[count.REPLAYED],
        counters[count.EXPIRED],
        counters[count.RECOVERY_NS] / 1e9,
        counters[count.STARTS],
        counters[count.STARTED_NS] / 1e9,
        counters[count.WAITED_BEFORE_NS] / 1e9,
        _Classes(names, [measures]),
    )


def _coordinator(pid: int, counters: memoryview, traffic: Traffic, measures: Measures) -> CoordinatorStatistics:
    return _make_coordinator(
        *_process(0, pid, counters, traffic, measures),
        counters[count.TIMEOUTS],
        counters[count.BACKPRESSURE_WAITS],
        counters[count.BACKPRESSURE_NS] / 1e9,
        counters[count.REFUSALS],
    )


def _maker_of(kind: type[_Kind]) -> Callable[..., _Kind]:
    """Return what makes one of all its fields, in their order. Its own __init__ takes 5 us for 44 of them, this 3."""
    setters = [getattr(kind, one.name).__set__ for one in dataclasses.fields(kind)]

    def make(*values: Any) -> _Kind:
        made = object.__new__(kind)
        for put, value in zip(setters, values, strict=True):
            put(made, value)
        return made

    return make


_make_worker = _maker_of(WorkerStatistics)
_make_coordinator = _maker_of(CoordinatorStatistics)


class _Classes(Sequence[ClassStatistics]):
    """What several processes measured of each class, added up when it is looked at; of classes with messages."""

    __slots__ = ("_made", "_measured", "_names")

    def __init__(self, names: Sequence[str], measured: Sequence[Measures]) -> None:
        self._names = names
        self._measured = measured
        self._made: tuple[ClassStatistics, ...] | None = None

    def _all(self) -> tuple[ClassStatistics, ...]:
        if self._made is None:
            found = (self._one(number, name) for number, name in enumerate(self._names))
            self._made = tuple(one for one in found if one.messages or one.errors or one.handler_time)
        return self._made

    def _one(self, number: int, name: str) -> ClassStatistics:
        counted = [one for one in self._measured if number < len(one.messages)]
        messages, errors = sum(one.messages[number] for one in counted), sum(one.errors[number] for one in counted)
        return ClassStatistics(name, messages, errors, Histogram.merged(one.handler_time[number] for one in counted))

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._all(),)  # what it is made of is memory, which is not to be copied as such

    def __repr__(self) -> str:
        return repr(self._all())
