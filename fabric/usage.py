"""What the system says of processes: CPU, memory, threads, descriptors. Read when it is asked for, by psutil."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment. `cpu` is in CPUs (1.0: one of them all the time), since the last look at it."""

    pid: int
    cpu: float
    cpu_seconds: float
    resident_bytes: int  # shared pages that it has touched included
    private_bytes: int  # of these: its own alone, as far as the system tells; else as resident_bytes
    threads: int
    descriptors: int


class UsageReader:
    """Reads the usage of processes again and again, for their CPU is a difference."""

    def __init__(self) -> None:
        import psutil  # takes 15 ms, and most fabrics are never sampled

        self._psutil = psutil
        self._processes: dict[int, Any] = {}
        self._before: dict[int, tuple[float, float]] = {}  # by pid: when, CPU seconds

    def read(self, pids: Iterable[int]) -> dict[int, Usage]:
        """Return the usage of those of these processes that can be looked at."""
        wanted = [pid for pid in pids if pid]
        for gone in self._processes.keys() - set(wanted):
            del self._processes[gone]
            self._before.pop(gone, None)
        found = {}
        for pid in wanted:
            try:
                found[pid] = self._usage(pid)
            except self._psutil.Error:
                self._processes.pop(pid, None)
                self._before.pop(pid, None)
        return found

    def _usage(self, pid: int) -> Usage:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = self._psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
        now, seconds = time.monotonic(), times.user + times.system
        then, before = self._before.get(pid, (now, seconds))
        self._before[pid] = now, seconds
        # Whoever has used less than before is another process of the same number.
        cpu = (seconds - before) / (now - then) if now > then and seconds >= before else 0.0
        private = memory.rss - getattr(memory, "shared", 0)
        return Usage(pid, cpu, seconds, memory.rss, max(0, private), _count(pid, "task"), _count(pid, "fd"))


def _count(pid: int, what: str) -> int:
    """Count threads ("task") or descriptors ("fd"): psutil takes five times as long. 0: it is not to be seen."""
    try:
        return len(os.listdir(f"/proc/{pid}/{what}"))
    except OSError:
        return 0
