"""Latencies of a load as they are measured: from when a message was due, not from when it was sent.

A generator that is held up sends late. Whoever measures from the sending then leaves out just the waiting that a
hold-up causes (coordinated omission), and a service that stops for a second looks as if it never had.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.histogram import Histogram

WINDOW_NS = 100_000_000


class Recorder:
    """Records arrivals; all times in ns of the monotonic clock, which is one for all processes. Not thread-safe.

    What is due before `since` is warm-up and counts for nothing. What is due from `calm_since` on is kept by windows of
    0.1 s too, so that `calm_after` can tell how long a burst is felt.
    """

    def __init__(self, since: int, calm_since: int | None = None) -> None:
        self._since, self._calm_since = since, calm_since
        self._windows: dict[int, Histogram] = {}
        self.latencies = Histogram()
        self.last = since  # arrival

    def record(self, due: Any, arrived: Any) -> None:
        """Record arrays of due times and arrivals, or one arrival of them all."""
        waited = np.asarray(arrived - due)
        self.latencies.record(waited[due >= self._since])
        if len(due):
            self.last = max(self.last, int(np.max(arrived)))
        if self._calm_since is not None and len(due) and due[-1] >= self._calm_since:
            window = (due - self._calm_since) // WINDOW_NS
            for place in np.unique(window[window >= 0]).tolist():
                self._windows.setdefault(place, Histogram()).record(waited[window == place])

    def merge(self, other: Recorder) -> None:
        """Take in what another recorder of the same load has."""
        self.latencies.merge(other.latencies)
        self.last = max(self.last, other.last)
        for place, window in other._windows.items():
            self._windows.setdefault(place, Histogram()).merge(window)

    def calm_after(self, calm_ms: float) -> float | None:
        """Return how many seconds after the burst the first window begins whose p99 is at most so much.

        None: there is none, it never recovered.
        """
        for place, window in sorted(self._windows.items()):
            if window.percentile(0.99) <= calm_ms * 1e6:
                return place * WINDOW_NS / 1e9
        return None
