"""What does it take to find one agent among 10 to 1,000,000?

::

    by name           fabric.find("clerk-17")     this process only: names, then the agent's word in the shared table
    one reference     ref.alive                   the agent's word in the shared table, as before each tell and ask
    many references   10,000 in a call            what ask_many and tell_many do first: a worker for each

One worker, agents at random. What is found is compared with the agents' own addresses and workers; afterwards one
agent is stopped, and must not be found. The floor is a dict of this process: names to addresses, addresses to workers.
xoscar and Ray ask a process for an actor by its name. What would change our minds: a time that grows by more than the
processor's caches explain, that is by more than a dict's.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from bench.agents import Echo
from bench.harness import Case, Contestant, points
from bench.sample import Sample, WrongAnswerError
from fabric import AgentGroup, Fabric

AGENTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
NAME, REFERENCE, MANY = "by name", "one reference", "many references"
IN_A_CALL = 10_000
PREFIX = "clerk"


def cases(quick: bool) -> list[Case]:
    """Return the three ways to look."""
    agents = AGENTS[:-1] if quick else AGENTS
    return [_case(way, agents, 20_000 if quick else 100_000, quick) for way in (NAME, REFERENCE, MANY)]


def ours(way: str, agents: Sequence[int], looks: int) -> Sample:
    """Look for agents of fabrics of these sizes."""
    values = {}
    for count in agents:
        with Fabric(workers=1) as fabric:
            group = fabric.spawn_batch(Echo, count, name=PREFIX)
            values[f"{count:,}"] = [_look(way, fabric, group, looks)]
            _check_that_the_stopped_are_not_found(way, fabric, group)
    return Sample(values, f"{looks:,} looks")


def by_dict(way: str, agents: Sequence[int], looks: int) -> Sample:
    """Look into a dict."""
    values = {}
    for count in agents:
        addresses = [place | 1 << 32 for place in range(1, count + 1)]
        if way == NAME:
            held: dict[Any, int] = {f"{PREFIX}-{place}": address for place, address in enumerate(addresses)}
            keys: list[Any] = list(held)
        else:
            keys, held = addresses, dict.fromkeys(addresses, 1)
        wanted = _at_random(keys, looks)
        if way == MANY:
            values[f"{count:,}"] = [_each(lambda part, held=held: [held[key] for key in part], _parts(wanted))]
        else:
            values[f"{count:,}"] = [_each(held.__getitem__, wanted)]
    return Sample(values, f"{looks:,} looks")


def _look(way: str, fabric: Fabric, group: AgentGroup, looks: int) -> float:
    """Return the nanoseconds of a look."""
    places = _at_random(range(len(group)), looks)
    if way == NAME:
        names = [f"{PREFIX}-{place}" for place in places]
        _expect([ref.address for name in names if (ref := fabric.find(name))], [group.addresses[p] for p in places])
        return _each(fabric.find, names)
    if way == REFERENCE:
        refs = [group[place] for place in places]
        _expect([ref.alive for ref in refs], [True] * looks)
        return _each(lambda ref: ref.alive, refs)
    addresses = _parts(array("Q", [group.addresses[place] for place in places]))
    route = fabric._switchboard.slots_of
    _expect([*route(addresses[0])], [1] * len(addresses[0]))
    return _each(route, addresses)


def _check_that_the_stopped_are_not_found(way: str, fabric: Fabric, group: AgentGroup) -> None:
    ref = group[len(group) // 2]
    ref.stop()
    if (fabric.find(ref.name) is not None) if way == NAME else ref.alive:
        raise WrongAnswerError(f"{ref!r} was stopped, and is found {way}")


def _each(call: Callable[[Any], Any], wanted: Sequence[Any]) -> float:
    """Call with each of these; return nanoseconds a look, of which a part of many is many."""
    looks = len(wanted) if not isinstance(wanted[0], (array, list)) else sum(map(len, wanted))
    for some in wanted[: max(1, len(wanted) // 10)]:
        call(some)
    start = time.perf_counter_ns()
    for some in wanted:
        call(some)
    return (time.perf_counter_ns() - start) / looks


def _parts(wanted: Any) -> list[Any]:
    return [wanted[first : first + IN_A_CALL] for first in range(0, len(wanted), IN_A_CALL)]


def _at_random(items: Sequence[Any], count: int) -> list[Any]:
    return random.Random(7).choices(items, k=count)


def _expect(found: list[Any], due: list[Any]) -> None:
    if found != due:
        raise WrongAnswerError(
            f"{sum(map(bool.__eq__, map(bool, found), map(bool, due))):,} of {len(due):,} were found"
        )


def _case(way: str, agents: Sequence[int], looks: int, quick: bool) -> Case:
    options = {"way": way, "agents": agents, "looks": looks}
    contestants = [
        Contestant("fabric", "bench.lookup:ours", options, limit_s=120),
        Contestant("a dict of this process", "bench.lookup:by_dict", options, peer=False, busy=1, limit_s=120),
    ]
    if way == NAME:
        few = {"agents": AGENTS[:3], "looks": 2_000}
        contestants.append(Contestant("xoscar", "bench.peers.xoscar_actors:find", few, "xoscar", True))
        ray = {"agents": AGENTS[:1], "looks": 500}
        contestants.append(Contestant("Ray", "bench.peers.ray_actors:find", ray, "ray", True, rounds=2, limit_s=120))
    metrics = points("agents", agents, "ns", higher_is_better=False)
    return Case(way, metrics, tuple(contestants), 1 if quick else 3)
