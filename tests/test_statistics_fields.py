"""Statistics are made by place: each figure must be told under its own name."""

import dataclasses
from array import array

import pytest

from fabric import counters as count
from fabric.measured import Traffic
from fabric.meters import NOTHING_MEASURED
from fabric.statistics import CoordinatorStatistics, Known, WorkerStatistics, take

ONE_BY_ONE = memoryview(array("Q", range(1_000, 1_064)))  # each counter is 1,000 more than its place
TRAFFIC = Traffic(messages=1, asks=2, replies=3, bytes=4, waiting_bytes=5, in_flight=6)
COUNTED = {
    "received": count.RECEIVED,
    "batches": count.BATCHES,
    "bytes_in": count.BYTES_IN,
    "parks": count.PARKS,
    "wake_ups": count.WAKE_UPS,
    "spins_won": count.SPINS_WON,
    "alarms": count.ALARMS,
    "dropped_bytes": count.DROPPED_BYTES,
    "messages": count.MESSAGES,
    "replies": count.REPLIES,
    "reply_errors": count.REPLY_ERRORS,
    "arena_bytes": count.ARENA_BYTES,
    "arena_loans": count.ARENA_LOANS,
}
TIMED = {
    "waited_seconds": count.WAITED_NS,
    "waiting_since": count.WAITING_SINCE_NS,
    "encode_seconds": count.ENCODE_NS,
    "decode_seconds": count.DECODE_NS,
}
TOLD = {"messages_sent": 1, "asks_sent": 2, "replies_sent": 3, "bytes_out": 4}
HISTOGRAMS = {"lane_time", "batch_sizes", "round_trip"}
OF_WORKERS = {
    "errors": count.ERRORS,
    "lost": count.LOST,
    "late_replies": count.LATE_REPLIES,
    "rows": count.ROWS,
    "snapshots": count.SNAPSHOTS,
    "replayed": count.REPLAYED,
    "expired": count.EXPIRED,
    "starts": count.STARTS,
}
TIMED_OF_WORKERS = {
    "recovery_seconds": count.RECOVERY_NS,
    "started": count.STARTED_NS,
    "waited_before": count.WAITED_BEFORE_NS,
}
TOLD_OF_WORKERS = {
    "slot": 1,
    "pid": 70,
    "alive": True,
    "agents": 11,
    "lane_bytes": 21,
    "lane_capacity": 22,
    "sent": 23,
    "in_flight": 6,
    "classes": (),
}
OF_THE_COORDINATOR = {
    "timeouts": count.TIMEOUTS,
    "backpressure_waits": count.BACKPRESSURE_WAITS,
    "refusals": count.REFUSALS,
}


class OneByOne:
    """Figures that can all be told apart."""

    measuring = True

    def pids(self):
        return [60, 70]

    def class_names(self):
        return ["(several)"]

    def counters_of(self, process):
        return ONE_BY_ONE

    def traffic(self):
        return [TRAFFIC, TRAFFIC]

    def measures(self, process, classes):
        return NOTHING_MEASURED


@pytest.fixture
def found():
    return take(OneByOne(), Known([1], [], lambda slot: 11, lambda slot: (21, 22, 23), lambda slot: 70, {}))


def _due(counted, timed, told):
    return {
        **{name: 1_000 + place for name, place in counted.items()},
        **{name: (1_000 + place) / 1e9 for name, place in timed.items()},
        **told,
    }


@pytest.mark.parametrize("which", ["worker", "coordinator"])
def test_each_figure_is_told_under_its_own_name(found, which):
    if which == "worker":
        (one,), kind = found.workers, WorkerStatistics
        due = _due(COUNTED | OF_WORKERS, TIMED | TIMED_OF_WORKERS, TOLD | TOLD_OF_WORKERS)
    else:
        one, kind = found.coordinator, CoordinatorStatistics
        timed = TIMED | {"backpressure_seconds": count.BACKPRESSURE_NS}
        due = _due(COUNTED | OF_THE_COORDINATOR, timed, TOLD | {"slot": 0, "pid": 60})
    assert type(one) is kind
    assert {name: getattr(one, name) for name in due} == due
    assert due.keys() | HISTOGRAMS == {field.name for field in dataclasses.fields(kind)}, "and there is no other"


def test_they_are_as_if_made_by_name(found):
    for one in (*found.workers, found.coordinator):
        named = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        assert type(one)(**named) == one
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.received = 0
