"""Decide how many items of a map go into one task. Pure: times go in, a number comes out.

A task costs some 10 us to send, whatever is in it; items that go together come back together, and whose turn is
behind a slow one waits for it. So a chunk is what takes `_TARGET` seconds, by the time that items took so far. The
first are one item each; the last are smaller again, so that all workers end at about the same time, but none of less
than a tenth of `_TARGET` while there are more items: that is soon done by whoever has it, and costs a task each.
"""

from typing import Protocol

_TARGET = 0.001
_MOST = 4096  # more items would make messages that are too large for a lane, for little gain
_LIGHT = 1 << 18  # bytes of a chunk: with more it takes longer to send than to begin another
_LEAST = 0.1  # of the target: how long a chunk is to take at least, if it may take longer
_GROWTH = 16  # times the last, at the most: a few quick items do not tell of all


class Sizer(Protocol):
    """What says how large the next chunk is."""

    def next(self, left: int | None) -> int: ...
    def observe(self, count: int, seconds: float) -> None: ...
    def weigh(self, count: int, size: int) -> None: ...
    def limit(self, count: int) -> None: ...


class FixedSize:
    """Chunks of the size that was asked for."""

    def __init__(self, size: int) -> None:
        self._size = size

    def next(self, left: int | None) -> int:
        """Return the size of the next chunk."""
        return self._size

    def observe(self, count: int, seconds: float) -> None:
        """Take note of a chunk that was done; it changes nothing."""

    def weigh(self, count: int, size: int) -> None:
        """Take note of how large a chunk is; it changes nothing."""

    def limit(self, count: int) -> None:
        """Take note that the results of more would be large; it changes nothing."""


class MeasuredSize:
    """Chunks by the time that their items take."""

    def __init__(self, workers: int, seconds: float = _TARGET, most: int = _MOST) -> None:
        self._workers = workers
        self._target = seconds
        self._most = most
        self._size = 1
        self._least = 1  # that are worth a task
        self._seconds: float | None = None  # that an item takes

    def next(self, left: int | None) -> int:
        """Return the size of the next chunk; `left` items are to come, None if that is not known."""
        if left is None:
            return self._size
        part = max(self._least, -(-left // (2 * self._workers)))
        return max(1, min(self._size, left, part))

    def observe(self, count: int, seconds: float) -> None:
        """Take note that a chunk of `count` items took so long in its worker."""
        if count <= 0:
            return
        each = max(seconds / count, 1e-9)
        if self._seconds is None or each > 2 * self._seconds:
            self._seconds = each  # slow ones count at once: what is behind them waits
        else:
            self._seconds += (each - self._seconds) / 4
        self._size = max(1, min(self._most, _GROWTH * max(self._size, count), int(self._target / self._seconds)))
        self._least = int(_LEAST * self._target / self._seconds)

    def weigh(self, count: int, size: int) -> None:
        """Take note that a chunk of `count` items has so many bytes."""
        if size > _LIGHT:
            self.limit(count * _LIGHT // size)

    def limit(self, count: int) -> None:
        """Make no chunk larger than this any more: items, or results, have many bytes."""
        self._most = max(1, min(self._most, count))
        self._size = min(self._size, self._most)
