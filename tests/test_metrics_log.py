"""Samples and alerts as log records: a line for people, figures for programs."""

import json
import logging
import sys
import threading

import pytest

from fabric import Fabric
from fabric.alerts import Alert, slow
from fabric.integrations.logs import JsonFormatter, figures_of, log_samples
from fabric.testing import InlineFabric
from tests.metrics_agents import Picky


class Heard(logging.Handler):
    """Keeps records, and lets a test wait for so many."""

    def __init__(self):
        super().__init__()
        self.records, self.arrived = [], threading.Condition()

    def emit(self, record):
        with self.arrived:
            self.records.append(record)
            self.arrived.notify_all()

    def wait_for(self, count):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.records) >= count, timeout=20)


@pytest.fixture
def heard():
    """The records of the logger "fabric.metrics"."""
    logger, handler = logging.getLogger("fabric.metrics"), Heard()
    level, logger.level = logger.level, logging.INFO
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.level = level


def test_samples_are_logged_on_their_own_until_the_fabric_closes(heard):
    with InlineFabric(workers=2) as fab:
        log_samples(fab, 0.01)
        heard.wait_for(3)
    count = len(heard.records)
    assert {record.levelname for record in heard.records} == {"INFO"}
    assert "messages/s, 0 errors/s, p99 0 s, 2 of 2 workers" in heard.records[0].getMessage()
    assert len(heard.records) == count


def test_a_record_has_the_figures_of_its_sample(heard):
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        log_samples(fab, 1000.0)
        heard.wait_for(1)  # its own first one
        fab.ask_many(list(fab.spawn_batch(Picky, 4)) * 10, list(range(40)), return_exceptions=True)
        fab.drain(timeout=30)
        sample = fab.sampler.sample()
    figures = heard.records[-1].fabric
    assert figures == figures_of(sample)
    assert (figures["messages"], figures["errors"], figures["agents"]) == (40, 20, 4)
    assert figures["messages_per_second"] == pytest.approx(40 / figures["interval"])
    assert figures["errors_per_second"] == pytest.approx(20 / figures["interval"])
    assert 0 < figures["round_trip_p50"] <= figures["round_trip_p99"]
    assert sum(worker["messages_per_second"] for worker in figures["workers"]) == pytest.approx(
        40 / figures["interval"]
    )
    assert all(worker["alive"] and worker["resident_bytes"] > 10**7 for worker in figures["workers"])
    assert "2 of 2 workers, 4 agents" in heard.records[-1].getMessage()


def test_the_json_formatter_writes_it_as_one_line_that_reads_back(heard):
    with InlineFabric(workers=1) as fab:
        log_samples(fab, 1000.0)
        heard.wait_for(1)  # its own first one
        sample = fab.sampler.sample()
    line = JsonFormatter().format(heard.records[-1])
    found = json.loads(line)
    assert "\n" not in line
    assert found["fabric"] == json.loads(json.dumps(figures_of(sample)))
    assert (found["level"], found["logger"]) == ("INFO", "fabric.metrics")
    assert found["time"].endswith("+00:00")


def test_the_json_formatter_writes_records_of_others_too():
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("theirs", logging.ERROR, __file__, 1, "it %s", ("broke",), sys.exc_info())
    record.worker = 3
    found = json.loads(JsonFormatter().format(record))
    assert (found["message"], found["worker"], "fabric" in found) == ("it broke", 3, False)
    assert "ValueError: no" in found["exception"]


def test_what_json_cannot_say_is_written_all_the_same():
    record = logging.LogRecord("theirs", logging.ERROR, __file__, 1, "cannot read %s", ("caf\udce9",), None)
    record.fabric = {"figure": 2**70}
    found = json.loads(JsonFormatter().format(record))
    assert (found["message"], found["fabric"]) == ("cannot read caf\udce9", {"figure": 2**70})


def test_alerts_are_logged_as_warnings_once(heard):
    alert = Alert("too hot", "it is too hot", 1)
    with InlineFabric(workers=1) as fab:
        log_samples(fab, 1000.0, conditions=[lambda history: [alert]])
        fab.sampler.sample()
        fab.sampler.sample()
    [record] = [record for record in heard.records if record.levelno == logging.WARNING]
    assert record.getMessage() == "it is too hot"
    assert record.fabric == {"alert": "too hot", "worker": 1}


def test_a_latency_over_its_target_is_an_alert(heard):
    with Fabric(workers=1) as fab:
        log_samples(fab, 1000.0, conditions=[slow(1e-9)])
        fab.spawn_batch(Picky, 1)[0].ask(0)
        fab.sampler.sample()
    assert any("99.0% of round trip is" in record.getMessage() for record in heard.records)


def test_nothing_is_logged_once_it_is_stopped(heard):
    with InlineFabric(workers=1) as fab:
        stop = log_samples(fab, 1000.0, conditions=[lambda history: [Alert("a", "b")]])
        stop()
        fab.sampler.sample()
    assert heard.records == []


def test_a_level_that_is_off_costs_no_figures(heard, monkeypatch):
    monkeypatch.setattr("fabric.integrations.logs.figures_of", lambda sample: 1 / 0)
    with InlineFabric(workers=1) as fab:
        log_samples(fab, 1000.0, level=logging.DEBUG)
        fab.sampler.sample()
    assert heard.records == []


def test_an_interval_that_cannot_be_leaves_nothing_behind(heard):
    with InlineFabric(workers=1) as fab:
        with pytest.raises(ValueError, match="interval=0"):
            log_samples(fab, 0)
        fab.sampler.sample()
    assert heard.records == []
