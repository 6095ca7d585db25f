"""Read the log-linear histograms that the C core keeps (native/fab_histogram.h): 3 % wide buckets, any range, one copy.

    value     0 .. 31         32 .. 63        64 .. 127       ...   2^39 .. 2^40
    buckets   32 of width 1   32 of width 1   32 of width 2   ...   32 of width 2^34

Values are nanoseconds where a time is counted, and are shown in seconds. The layout is that of HdrHistogram
with 5 bits of precision: any value is told within 1/32 of itself, its middle within 1.6 %.
"""

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

SUB_BITS = 5
SUB_BUCKETS = 1 << SUB_BITS
VALUE_BITS = 40  # the largest value told apart is 2^40 - 1: 18 minutes in nanoseconds
BUCKETS = (VALUE_BITS - SUB_BITS + 1) * SUB_BUCKETS
TOP = (1 << VALUE_BITS) - 1
HISTOGRAM_BYTES = 8 * (3 + BUCKETS)  # in the segment: sum, maximum, shortfall, counts
_HEAD = 5  # words before the counts of a copied one: these three, first bucket, number of buckets
SECONDS = 1e-9  # scale of the histograms of times
COUNTS = 1.0
_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def bucket_of(value: int) -> int:
    """Return the index of the bucket that counts this value."""
    value = min(max(value, 0), (1 << VALUE_BITS) - 1)
    shift = value.bit_length() - SUB_BITS - 1
    return value if shift <= 0 else (shift << SUB_BITS) + (value >> shift)


def lowest_of(bucket: int) -> int:
    """Return the least value that a bucket counts; of BUCKETS, where the last one ends."""
    shift = (bucket >> SUB_BITS) - 1
    return bucket if shift <= 0 else (bucket - (shift << SUB_BITS)) << shift


