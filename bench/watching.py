"""What does it cost a fabric to be watched by `python -m fabric top`?

::

    this process ── ask_many ──▶ fabric      one worker, 1,000 agents, for 2 s at a time
    top, in a terminal, each 1 s             runs in every other turn, stands (SIGSTOP) in the others: A B B A A B ...

All three share the CPUs, so with two cores the watcher takes its time from the others; that it reads adds nothing to
what they do. The cost is 1 less the ratio of the medians of throughput, in one run. The CPU is that of the watcher
while it runs, of one core. What would change our minds: over 1 %, which would call for a plainer picture.
"""

from __future__ import annotations

import os
import pty
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import psutil

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample
from fabric import Fabric

COST = Metric("cost", "% of throughput", higher_is_better=False)
CPU = Metric("CPU", "% of a core", higher_is_better=False)
_SETTLING = 3.0  # seconds until the watcher has drawn its first pictures


def cases(quick: bool) -> list[Case]:
    """Return the one case."""
    options = {"alternations": 6 if quick else 30}
    ours = Contestant("fabric", "bench.watching:ours", options, busy=3, limit_s=300)
    return [Case("top at 1 s", (COST, CPU), (ours,), rounds=1)]


def ours(alternations: int, seconds: float = 2.0, *, agents: int = 1_000, agent: str = "Echo") -> Sample:
    """Ask for a while with the watcher and without, in turn; return by how much it is slower, in percent."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    used = 0.0
    with Fabric(workers=1) as fabric, _watcher() as watcher:
        group = fabric.spawn_batch(getattr(agent_classes, agent), agents)
        refs, sent = list(islice(cycle(group), 10_000)), bodies.make("bytes", 10_000)
        _rate(fabric, refs, sent, _SETTLING)
        for turn in range(alternations):
            for watched in (True, False) if turn % 2 else (False, True):
                watcher.send_signal(signal.SIGCONT if watched else signal.SIGSTOP)
                before = _cpu_seconds(watcher)
                rates[watched].append(_rate(fabric, refs, sent, seconds))
                used += _cpu_seconds(watcher) - before
        watcher.resume()
    watched, alone = (statistics.median(rates[one]) for one in (True, False))
    note = f"{watched / 1e6:.2f} M/s watched, {alone / 1e6:.2f} M/s not, {alternations} times each"
    cpu = 100 * used / (alternations * seconds)
    return Sample({COST.name: [100 * (1 - watched / alone)], CPU.name: [cpu]}, note)


def _rate(fabric: Fabric, refs: list[Any], sent: list[Any], seconds: float) -> float:
    """Ask all for so long; return replies a second."""
    began = time.perf_counter()
    replies = 0
    while (took := time.perf_counter() - began) < seconds:
        bodies.expect(fabric.ask_many(refs, sent), sent, "replies")
        replies += len(sent)
    return replies / took


@contextmanager
def _watcher() -> Iterator[psutil.Process]:
    """Run top on this process in a terminal that somebody reads."""
    end, other = pty.openpty()
    reader = subprocess.Popen(["cat"], stdin=end, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "fabric", "top", str(os.getpid())]
    process = subprocess.Popen(command, stdin=other, stdout=other, env={**os.environ, "TERM": "xterm-256color"})
    os.close(other)
    os.close(end)
    try:
        yield psutil.Process(process.pid)
        process.send_signal(signal.SIGINT)
        if process.wait(30):
            raise RuntimeError(f"top ended with status {process.returncode}")
    finally:
        process.kill()
        process.wait()
        reader.wait()


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
