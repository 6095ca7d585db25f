"""Make prometheus-client's metric families of our figures: histograms are classic, and native for who asks for it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import BucketSpan, NativeHistogram
from prometheus_client.utils import floatToGoString

from fabric.exponential import exponential
from fabric.figures import Figure, up_to
from fabric.histogram import Histogram
from fabric.readings import Reading

_text: Callable[[float], str] = floatToGoString
_ZERO_THRESHOLD = 2.0**-128  # what is up to it counts as zero; the least that Prometheus's own clients take


class HistogramFamily(HistogramMetricFamily):
    """A family of classic histograms that has what they were made of, by labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made_of: list[tuple[dict[str, str], Histogram]] = []


class WithNative:
    """A registry whose histograms, where they are ours, are native ones beside the classic."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Do as registry.collect()."""
        for family in self._registry.collect():
            if isinstance(family, HistogramFamily):
                for labels, histogram in family.made_of:
                    family.add_sample(family.name, labels, 0.0, native_histogram=native(histogram))
            yield family


def empty(figure: Figure) -> Any:
    """Return the family of a figure, without values."""
    kinds: dict[str, Any] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramFamily}
    name = f"fabric_{figure.name}"
    return kinds[figure.kind](name, figure.help, labels=("fabric", *figure.labels), unit=figure.suffix)


def filled(figure: Figure, readings: Mapping[str, Reading]) -> Any:
    """Return the family of a figure with the values of several fabrics, by their names."""
    family = empty(figure)
    for name, reading in readings.items():
        for labels, value in figure.rows(reading):
            if figure.kind == "histogram":
                family.add_metric((name, *labels), *classic(figure.bounds, value))
                family.made_of.append((dict(zip(("fabric", *figure.labels), (name, *labels), strict=True)), value))
            else:
                family.add_metric((name, *labels), value)
    return family


def classic(bounds: tuple[float, ...], histogram: Histogram) -> tuple[list[tuple[str, int]], float]:
    """Return classic buckets, each with its bound and how many values are up to it, and the sum of all."""
    buckets = [(_text(bound), count) for bound, count in zip(bounds, up_to(bounds, histogram), strict=True)]
    return [*buckets, ("+Inf", histogram.count)], histogram.sum


def native(histogram: Histogram) -> NativeHistogram:
    """Return a native histogram: see fabric.exponential for how exact it is."""
    made = exponential(histogram)
    spans, deltas, end, before = [], [], 0, 0
    for first, counts in made.runs():
        spans.append(BucketSpan(first - end, len(counts)))
        end = first + len(counts)
        for count in counts:
            deltas.append(count - before)
            before = count
    return NativeHistogram(
        histogram.count, histogram.sum, made.scale, _ZERO_THRESHOLD, made.zeros, pos_spans=spans, pos_deltas=deltas
    )
