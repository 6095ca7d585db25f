"""How long does a pool take to be made, to map 1,000 numbers in chunks of 10, and to go again?

::

    this process   ── Pool(2), imap(f, range(1,000), 10), close ──▶  two workers: f returns its number

That is pyperformance's `concurrent_imap`, once with processes (bench_mp_pool) and once with threads
(bench_thread_pool); the pool is made and ended within the clock. Beside it the same imap of a pool that is kept, as
programs keep theirs. Every number is compared. What would change our minds: nothing in the first, where forking two
processes of a small program is faster than a pool that can lose any of them; a kept pool that is slower than
multiprocessing's or than threads.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from typing import Any

from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, timed

TIME = Metric("time", "ms", higher_is_better=False)
WORKERS, COUNT, CHUNK = 2, 1_000, 10
OURS, PROCESSES, THREADS, FORKSERVER = "fabric.Pool", "multiprocessing.Pool", "ThreadPool", "Pool, forkserver"


def cases(quick: bool) -> list[Case]:
    """Return the pool that is made anew, and the one that is kept."""
    return [
        _case("made, used and ended", quick, "bench.concurrent_imap:made", times=3 if quick else 10),
        _case("kept", quick, "bench.concurrent_imap:kept", times=20 if quick else 100),
    ]


def same(number: int) -> int:
    """The task."""
    return number


def off_by_one(number: int) -> int:
    """A task with a fault."""
    return number + (number == 7)


def made(user: str, times: int, *, task: str = "same") -> Sample:
    """Make a pool each time."""

    def once() -> list[int]:
        with _open(user) as pool:
            return list(pool.imap(globals()[task], range(COUNT), CHUNK))

    return _measured(once, times, warm=1)


def kept(user: str, times: int, *, task: str = "same") -> Sample:
    """Make one pool."""
    with _open(user) as pool:
        return _measured(lambda: list(pool.imap(globals()[task], range(COUNT), CHUNK)), times, warm=5)


def _measured(once: Callable[[], list[int]], times: int, warm: int) -> Sample:
    taken = []
    for _ in range(warm + times):
        seconds, found = timed(once)
        bodies.expect(found, range(COUNT), "results of imap")
        taken.append(seconds * 1e3)
    return Sample({TIME.name: taken[warm:]}, f"{times} times, {COUNT:,} numbers in chunks of {CHUNK}")


def _open(user: str) -> Any:
    if user == OURS:
        from fabric import Pool

        return Pool(WORKERS)
    if user == THREADS:
        return ThreadPool(WORKERS)
    return multiprocessing.get_context("forkserver" if user == FORKSERVER else "fork").Pool(WORKERS)


def _case(name: str, quick: bool, call: str, times: int) -> Case:
    contestants = tuple(
        Contestant(user, call, {"user": user, "times": times}, busy=1 if user == THREADS else 1 + WORKERS)
        for user in (OURS, PROCESSES, FORKSERVER, THREADS)
    )
    return Case(name, (TIME,), contestants, 1 if quick else 3)