class Histogram:
    """A distribution at one moment. Immutable; merge with `+`, and `later - earlier` is what came in between.

    `scale` turns what was counted into the unit of every figure here: SECONDS for times, COUNTS for counts.

    Example:
        >>> Histogram.of([0.001, 0.001, 0.004], SECONDS).percentile(0.5)  # seconds, within 1.6 %
        0.001
    """

    __slots__ = ("_counts", "_facts", "_parts", "scale")

    def __init__(self, parts: Iterable[memoryview] = (), scale: float = SECONDS) -> None:
        """Take copies of histograms, words as fab_survey_histogram makes them; they are added up when looked at."""
        self._parts = tuple(parts)
        self._counts: array[int] | None = None  # by bucket, when they are added up
        self._facts = (0, 0)  # sum, maximum
        self.scale = scale

    @classmethod
    def of(cls, values: Iterable[float], scale: float = SECONDS) -> "Histogram":
        """Make one of values in its unit."""
        counts, total, largest = _zeros(), 0, 0
        for value in values:
            raw = min(max(round(value / scale), 0), TOP)
            counts[bucket_of(raw)] += 1
            total, largest = total + raw, max(largest, raw)
        return cls._made(counts, total, largest, scale)

    @classmethod
    def merged(cls, several: Iterable["Histogram"], scale: float = SECONDS) -> "Histogram":
        """Add up several; those that nobody has looked at yet are only put beside one another, which costs nothing."""
        together = list(several)
        parts = [part for one in together for part in one._parts]  # before that look: see _added
        if all(one._counts is None for one in together):
            return cls(parts, scale)
        counts, total, largest = _zeros(), 0, 0
        for one in together:
            counts = array("Q", map(int.__add__, counts, one._added))
            total, largest = total + one._facts[0], max(largest, one._facts[1])
        return cls._made(counts, total, largest, scale)

    @classmethod
    def _made(cls, counts: "array[int]", total: int, largest: int, scale: float) -> "Histogram":
        made = cls((), scale)
        made._counts, made._facts = counts, (total, largest)
        return made

    def __bool__(self) -> bool:
        """Is anything counted?"""
        return any(part[_HEAD - 1] for part in self._parts) or (self._counts is not None and any(self._counts))

    @property
    def _added(self) -> "array[int]":
        """Counts by bucket.

        Threads may look for the first time together: whoever finds the parts gone finds the counts, in this order.
        """
        parts, counts = self._parts, self._counts
        if counts is None:
            counts, total, largest = _zeros(), 0, 0
            for part in parts:
                first, end = part[3], part[3] + part[4]
                counts[first:end] = array("Q", map(int.__add__, counts[first:end], part[_HEAD:]))
                total, largest = total + part[0], max(largest, part[1])
            self._facts = (total, min(largest, TOP))
            self._counts = counts
            self._parts = ()
        return counts

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self._added)

    @property
    def sum(self) -> float:
        """All values added up."""
        return self._raw[0] * self.scale

    @property
    def mean(self) -> float:
        """Mean value; 0 for none."""
        count = self.count
        return self.sum / count if count else 0.0

    @property
    def maximum(self) -> float:
        """The largest value since the counting began; of a difference, the end of the last bucket in use."""
        return self._raw[1] * self.scale

    def percentile(self, share: float) -> float:
        """Return the value that `share` (0 to 1) of all values do not exceed, within 1.6 %; 0 for none.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        return self.percentiles(share)[0]

    def percentiles(self, *shares: float) -> list[float]:
        """Return several percentiles for the price of one."""
        for share in shares:
            if not 0 <= share <= 1:
                raise ValueError(f"share={share!r} must be from 0 to 1: the 99th percentile is 0.99")
        upto = list(itertools.accumulate(self._added))
        if not upto[-1]:
            return [0.0] * len(shares)
        return [self._middle(bisect_left(upto, max(share * upto[-1], 1))) for share in shares]

    def _middle(self, bucket: int) -> float:
        """The middle of a bucket, but no more than the largest value there was."""
        middle = (lowest_of(bucket) + lowest_of(bucket + 1) - 1) / 2
        return min(middle, self._raw[1]) * self.scale

    def buckets(self) -> Iterator[tuple[float, float, int]]:
        """Iterate over the buckets that count something: (from, below, count)."""
        for bucket, count in enumerate(self._added):
            if count:
                yield lowest_of(bucket) * self.scale, lowest_of(bucket + 1) * self.scale, count

    def below(self, bounds: Iterable[float]) -> list[int]:
        """Return how many values are below each bound; exact where it is a bucket's end, as powers of two are."""
        upto = [0, *itertools.accumulate(self._added)]
        raw = (min(round(bound / self.scale), 1 << VALUE_BITS) for bound in bounds)
        return [upto[bucket_of(value) if value < 1 << VALUE_BITS else BUCKETS] for value in raw]

    def __add__(self, other: "Histogram") -> "Histogram":
        return self.merged((self, other), self.scale)

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Return what was counted since `earlier`, of the same process or processes: counts only grow."""
        counts = array("Q", [a - b if a > b else 0 for a, b in zip(self._added, earlier._added, strict=True)])
        (total, largest), (total_then, largest_then) = self._raw, earlier._raw
        if largest == largest_then:  # it may be one of before
            last = next((i for i in range(BUCKETS - 1, -1, -1) if counts[i]), None)
            largest = 0 if last is None else min(largest, lowest_of(last + 1) - 1)
        return self._made(counts, max(0, total - total_then), largest, self.scale)

    @property
    def _raw(self) -> tuple[int, int]:
        """Sum and maximum, as they were counted."""
        return self._facts if self._added else (0, 0)  # which adds these up too

    @property
    def _key(self) -> tuple[bytes, int, int, float]:
        return self._added.tobytes(), *self._raw, self.scale

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        return _revived, self._key

    def __repr__(self) -> str:
        p50, p99 = self.percentiles(0.5, 0.99)
        return f"<Histogram: {self.count:,} values, p50 {p50:.3g}, p99 {p99:.3g}, max {self.maximum:.3g}>"

    def to_dict(self) -> dict[str, float]:
        """Return count, sum, mean, p50, p90, p99, p999 and max, for JSON."""
        figures = dict(zip(_SHARES, self.percentiles(*_SHARES.values()), strict=True))
        return {"count": self.count, "sum": self.sum, "mean": self.mean, **figures, "max": self.maximum}


def _zeros() -> "array[int]":
    return array("Q", bytes(8 * BUCKETS))


def _revived(counts: bytes, total: int, largest: int, scale: float) -> Histogram:
    return Histogram._made(array("Q", counts), total, largest, scale)
