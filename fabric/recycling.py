"""Decide when a worker is to be replaced by a fresh one. Pure: counts, times and sizes go in, a reason comes out.

    started ──▶ finished ──▶ finished ──▶ ...        "after 1,000 tasks", "after 3,600 s"
            └─▶ measured ──▶ measured ──▶ ...        "its memory grew by 512 MiB to 700 MiB, over max_growth 500 MiB"

Memory is compared with the first sample, not with nothing: what a worker imports and keeps is no leak. So whoever
measures gives the first sample when the worker has done its first task.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecyclePolicy:
    """Say how long a worker may serve; None sets no limit.

    Raises:
        TypeError, ValueError: a limit is no positive number of its kind.
    """

    max_tasks: int | None = None
    max_seconds: float | None = None
    max_growth_bytes: int | None = None

    def __post_init__(self) -> None:
        _require("max_tasks", self.max_tasks, "a whole number, 1 or more", int)
        _require("max_seconds", self.max_seconds, "a finite number over 0", (int, float))
        _require("max_growth_bytes", self.max_growth_bytes, "a whole number of bytes, 1 or more", int)


class Service:
    """The time that one worker has served, on the clock of whoever gives `now` (seconds)."""

    def __init__(self, policy: RecyclePolicy, now: float) -> None:
        self._policy = policy
        self._began = now
        self._tasks = 0
        self._first_bytes: int | None = None

    @property
    def due(self) -> float | None:
        """When max_seconds are over, for whoever sets a timer; None for never."""
        limit = self._policy.max_seconds
        return None if limit is None else self._began + limit

    def finished(self, tasks: int, now: float) -> str | None:
        """Take note of so many more tasks done, 0 for a look at the clock; return why the worker is to go, or None."""
        self._tasks += tasks
        limit = self._policy.max_tasks
        if limit is not None and self._tasks >= limit:
            return f"after {self._tasks:,} {'task' if self._tasks == 1 else 'tasks'}"
        due = self.due
        if due is not None and now >= due:
            served = now - self._began
            return f"after {served:,.0f} s" if served >= 100 else f"after {served:.3g} s"
        return None

    def measured(self, resident_bytes: int) -> str | None:
        """Take note of how much memory the worker has; return why it is to go, or None."""
        limit = self._policy.max_growth_bytes
        if limit is None:
            return None
        if self._first_bytes is None:
            self._first_bytes = resident_bytes
        growth = resident_bytes - self._first_bytes
        if growth <= limit:
            return None
        return f"its memory grew by {_size(growth)} to {_size(resident_bytes)}, over max_growth {_size(limit)}"


def _require(name: str, value: object, wanted: str, kinds: type | tuple[type, ...]) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}; give it {wanted}, or None")
    if not 0 < value < math.inf:  # type: ignore[operator]
        raise ValueError(f"{name}={value!r} was asked for, but only {wanted} is allowed; None sets no limit")


def _size(count: int) -> str:
    """Word a number of bytes: to whole MiB where there are some, as limits are mostly given in them."""
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.0f} {unit}"
    return f"{count} {'byte' if count == 1 else 'bytes'}"
