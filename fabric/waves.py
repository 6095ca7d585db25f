"""Pace the spawning of many agents in waves. Pure: events and times go in, instructions come out.

    start ──▶ SpawnWave ──▶ acknowledged ─┬─▶ SpawnWave ...              the next wave is due, or overdue
                                          ├─▶ WaitUntil ──▶ woke ──▶ SpawnWave ...
                                          └─▶ [StopAgents] Finished      the last wave, or a failure ends it

The interval runs from the start of one wave to the start of the next. A wave that took longer makes the next
one start at once; time lost is not made up for by a burst.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

OnFailure = Literal["continue", "stop", "rollback"]


@dataclass(frozen=True, slots=True)
class Wave:
    """Report one wave: how many agents came to be, how many did not, in what time; `agents` is the group."""

    index: int
    spawned: int
    failed: int
    seconds: float
    agents: object = field(repr=False)

    def __str__(self) -> str:
        rate = f" ({_thousands(self.spawned / self.seconds)}/s)" if self.spawned and self.seconds > 0 else ""
        time = f"{self.seconds:.3g} s" if self.seconds >= 1 else f"{self.seconds * 1e3:.1f} ms"
        return f"wave {self.index}: {self.spawned:,} spawned, {self.failed:,} failed in {time}{rate}"


@dataclass(frozen=True, slots=True)
class SpawnWave:
    """Spawn agents `first` to `first + count - 1` of the whole, then report by `acknowledged`."""

    index: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Do nothing until `time`, then report by `woke`."""

    time: float


@dataclass(frozen=True, slots=True)
class StopAgents:
    """Stop all agents that these waves spawned."""

    waves: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """End here: `spawned` agents are left alive, `failed` were tried and did not come to be."""

    spawned: int
    failed: int


Instruction = SpawnWave | WaitUntil | StopAgents | Finished


class WavePlan:
    """Decide when to spawn which wave and what a failure ends.

    Each event returns instructions to perform in order. A wave begins only after the one before is
    acknowledged. After a failure, "continue" spawns the rest all the same, "stop" ends with what there is,
    and "rollback" stops every agent spawned so far. Times are in seconds on the caller's own clock.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument is out of range, or an acknowledgement does not fit its wave.
        RuntimeError: an event came that this state does not wait for.
    """

    def __init__(self, count: int, wave_size: int, interval: float = 0.0, on_failure: OnFailure = "continue") -> None:
        _require_whole("count", count, 0)
        _require_whole("wave_size", wave_size, 1)
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise TypeError(f"interval={interval!r} must be a number of seconds")
        if not 0 <= interval < math.inf:
            raise ValueError(f"interval={interval!r} must be a finite number of seconds, 0 or more")
        if on_failure not in ("continue", "stop", "rollback"):
            raise ValueError(f"on_failure={on_failure!r} must be 'continue', 'stop' or 'rollback'")
        self._count = count
        self._wave_size = wave_size
        self._interval = interval
        self._on_failure = on_failure
        self._next_index = 0
        self._wave: SpawnWave | None = None  # the one not yet acknowledged
        self._due: float | None = None  # when the next may start, while none is under way
        self._last_start = 0.0
        self._spawned: list[int] = []  # per acknowledged wave
        self._failed = 0

    def start(self, now: float) -> tuple[Instruction, ...]:
        """Begin with the first wave, or finish at once where there is nothing to spawn."""
        if self._next_index:
            raise RuntimeError("this plan was started before; make a new one")
        if not self._count:
            return (Finished(0, 0),)
        return (self._begin(now),)

    def acknowledged(self, index: int, spawned: int, failed: int, now: float) -> tuple[Instruction, ...]:
        """Take note of how a wave ended, and go on, wait or finish."""
        wave = self._wave
        if wave is None or index != wave.index:
            raise RuntimeError(f"wave {index} is not under way; {wave or 'none'} is")
        if min(spawned, failed) < 0 or spawned + failed != wave.count:
            raise ValueError(f"{spawned} spawned and {failed} failed do not make wave {index}'s {wave.count} agents")
        self._wave = None
        self._spawned.append(spawned)
        self._failed += failed
        if failed and self._on_failure != "continue":
            return self._give_up()
        if wave.first + wave.count == self._count:
            return (Finished(sum(self._spawned), self._failed),)
        self._due = self._last_start + self._interval
        return self.woke(now)

    def woke(self, now: float) -> tuple[Instruction, ...]:
        """Start the next wave if its time has come; one who wakes early is told again how long to wait."""
        if self._due is None:
            raise RuntimeError("no wave is waiting for its time")
        if now < self._due:
            return (WaitUntil(self._due),)
        return (self._begin(now),)

    def _begin(self, now: float) -> SpawnWave:
        first = self._next_index * self._wave_size
        self._wave = SpawnWave(self._next_index, first, min(self._wave_size, self._count - first))
        self._next_index += 1
        self._last_start = now
        self._due = None
        return self._wave

    def _give_up(self) -> tuple[Instruction, ...]:
        if self._on_failure == "stop":
            return (Finished(sum(self._spawned), self._failed),)
        waves = tuple(index for index, spawned in enumerate(self._spawned) if spawned)
        done = Finished(0, self._failed)
        return (StopAgents(waves), done) if waves else (done,)


def _require_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} must be a whole number")
    if value < least:
        raise ValueError(f"{name}={value} must be {least} or more")


def _thousands(rate: float) -> str:
    """Word a rate to two or three digits: 950, 8.1 k, 81 k, 1.2 M."""
    for unit, size in ((" M", 1e6), (" k", 1e3)):
        if rate >= size * 0.9995:
            scaled = rate / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:,.0f}{unit}"
    return f"{rate:.0f} "
