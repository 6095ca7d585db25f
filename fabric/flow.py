"""Decide how far a stream may run ahead of its reader, and which of its items the reader has had. Pure.

    agent's worker                                              reader
    Outflow   items 0, 1, 2 ... while made < taken + window ──▶ Inflow   counts them, keeps what was not taken
              limit                                         ◀── credit   taken so far, at each half window

A credit says a total, not a difference: one that is lost or comes twice does no harm. After a crash the
successor runs the generator anew, from item 0, and knows of no credit:
  1. its first reply is marked FIRST. The reader counts that run from 0, and drops items that it has had
  2. the reader tells its credit once more, for otherwise the successor stops at the first window
Both go through the lane from the same slot, so that no item of the run before can follow.
"""

from collections import deque
from typing import Any

from fabric.messages import DIRECT, FIRST, MOST_WINDOW, NUMBER_MASK, ErrorInfo
from fabric.remote_errors import Undecodable

Credit = tuple[int, int]  # items taken; runs that have begun


def check_window(window: Any) -> int:
    """Return the window of a stream. TypeError, ValueError: it cannot be one."""
    if not isinstance(window, int) or isinstance(window, bool):
        raise TypeError(f"window={window!r} must be a whole number: how many items may be on their way")
    if not 1 <= window <= MOST_WINDOW:
        raise ValueError(f"window={window} must be from 1 to {MOST_WINDOW:,}")
    return window


class Inflow:
    """What a reader has got of a stream. `accept` may run in another thread than the rest."""

    __slots__ = ("_at", "_runs", "_told", "end", "items", "received", "taken", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.items: deque[Any] = deque()  # received and not taken
        self.end: Any = None  # what the stream ended with: an ErrorInfo, or another that stands for no reply
        self.received = 0
        self.taken = 0
        self._at = 0  # number of the next item of this run
        self._runs = 0
        self._told: Credit = (0, 1)

    def accept(self, index: int, body: Any) -> None:
        """Take in a reply, by the index of its correlation id.

        Raises:
            ValueError: it is none that a worker of ours would send now.
        """
        failed = type(body) in (ErrorInfo, Undecodable)
        if self.end is not None or (index & DIRECT and not failed):
            raise ValueError("a reply to a stream that is over, or that answers it as no stream")
        if index & DIRECT:
            self.end = body
            return
        if index & FIRST:
            self._at = 0
            self._runs += 1
        elif not self._runs or index != self._at & NUMBER_MASK:
            raise ValueError(f"item {index} of a stream where {self._at} should be next")
        if failed:
            self.end = body
        elif self._at == self.received:
            if self.received - self.taken >= self.window:
                raise ValueError("an item that nobody asked for yet")
            self.items.append(body)
            self.received += 1
        self._at += 1

    def take(self) -> Any:
        """Return the next item. IndexError: it has not come."""
        item = self.items.popleft()
        self.taken += 1
        return item

    @property
    def credit(self) -> Credit | None:
        """What the worker is to be told now, None for nothing."""
        told_taken, told_runs = self._told
        if self.end is not None:
            return None
        if self.taken - told_taken < max(1, self.window // 2) and self._runs <= told_runs:
            return None
        return self.taken, self._runs

    def told(self, credit: Credit) -> None:
        """Note that the worker was told."""
        self._told = credit


class Outflow:
    """How far the maker of a stream may go."""

    __slots__ = ("_window", "limit", "made")

    def __init__(self, window: int) -> None:
        self._window = window
        self.made = 0
        self.limit = window

    @property
    def open(self) -> bool:
        """May the next item be made?"""
        return self.made < self.limit

    def grant(self, taken: int) -> None:
        """Take in a credit."""
        self.limit = max(self.limit, taken + self._window)

    def number(self) -> int:
        """Count an item, or the end; return the index of its correlation id."""
        index = self.made & NUMBER_MASK | (0 if self.made else FIRST)
        self.made += 1
        return index
