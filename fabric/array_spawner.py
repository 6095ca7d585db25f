"""Spawn array agents for the coordinator's program: what a Fabric has of fabric.array_agents.

    spawn_array(Boids, 1_000_000) -> bounds of a range for each worker -> one SpawnOrder a worker, with all bounds

The objects that host the ranges are spawned as agents are, so that a successor makes them again as it does those.
"""

import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fabric import inheriting
from fabric.agent import Agent, AgentGroup
from fabric.array_agents import ArrayAgents, ArrayGroup, check_array_class
from fabric.directory import Directory
from fabric.messages import Ranges
from fabric.messenger import CoordinatorMessenger
from fabric.spawning import Care, Recipe


class ArraySpawner(CoordinatorMessenger):
    """The part of a Fabric that is about array agents."""

    _directory: Directory

    def spawn_array(
        self,
        kind: type[ArrayAgents],
        count: int,
        *,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        workers: Iterable[int] | None = None,
        on_crash: Literal["retry", "fail"] | None = None,
        snapshot_every: float | None = None,
        **init: Any,
    ) -> ArrayGroup:
        """Make agents 0 to `count` - 1 of a class of ArrayAgents: on each worker one object for a range of them.

        The constructor gets its range, then `args` and the keyword arguments. `workers` says which workers take
        part, counted from 0 among the living, by default all; ranges follow that order and differ by one agent at
        most. Under `name` fab.find() returns the group, and name-0, name-1, ... are the objects. The other options
        are those of spawn_batch; for snapshot_every a chunk of records counts as one message. In max_agents and the
        statistics a range counts as one agent.

        Raises:
            SpawnError: a constructor raised (the others were stopped again), or max_agents leaves no room.
            TypeError, ValueError: the arguments are wrong.
        """
        check_array_class(kind)
        care = self._care(kind, on_crash, snapshot_every)
        chosen = _chosen(workers, len(self._spawner.slots))
        bounds = ranges_of(count, len(chosen))
        used = tuple(chosen[: len(bounds) - 1])
        data = inheriting.dumps((kind, args, {**(kwargs or {}), **init}))
        self._switchboard.check_open()
        hosts = self._spawner.spawn(Recipe(kind, data, None, used, None, care, bounds), len(used), name)
        group = self._group_of(kind, bounds, hosts)
        if name is not None:
            for other in list(self._spawner.arrays):
                if self._find_array(other) is None:
                    self._spawner.arrays.pop(other, None)  # its agents are no more
            self._spawner.arrays[name] = group.where, group.dtype, group.reply_dtype, group._json
        return group

    def _find_array(self, name: str) -> ArrayGroup | None:
        """Return the array agents of this name, None when they are not all alive."""
        found = self._spawner.arrays.get(name)
        if found is None:
            return None
        group = ArrayGroup(self, *found)
        return group if all(ref.alive for ref in group.hosts) else None

    def _group_of(self, kind: type[ArrayAgents], bounds: tuple[int, ...], hosts: AgentGroup) -> ArrayGroup:
        return ArrayGroup(self, Ranges(bounds, tuple(hosts.addresses)), kind.dtype, kind.reply_dtype, hosts._json)

    def _care(self, kind: type[Agent], on_crash: str | None, snapshot_every: float | None) -> Care:
        if on_crash not in (None, "retry", "fail"):
            raise ValueError(f'on_crash={on_crash!r} must be "retry" (at least once) or "fail" (at most once)')
        has = hasattr(kind, "snapshot")
        if snapshot_every is not None:
            self.config.replace(snapshot_every=snapshot_every)  # checks it
            if not has:
                raise ValueError(f"snapshot_every={snapshot_every!r}: {kind.__name__} has no snapshot() and restore()")
        once = (on_crash or self.config.on_crash) == "fail"
        return Care(once, (snapshot_every or self.config.snapshot_every) if has else 0)


def ranges_of(count: Any, parts: int) -> tuple[int, ...]:
    """Return where each of `parts` ranges of `count` ids begins, and the end; fewer ranges when there are fewer ids.

    Raises:
        TypeError, ValueError: the count is no whole number, 1 or more.
    """
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"count={count!r} must be a whole number")
    count = operator.index(count)
    if count < 1:
        raise ValueError(f"count={count} array agents: give 1 or more")
    parts = min(parts, count)
    return tuple(count * part // parts for part in range(parts + 1))


def _chosen(workers: Iterable[int] | None, there: int) -> list[int]:
    if workers is None:
        return list(range(there))
    chosen = [operator.index(worker) for worker in workers]
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= worker < there for worker in chosen):
        raise ValueError(f"workers={chosen} must name different workers, from 0 to {there - 1}, and at least one")
    return chosen
