"""How many small items a second does a pool map?

::

    this process   ── map(function, items) ──▶         two workers   chunks of the pool's own choice
                   ── imap(function, items, 1) ──▶     one worker    each item goes, and comes back, by itself

The function adds one; it is importable, or of the script. Every result is compared with its item, outside the clock.
What would change our minds: a multiprocessing.Pool whose map is faster: its chunks are so large that a pipe costs
nothing, and we measure the items where it only counts them; or one near our imap, where only the way counts.
"""

from __future__ import annotations

from typing import Any

from bench.harness import Case, Contestant, Metric
from bench.peers.pools import NEEDS, open_peer
from bench.sample import Sample, timed, warm_up
from bench.tasks import IMPORTABLE, OF_A_SCRIPT, check, find, placed

OURS = "fabric.Pool"
ITEMS = Metric("items", "items/s")
_MAPPED = {OURS: 2_000_000, "multiprocessing.Pool": 2_000_000, "mpire": 1_000_000}
_SINGLY = {OURS: 200_000, "multiprocessing.Pool": 100_000, "mpire": 20_000}


def cases(quick: bool) -> list[Case]:
    """Return three ways of use, each with a function of either kind."""
    found = []
    for where in (IMPORTABLE, OF_A_SCRIPT):
        found.append(_case(f"map, {where}", where, "mapped", _MAPPED, quick, workers=2))
        for way in ("imap", "imap_unordered"):
            found.append(_case(f"{way}, chunksize=1, {where}", where, "singly", _SINGLY, quick, way=way))
    return found


def mapped(user: str, items: int, *, workers: int = 2, task: str = "increment") -> Sample:
    """Map over the items, with no chunksize given."""
    function = find(task)
    with open_pool(user, workers) as pool:
        pool.map(function, range(warm_up(items)))
        seconds, results = timed(lambda: pool.map(function, range(items)))
        check(results, items, "results of map")
    return Sample({ITEMS.name: [items / seconds]}, f"{items:,} items, {workers} workers")


def singly(user: str, items: int, *, way: str = "imap", workers: int = 1, task: str = "increment") -> Sample:
    """Map over the items one by one, and take the results as they come: `imap` in order, `imap_unordered` not."""
    function = find(task)
    with open_pool(user, workers) as pool:
        imap = getattr(pool, way)
        list(imap(function, range(warm_up(items)), chunksize=1))
        seconds, results = timed(lambda: list(imap(function, range(items), chunksize=1)))
        check(results if way == "imap" else sorted(results), items, f"results of {way}")
    return Sample({ITEMS.name: [items / seconds]}, f"{items:,} items")


def open_pool(user: str, workers: int) -> Any:
    """Return ours or a peer's pool, a context manager."""
    if user == OURS:
        from fabric import Pool

        return Pool(workers)
    return open_peer(user, workers)


def _case(name: str, where: str, function: str, counts: dict[str, int], quick: bool, **options: Any) -> Case:
    contestants = []
    for user, items in counts.items():
        given = {"user": user, "items": items // 10 if quick else items, **options}
        call, given = placed(where, f"bench.pool:{function}", given)
        contestants.append(
            Contestant(user, call, given, NEEDS.get(user, "fabric.pool"), busy=1 + options.get("workers", 1))
        )
    return Case(name, (ITEMS,), tuple(contestants), rounds=2 if quick else 5)
