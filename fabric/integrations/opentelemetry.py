"""Show fabrics to OpenTelemetry: counters and gauges that are observed, histograms that go along with an exporter.

    instrument(fab, provider) ──▶ observable instruments ──▶ any reader of the provider
                       └───────▶ HistogramExporter(exporter) adds the histograms to what is exported

OpenTelemetry has no observable histogram, and to record each message again would cost more than to handle it. The
specification's answer is a MetricProducer, which the Python SDK does not have: see fabric.integrations.otel_histograms.
"""

import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from fabric.errors import ClosedError
from fabric.figures import FIGURES, Figure
from fabric.integrations.otel_histograms import SCOPE, HistogramExporter
from fabric.readings import Reader, Reading

__all__ = ["HistogramExporter", "instrument"]
_STALE_SECONDS = 1.0


def instrument(
    fabric: Any,
    meter_provider: MeterProvider | None = None,
    *,
    name: str = "0",
    histograms: HistogramExporter | None = None,
) -> None:
    """Have a provider observe the figures of a fabric; by default the global one.

    Names are those of docs/metrics.md with a dot, `fabric.messages`; `name` is the value of the attribute `fabric`.
    With `histograms`, the exporter of one of the provider's readers, that has the latencies. Without it they are told
    as `fabric.round_trip.count` and `fabric.round_trip.sum`, which give means. A closed fabric is shown as it was last,
    and one that is gone no more: nothing here keeps it.

    Raises:
        ClosedError: the fabric is closed.

    Example:
        >>> exporter = HistogramExporter(OTLPMetricExporter())
        >>> provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
        >>> instrument(fab, provider, histograms=exporter)
    """
    if fabric._closed:
        raise ClosedError("this fabric is closed: there is nothing to observe")
    provider = metrics.get_meter_provider() if meter_provider is None else meter_provider
    scope = {"fabric.identity": f"{fabric.identity:016x}"}  # else a second fabric's instruments would be the first's
    meter = provider.get_meter(SCOPE, attributes=scope)
    reader = Reader(fabric)
    _Observer(reader, name).register(meter, with_sums=histograms is None)
    if histograms is not None:
        histograms.add(reader, name, scope)


class _Observer:
    """Answers the callbacks of a collection, which come one after the other, from one reading."""

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._reading: Reading | None = None
        self._read_at = float("-inf")
        self._first = FIGURES[0]

    def register(self, meter: Meter, with_sums: bool) -> None:
        """Make the instruments; `with_sums`: of histograms a count and a sum."""
        for figure in FIGURES:
            callback = functools.partial(self._observe, figure)
            if figure.kind == "counter":
                meter.create_observable_counter(f"fabric.{figure.name}", [callback], figure.unit, figure.help)
            elif figure.kind == "gauge":
                meter.create_observable_gauge(f"fabric.{figure.name}", [callback], figure.unit, figure.help)
            elif with_sums:
                for part, unit in (("count", "{value}"), ("sum", figure.unit)):
                    callback = functools.partial(self._observe, figure, part=part)
                    text = f"{figure.help}: {part}"
                    meter.create_observable_counter(f"fabric.{figure.name}.{part}", [callback], unit, text)

    def _observe(self, figure: Figure, options: CallbackOptions, part: str | None = None) -> Iterable[Observation]:
        now = time.monotonic()
        if figure is self._first or now - self._read_at > _STALE_SECONDS:
            self._reading, self._read_at = self._reader.read(), now
        return () if self._reading is None else self._observations(figure, self._reading, part)

    def _observations(self, figure: Figure, reading: Reading, part: str | None) -> Iterator[Observation]:
        for labels, value in figure.rows(reading):
            attributes = {"fabric": self._name, **dict(zip(figure.labels, labels, strict=True))}
            yield Observation(value if part is None else getattr(value, part), attributes)
