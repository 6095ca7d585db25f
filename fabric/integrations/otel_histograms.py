"""Put our histograms beside what OpenTelemetry's SDK exports.

    reader ── collected metrics ──▶ HistogramExporter ── the same, and histograms ──▶ the exporter behind it

The SDK makes histograms of single recorded values only, and has no hook for ready ones but this: data points are
public, and an exporter may be handed more of them. It follows what the exporter behind it prefers: cumulative or delta,
explicit buckets (exact, for bounds end buckets of ours) or exponential ones (within 6 %: see fabric.exponential).
"""

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.metrics import Histogram as HistogramInstrument
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from fabric.exponential import exponential
from fabric.figures import FIGURES, Figure, up_to
from fabric.histogram import Histogram
from fabric.readings import Reader

SCOPE = "fabric"
_HISTOGRAMS = tuple(figure for figure in FIGURES if figure.kind == "histogram")


class HistogramExporter(MetricExporter):
    """An exporter that adds the histograms of fabrics to what it hands on: see fabric.integrations.opentelemetry."""

    def __init__(self, exporter: MetricExporter) -> None:
        temporality = exporter._preferred_temporality or {}
        aggregation = exporter._preferred_aggregation or {}
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._lock = threading.Lock()
        self._sources: list[_Source] = []
        self._temporality = temporality.get(HistogramInstrument, AggregationTemporality.CUMULATIVE)
        self._exponential = isinstance(aggregation.get(HistogramInstrument), ExponentialBucketHistogramAggregation)

    def add(self, reader: Reader, name: str, scope: Mapping[str, str]) -> None:
        """Add the histograms of one more fabric from now on; `scope` are attributes of its meter."""
        source = _Source(reader, name, scope, self._temporality is AggregationTemporality.DELTA, self._exponential)
        with self._lock:
            self._sources.append(source)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Hand on what was collected, with the histograms in the first resource."""
        with self._lock:
            now = time.time_ns()
            scopes = [scope for source in self._sources if (scope := source.scope_metrics(now)) is not None]
        if scopes and metrics_data.resource_metrics:
            first, *rest = metrics_data.resource_metrics
            first = dataclasses.replace(first, scope_metrics=[*first.scope_metrics, *scopes])
            metrics_data = MetricsData([first, *rest])
        return self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Do as the exporter behind this one."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Do as the exporter behind this one."""
        self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)


class _Source:
    """The histograms of one fabric, for one exporter."""

    def __init__(self, reader: Reader, name: str, scope: Mapping[str, str], delta: bool, is_exponential: bool) -> None:
        self._reader = reader
        self._name = name
        self._scope = InstrumentationScope(SCOPE, None, None, dict(scope))
        self._delta = delta
        self._exponential = is_exponential
        self._start = time.time_ns()
        self._before: dict[tuple[str, ...], Histogram] = {}

    def scope_metrics(self, now: int) -> ScopeMetrics | None:
        """Return the histograms as they are now. None: the fabric is gone."""
        reading = self._reader.read()
        if reading is None:
            return None
        metrics = []
        for figure in _HISTOGRAMS:
            rows = [(labels, self._due(figure, labels, value)) for labels, value in figure.rows(reading)]
            points = [self._point(figure, labels, value, now) for labels, value in rows]
            metrics.append(Metric(f"fabric.{figure.name}", figure.help, figure.unit, self._data(points)))
        if self._delta:
            self._start = now
        return ScopeMetrics(self._scope, metrics, "")

    def _data(self, points: list[Any]) -> Any:
        temporality = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
        return (ExponentialHistogram if self._exponential else HistogramData)(points, temporality)

    def _due(self, figure: Figure, labels: tuple[str, ...], value: Histogram) -> Histogram:
        """Return what is to be told: all of it, or what came since it was told last."""
        if not self._delta:
            return value
        before = self._before.get((figure.name, *labels))
        self._before[figure.name, *labels] = value
        return value if before is None else value - before

    def _point(self, figure: Figure, labels: tuple[str, ...], value: Histogram, now: int) -> Any:
        attributes = {"fabric": self._name, **dict(zip(figure.labels, labels, strict=True))}
        common: dict[str, Any] = {
            "attributes": attributes,
            "start_time_unix_nano": self._start,
            "time_unix_nano": now,
            "count": value.count,
            "sum": value.sum,
            "min": next((start for start, _, _ in value.buckets()), 0.0),
            "max": value.maximum,
        }
        if self._exponential:
            return _exponential_point(value, common)
        counts = list(_differences([*up_to(figure.bounds, value), value.count]))
        return HistogramDataPoint(bucket_counts=counts, explicit_bounds=figure.bounds, **common)


def _exponential_point(value: Histogram, common: Mapping[str, Any]) -> ExponentialHistogramDataPoint:
    made = exponential(value)
    first, counts = made.dense()
    positive = Buckets(first - 1, counts)  # OpenTelemetry numbers a bucket by its lower bound
    return ExponentialHistogramDataPoint(
        scale=made.scale, zero_count=made.zeros, positive=positive, negative=Buckets(0, []), flags=0, **common
    )


def _differences(cumulative: list[int]) -> Iterator[int]:
    for before, upto in itertools.pairwise([0, *cumulative]):
        yield upto - before
