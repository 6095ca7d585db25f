"""Write a registry as Prometheus's protobuf: the one format in which its servers take native histograms.

    MetricFamily, its length before it     name 1  help 2  type 3  metric 4*
    Metric                                 label 1*  gauge 2  counter 3  summary 4  untyped 5  when 6  histogram 7
    Histogram                              count 1  sum 2  bucket 3*  schema 5  zero_threshold 6  zero_count 7
                                           positive_span 12*  positive_delta 13*

The numbers of fields are those of io/prometheus/client/metrics.proto, which never change. prometheus-client does not
write it, and for so few messages a compiler and a library of their own are not worth it.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric

from fabric.histogram import Histogram
from fabric.integrations.families import HistogramFamily, native

MEDIA_TYPE = "application/vnd.google.protobuf"
_MESSAGE = "io.prometheus.client.MetricFamily"
CONTENT_TYPE = f"{MEDIA_TYPE}; proto={_MESSAGE}; encoding=delimited"
_TEXTS = ("text/plain", "application/openmetrics-text")
_VARINT, _FIXED64, _BYTES = 0, 1, 2
_TYPES = {"counter": 0, "gauge": 1, "summary": 2, "unknown": 3, "histogram": 4, "gaugehistogram": 5}
_VALUES = {
    "counter": 3,
    "unknown": 5,
}  # the field of a Metric that holds one value; of all others it is that of a gauge
_SUFFIXES = {"counter": "_total", "info": "_info"}  # of names: those of the text format
_BOUNDS = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}
_Labels = tuple[tuple[str, str], ...]


def is_asked_for(accept: str) -> bool:
    """Say whether an Accept header names this format before any text, as scrapers do that would rather have it."""
    for one in accept.split(","):
        kind, *parameters = (part.strip() for part in one.split(";"))
        if kind in _TEXTS:
            return False
        if kind == MEDIA_TYPE and f"proto={_MESSAGE}" in parameters and "encoding=delimited" in parameters:
            return True
    return False


def encode(registry: Any) -> bytes:
    """Return all families of a registry, each with its length before it."""
    return b"".join(_delimited(_family(family)) for family in registry.collect())


def _family(family: Metric) -> bytes:
    if family.type in _BOUNDS:
        metrics: Iterable[bytes] = _distributions(family)
    else:
        metrics = _plain(family)
    name = family.name + _SUFFIXES.get(family.type, "")
    kind = _number(3, _TYPES.get(family.type, _TYPES["gauge"]))
    return b"".join((_text(1, name), _text(2, family.documentation), kind, *(_part(4, one) for one in metrics)))


def _plain(family: Metric) -> Iterator[bytes]:
    field = _VALUES.get(family.type, 2)
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            when = b"" if sample.timestamp is None else _number(6, int(float(sample.timestamp) * 1000))
            yield _labels(sorted(sample.labels.items())) + _part(field, _real(1, sample.value)) + when


def _distributions(family: Metric) -> Iterator[bytes]:
    """One Metric for each set of labels: its samples are buckets or quantiles, a count and a sum."""
    bound, field = _BOUNDS[family.type], 4 if family.type == "summary" else 7
    found: dict[_Labels, list[bytes]] = {}
    for sample in family.samples:
        labels = tuple(sorted(one for one in sample.labels.items() if one[0] != bound))
        parts = found.setdefault(labels, [])
        if bound in sample.labels:
            parts.append(_bound(family.type, float(sample.labels[bound]), sample.value))
        elif sample.name.endswith("count"):
            parts.append(_number(1, int(sample.value)))
        elif sample.name.endswith("sum"):
            parts.append(_real(2, sample.value))
    if isinstance(family, HistogramFamily):
        for made_of, histogram in family.made_of:
            found[tuple(sorted(made_of.items()))].append(_native(histogram))
    for labels, parts in found.items():
        yield _labels(labels) + _part(field, b"".join(parts))


def _bound(kind: str, bound: float, value: float) -> bytes:
    if kind == "summary":
        return _part(3, _real(1, bound) + _real(2, value))
    return _part(3, _number(1, int(value)) + _real(2, bound))


def _native(histogram: Histogram) -> bytes:
    made = native(histogram)
    parts = [_number(5, _zigzag(made.schema)), _real(6, made.zero_threshold), _number(7, int(made.zero_count))]
    spans = [(span.offset, span.length) for span in made.pos_spans or ()]
    for offset, length in spans or [(0, 0)]:  # an empty one, where nothing is counted, says that it is native
        parts.append(_part(12, _number(1, _zigzag(offset)) + _number(2, length)))
    parts += [_number(13, _zigzag(delta)) for delta in made.pos_deltas or ()]
    return b"".join(parts)


def _labels(labels: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(_part(1, _text(1, name) + _text(2, value)) for name, value in labels)


# The wire format: a field is its number and how it is written, then its content.


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _real(field: int, value: float) -> bytes:
    return _varint(field << 3 | _FIXED64) + struct.pack("<d", value)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _delimited(content)


def _text(field: int, value: str) -> bytes:
    return _part(field, value.encode("utf-8", "replace"))


def _delimited(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1
