"""What a process and its descendants cost: wake-ups, CPU time and memory of their own."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.sample import Sample

SETTLE_S = 0.5  # start-up work ends, spinning ends


@dataclass(frozen=True)
class Use:
    """What a process has used since it started, all its threads together."""

    wake_ups: int  # voluntary context switches: each is one sleep, and so one wake-up
    cpu_ns: int


@dataclass(frozen=True)
class Footprint:
    """What this process and its descendants have in memory, and what CPU time they have used, at one moment."""

    at: float  # by the monotonic clock
    resident: int  # bytes, RSS: pages that several map count in each
    cpu_s: float
    machine_s: float  # of all CPUs together: what anyone used, the hypervisor's other guests included


def footprint() -> Footprint:
    """Look at this process and its descendants. Costs a millisecond or so."""
    resident, cpu_s = 0, 0.0
    for process in family():
        with suppress(psutil.NoSuchProcess), process.oneshot():
            times = process.cpu_times()
            resident += process.memory_info().rss
            cpu_s += times.user + times.system
    spent = psutil.cpu_times()
    machine_s = spent.user + spent.nice + spent.system + spent.irq + spent.softirq + spent.steal
    return Footprint(time.monotonic(), resident, cpu_s, machine_s)


def family() -> list[psutil.Process]:
    """Return the descendants of this process, then itself."""
    me = psutil.Process()
    return [*me.children(recursive=True), me]


def watch_idle(seconds: float) -> Sample:
    """Sleep; return the CPU share of this process and its descendants, and the wake-ups of the busiest one.

    The sleep itself is one wake-up.
    """
    time.sleep(SETTLE_S)
    pids = [process.pid for process in family()]  # itself last, so that looking at the others costs it least
    before = {pid: _use(pid) for pid in pids}
    start = time.monotonic()
    time.sleep(seconds)
    after = {pid: _use(pid) for pid in reversed(pids)}
    passed = time.monotonic() - start
    spent = sum(after[pid].cpu_ns - before[pid].cpu_ns for pid in pids)
    rates = [(after[pid].wake_ups - before[pid].wake_ups) / passed for pid in pids]
    values = {"CPU": [spent / passed / 1e7], "wake-ups": [max(rates)]}
    return Sample(values, f"{len(pids)} processes watched for {seconds:g} s")


def own_bytes() -> int:
    """Return the memory that this process and its descendants do not share with any other (USS), in bytes."""
    gc.collect()
    found = 0
    for process in family():
        with suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().uss
    return found


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process and its descendants, in bytes: heaps, and private copies of pages.

    Not the memory that they map from the segment: whether that counts as their own depends on who else looked at it.
    """
    gc.collect()
    found = 0
    for process in family():
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Anonymous:"):
                    found += int(line.split()[1]) * 1024
    return found


def segment_bytes() -> int:
    """Return what the anonymous files that this process has open have in memory, in bytes."""
    files = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(entry).startswith("/memfd:"):
                found = entry.stat()
                files[found.st_ino] = found.st_blocks * 512
    return sum(files.values())


def _use(pid: int) -> Use:
    wake_ups = cpu_ns = 0
    for task in _tasks(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            cpu_ns += int((task / "schedstat").read_text().split()[0])
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    wake_ups += int(line.split()[1])
    return Use(wake_ups, cpu_ns)


def _tasks(pid: int) -> Iterator[Path]:
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from Path(f"/proc/{pid}/task").iterdir()
