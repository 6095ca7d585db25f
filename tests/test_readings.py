"""What exporters are told only grows, whoever dies meanwhile; and it ends with the fabric, which it does not keep."""

import dataclasses
import gc
import weakref

from fabric.readings import Reader
from fabric.statistics import ClassStatistics
from fabric.testing import InlineFabric
from fabric.usage import Usage


class Scripted:
    """Stands for a fabric whose statistics and usages are given."""

    def __init__(self, monkeypatch):
        with InlineFabric(workers=1) as fab:
            self.empty = fab.statistics()
        self._closed = False
        self.usages = {}
        self.set()
        monkeypatch.setattr("fabric.readings._USAGE_SECONDS", 0.0)
        monkeypatch.setattr("fabric.readings.UsageReader", lambda: self)

    def set(self, messages=0, errors=0, in_flight=0, pid=10, replies=0, reply_errors=0):
        [worker] = self.empty.workers
        worker = dataclasses.replace(
            worker,
            pid=pid,
            alive=pid != 0,
            classes=(ClassStatistics("A", messages, errors),),
            in_flight=in_flight,
            replies=replies,
            reply_errors=reply_errors,
        )
        self.now = dataclasses.replace(self.empty, workers=(worker,))

    def statistics(self):
        return self.now

    def read(self, pids):
        return {pid: self.usages[pid] for pid in pids if pid in self.usages}


def used(pid, seconds):
    return Usage(pid, 0.5, seconds, 10, 10, 1, 3)


def test_messages_in_hand_are_not_said_to_have_ended_well(monkeypatch):
    fab = Scripted(monkeypatch)
    reader = Reader(fab)
    fab.set(messages=100, errors=0, in_flight=10)
    assert reader.read().handled[1, "A"] == 90
    fab.set(messages=100, errors=10, in_flight=0)
    assert reader.read().handled[1, "A"] == 90


def test_what_ended_well_does_not_fall_while_more_is_in_hand(monkeypatch):
    fab = Scripted(monkeypatch)
    reader = Reader(fab)
    fab.set(messages=100)
    assert reader.read().handled[1, "A"] == 100
    fab.set(messages=100, in_flight=50)
    assert reader.read().handled[1, "A"] == 100
    fab.set(messages=150, errors=1)
    assert reader.read().handled[1, "A"] == 149


def test_good_replies_do_not_fall_when_an_error_is_counted_first(monkeypatch):
    fab = Scripted(monkeypatch)
    reader = Reader(fab)
    fab.set(replies=7)
    assert reader.read().good_replies[1] == 7
    fab.set(replies=7, reply_errors=1)
    assert reader.read().good_replies[1] == 7


def test_cpu_time_goes_on_from_that_of_the_dead_predecessor(monkeypatch):
    fab = Scripted(monkeypatch)
    reader = Reader(fab)
    fab.usages = {10: used(10, 5.0)}
    assert reader.read().cpu_seconds[1] == 5.0
    fab.set(pid=0)
    assert reader.read().cpu_seconds[1] == 5.0
    fab.set(pid=11)
    fab.usages = {11: used(11, 0.25)}
    assert reader.read().cpu_seconds[1] == 5.25
    assert reader.read().usage[1].pid == 11


def test_usage_is_asked_for_once_a_second_and_for_every_new_process(monkeypatch):
    fab = Scripted(monkeypatch)
    monkeypatch.setattr("fabric.readings._USAGE_SECONDS", 1000.0)
    reader = Reader(fab)
    coordinator = fab.now.coordinator.pid
    fab.usages = {10: used(10, 5.0), coordinator: used(coordinator, 1.0)}
    reader.read()
    fab.usages = {10: used(10, 6.0), 11: used(11, 0.5), coordinator: used(coordinator, 1.0)}
    assert reader.read().cpu_seconds[1] == 5.0
    fab.set(pid=11)
    assert reader.read().cpu_seconds[1] == 5.5


def test_a_closed_fabric_is_told_as_it_was_last_and_a_lost_one_not_at_all():
    fab = InlineFabric(workers=1)
    reader = Reader(fab)
    assert reader.read().is_open
    fab.close()
    reading = reader.read()
    assert (reading.is_open, reading.usage) == (False, {})
    assert reading.statistics is fab.statistics()
    held = weakref.ref(fab)
    del fab
    gc.collect()
    assert held() is None
    assert reader.read() is None
