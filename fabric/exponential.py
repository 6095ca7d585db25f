"""Turn our log-linear histograms into exponential ones, as Prometheus and OpenTelemetry keep them.

    ours          32 to 64 buckets for each power of two, of equal width within it
    exponential   2^scale buckets for each power of two, each 2^(2^-scale) times as wide as the one before

Bounds do not coincide, so each bucket of ours goes where its middle lies, whole: a count never moves later. What it
tells is within half a bucket of ours (1.6 %) and one of theirs (4.4 % at scale 4).
"""

import math
from dataclasses import dataclass

from fabric.histogram import COUNTS, Histogram

SCALE = 4  # 16 buckets for each power of two: about half of ours


@dataclass(frozen=True, slots=True)
class Exponential:
    """Counts by index: that of index i are over 2^((i - 1) / 2^scale) and up to 2^(i / 2^scale)."""

    scale: int
    zeros: int
    counts: dict[int, int]  # ascending, none of 0

    def runs(self) -> list[tuple[int, list[int]]]:
        """Return the stretches of indexes without a gap, each as its first index and its counts."""
        runs: list[tuple[int, list[int]]] = []
        for index, count in self.counts.items():
            if runs and runs[-1][0] + len(runs[-1][1]) == index:
                runs[-1][1].append(count)
            else:
                runs.append((index, [count]))
        return runs

    def dense(self) -> tuple[int, list[int]]:
        """Return the first index and all counts from there on, those of 0 included."""
        if not self.counts:
            return 0, []
        first, last = min(self.counts), max(self.counts)
        return first, [self.counts.get(index, 0) for index in range(first, last + 1)]


def exponential(histogram: Histogram, scale: int = SCALE) -> Exponential:
    """Return a histogram with exponential buckets, of values in its unit."""
    counts: dict[int, int] = {}
    zeros = 0
    for start, end, count in histogram.buckets():
        if start == 0:  # ours of nothing but 0
            zeros = count
            continue
        # A size that is a power of two begins a bucket of ours and ends one of theirs, and most batches have such.
        value = start if histogram.scale == COUNTS else (start + end - histogram.scale) / 2
        index = math.ceil(math.log2(value) * 2**scale)
        counts[index] = counts.get(index, 0) + count
    return Exponential(scale, zeros, counts)
