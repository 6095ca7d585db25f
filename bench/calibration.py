"""The pace of the machine, by three fixed loops that use nothing of ours: what figures of two runs are divided by.

::

    cpu      a loop of plain Python                      steps/s    what the interpreter does
    memory   one memory copied over another, 16 MiB      bytes/s    what large bodies cost
    pipe     a byte to another process and back,         trips/s    system calls, and changing from one process
             both on one CPU                                        to another

A reading is taken before each bench and at the end, so that the pace around a bench is known, and not that of an hour
ago. Each takes about a tenth of a second. The loops are never changed: figures are compared with those of old files.
On one CPU, because the scheduler puts a pair on one or on two as it likes, and those differ eightfold.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CPU, MEMORY, PIPE = "cpu", "memory", "pipe"
UNITS = {CPU: "steps/s", MEMORY: "bytes/s", PIPE: "trips/s"}
END = "the end"
_REPEATS = 8  # and one ahead, which does not count: caches, and Python's own warming up
_STEPS = 200_000
_COPIED = 16 << 20
_TRIPS = 300
_ECHO = "import os\nwhile byte := os.read(0, 1): os.write(1, byte)"


@dataclass(frozen=True)
class Reading:
    """The pace ahead of one bench, or at the end: of each kind, one figure a repeat."""

    before: str
    values: Mapping[str, Sequence[float]]

    def as_json(self) -> dict[str, Any]:
        """Return the reading for the JSON file."""
        return {"before": self.before, **{kind: [round(value, 1) for value in self.values[kind]] for kind in UNITS}}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Reading:
        """Return the reading that `as_json` gave."""
        return cls(found["before"], {kind: found[kind] for kind in UNITS})


def read(before: str) -> Reading:
    """Run the loops, in turn and repeatedly, so that noise hits all."""
    values: dict[str, list[float]] = {kind: [] for kind in UNITS}
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    try:
        _measure(values)
    finally:
        os.sched_setaffinity(0, cpus)
    return Reading(before, {kind: found[1:] for kind, found in values.items()})


def _measure(values: dict[str, list[float]]) -> None:
    source, target = bytes(_COPIED), memoryview(bytearray(_COPIED))
    target[:] = source  # touched once: page faults are no copying
    with _Echo() as echo:
        for _ in range(1 + _REPEATS):
            values[CPU].append(_STEPS / _timed(_count))
            values[MEMORY].append(_COPIED / _timed(lambda: target.__setitem__(slice(None), source)))
            values[PIPE].append(_TRIPS / _timed(echo.trips))


def around(readings: Sequence[Reading], bench: str) -> dict[str, list[float]]:
    """Return the pace before and after a bench; of the whole run where that is not known, and {} where nothing is."""
    near = [readings[place : place + 2] for place, reading in enumerate(readings) if reading.before == bench]
    chosen = near[0] if near else readings
    return {kind: [value for one in chosen for value in one.values[kind]] for kind in UNITS} if chosen else {}


class _Echo:
    """Another process, which sends each byte back."""

    def __enter__(self) -> _Echo:
        command = [sys.executable, "-I", "-S", "-c", _ECHO]
        pipe = subprocess.PIPE
        # In a session of its own, where Ctrl-C does not reach it: it ends with us, as its pipe does.
        self._process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, start_new_session=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._there, self._back = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._trip()  # it is up
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes the pipes, at which it ends, and waits
            pass

    def trips(self) -> None:
        for _ in range(_TRIPS):
            self._trip()

    def _trip(self) -> None:
        os.write(self._there, b"x")
        if os.read(self._back, 1) != b"x":
            raise RuntimeError("the process at the other end of the calibration's pipe is gone")


def _count() -> int:
    total = 0
    for number in range(_STEPS):
        total = (total * 3 + number) & 0xFFFF
    return total


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
