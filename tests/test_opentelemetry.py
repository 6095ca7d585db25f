"""What OpenTelemetry collects and exports equals what happened; its own data model holds it."""

import gc
import json
import math

import pytest

from fabric import ClosedError, Fabric
from fabric.figures import FIGURES
from fabric.testing import InlineFabric
from tests.metrics_agents import Other, Picky

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is NOT TESTED: scripts/env installs it")

from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from fabric.integrations.opentelemetry import HistogramExporter, instrument


class Kept(MetricExporter):
    """An exporter that keeps the last of what it is given."""

    def __init__(self, **preferences):
        super().__init__(**preferences)
        self.data, self.flushed, self.ended = None, False, False

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.data = metrics_data
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        self.flushed = True
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        self.ended = True


def metrics_of(data):
    """All metrics by name; of several fabrics the points together."""
    found = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).append(metric)
    return found


def points_of(data, name):
    return [point for metric in metrics_of(data).get(name, ()) for point in metric.data.data_points]


def total(data, name, **attributes):
    return sum(point.value for point in points_of(data, name) if attributes.items() <= dict(point.attributes).items())


@pytest.fixture
def collected():
    """A provider and its reader."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider, reader
    provider.shutdown()


def exporting(**preferences):
    """A provider, the exporter that adds histograms, and the one behind it. Nothing is exported but by force_flush."""
    behind = Kept(**preferences)
    exporter = HistogramExporter(behind)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    return MeterProvider([reader], shutdown_on_exit=False), exporter, behind


def test_counts_equal_the_messages_sent_by_class_and_status(collected):
    provider, reader = collected
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        instrument(fab, provider)
        fab.ask_many(list(fab.spawn_batch(Picky, 4)) * 10, list(range(40)), return_exceptions=True)
        fab.spawn_batch(Other, 4).ask_all(1)
        fab.drain(timeout=30)
    data = reader.get_metrics_data()
    for kind, status, count in (("Picky", "ok", 20), ("Picky", "error", 20), ("Other", "ok", 4), ("Other", "error", 0)):
        assert total(data, "fabric.messages", agent_class=kind, status=status) == count
    assert total(data, "fabric.messages_sent", worker="coordinator") == 44
    assert total(data, "fabric.round_trip.count", worker="coordinator") == 44
    assert total(data, "fabric.round_trip.sum", worker="coordinator") > 0


def test_every_figure_is_an_instrument_of_its_kind_and_unit(collected):
    provider, reader = collected
    with Fabric(workers=1, on_error=lambda letter: None) as fab:
        instrument(fab, provider)
        fab.spawn_batch(Picky, 1)[0].ask(0)
        metrics = metrics_of(reader.get_metrics_data())
    for figure in FIGURES:
        if figure.kind == "histogram":
            assert {f"fabric.{figure.name}.count", f"fabric.{figure.name}.sum"} <= metrics.keys()
            continue
        [metric] = metrics[f"fabric.{figure.name}"]
        assert (metric.unit, metric.description) == (figure.unit, figure.help)
        assert getattr(metric.data, "is_monotonic", False) == (figure.kind == "counter")


def test_one_collection_is_one_reading(collected, monkeypatch):
    provider, reader = collected
    with InlineFabric(workers=1) as fab:
        calls = []
        statistics = fab.statistics
        monkeypatch.setattr(fab, "statistics", lambda: calls.append(1) or statistics())
        instrument(fab, provider)
        reader.get_metrics_data()
        reader.get_metrics_data()
        assert len(calls) == 2
        monkeypatch.undo()


def test_several_fabrics_are_told_apart_by_an_attribute(collected):
    provider, reader = collected
    with InlineFabric(workers=1) as first, InlineFabric(workers=2) as second:
        instrument(first, provider, name="first")
        instrument(second, provider, name="second")
        data = reader.get_metrics_data()
    assert total(data, "fabric.worker_up", fabric="first") == 1
    assert total(data, "fabric.worker_up", fabric="second") == 2


def test_a_closed_fabric_is_not_up_and_one_that_is_gone_not_shown(collected):
    provider, reader = collected
    fab = InlineFabric(workers=1)
    instrument(fab, provider)
    fab.close()
    with pytest.raises(ClosedError):
        instrument(fab, provider)
    data = reader.get_metrics_data()
    assert [point.value for point in points_of(data, "fabric.up")] == [0]
    assert points_of(data, "fabric.agents") == []
    del fab
    gc.collect()
    assert all(not points_of(reader.get_metrics_data(), f"fabric.{figure.name}") for figure in FIGURES)


def test_histograms_are_exported_with_exact_buckets():
    provider, exporter, behind = exporting()
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        instrument(fab, provider, histograms=exporter)
        fab.ask_many(list(fab.spawn_batch(Picky, 4)) * 10, list(range(40)), return_exceptions=True)
        fab.drain(timeout=30)
        provider.force_flush()
    [point] = points_of(behind.data, "fabric.round_trip")
    assert dict(point.attributes) == {"fabric": "0", "worker": "coordinator"}
    assert point.count == sum(point.bucket_counts) == 40
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert 0 < point.min <= point.sum / 40 <= point.max * 1.01
    assert sum(point.count for point in points_of(behind.data, "fabric.lane_time")) == 40
    assert sum(point.sum for point in points_of(behind.data, "fabric.batch_size")) == 40
    assert "fabric.round_trip.count" not in metrics_of(behind.data)
    [metric] = metrics_of(behind.data)["fabric.round_trip"]
    assert (metric.unit, metric.data.aggregation_temporality) == ("s", AggregationTemporality.CUMULATIVE)
    json.loads(behind.data.to_json())
    provider.shutdown()
    assert (behind.flushed, behind.ended) == (True, True)


def test_an_exporter_that_prefers_exponential_histograms_gets_them():
    provider, exporter, behind = exporting(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})
    with Fabric(workers=1) as fab:
        instrument(fab, provider, histograms=exporter)
        fab.spawn_batch(Other, 8).ask_all(1)
        provider.force_flush()
    [point] = points_of(behind.data, "fabric.round_trip")
    assert point.count == sum(point.positive.bucket_counts) + point.zero_count == 8
    lower = 2 ** (point.positive.offset / 2**point.scale)
    upper = lower * 2 ** (len(point.positive.bucket_counts) / 2**point.scale)
    # A value is counted where the middle of its log-linear bucket lies, half of 1/32 away at most.
    assert lower <= point.max * (1 + 1 / 64)
    assert upper >= point.min * (1 - 1 / 64)
    json.loads(behind.data.to_json())
    provider.shutdown()


def test_an_exporter_that_prefers_deltas_gets_what_came_since_the_last():
    provider, exporter, behind = exporting(preferred_temporality={Histogram: AggregationTemporality.DELTA})
    with Fabric(workers=1) as fab:
        instrument(fab, provider, histograms=exporter)
        agents = fab.spawn_batch(Other, 8)
        found = []
        for asked in (8, 8, 3, 0):
            agents[:asked].ask_all(1)
            provider.force_flush()
            found += [(asked, point) for point in points_of(behind.data, "fabric.round_trip")]
    assert [point.count for _, point in found] == [asked for asked, _ in found]
    assert [before.time_unix_nano for _, before in found[:-1]] == [after.start_time_unix_nano for _, after in found[1:]]
    provider.shutdown()


def test_the_exporter_hands_on_what_is_not_ours():
    provider, _, behind = exporting()
    provider.get_meter("theirs").create_counter("theirs.count").add(3)
    provider.force_flush()
    assert total(behind.data, "theirs.count") == 3
    provider.shutdown()
