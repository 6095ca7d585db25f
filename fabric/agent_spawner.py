"""Spawn agents for the coordinator's program, and for agents that ask: what a Fabric has of spawning and of names.

    the program: spawn_batch, spawn_waves, prewarm -> a Recipe: which class, its arguments, where -> Spawner
    an agent:    context.spawn_batch -> a request, in the pump -> spawn_batch -> the answer

Arguments are checked before anything is sent.
"""

import contextlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from fabric.agent import Agent, AgentGroup, AgentRef
from fabric.array_agents import ArrayGroup
from fabric.array_spawner import ArraySpawner
from fabric.errors import FabricError
from fabric.remote_errors import Undecodable, describe
from fabric.waving import Waves


class AgentSpawner(ArraySpawner):
    """The part of a Fabric that is about agents: it makes them, and finds them by their names."""

    def spawn_batch(
        self,
        kind: type[Agent],
        count: int,
        *,
        each: Mapping[str, Iterable[Any]] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        placement: Literal["round_robin", "least_loaded", "hash"] | int = "round_robin",
        keys: Iterable[Any] | None = None,
        on_crash: Literal["retry", "fail"] | None = None,
        snapshot_every: float | None = None,
        **init: Any,
    ) -> AgentGroup:
        """Make `count` agents of a class, in parallel on the workers, and return the group.

        Further keyword arguments go to the constructor; those whose names collide with ours go into
        `kwargs`. `each` maps a constructor argument to one value an agent. With `name="clerk"` the agents
        are called clerk-0, clerk-1, ... `placement="hash"` places by `keys`, one an agent. With
        `on_crash="fail"` a message that was running when its worker died is not run again: its sender gets
        a WorkerLostError; with "retry" it is, up to `max_attempts` times. Agents with snapshot() and
        restore() go on after a crash with the state they had: `snapshot_every` is how many messages (an
        int) or seconds (a float) may have to be handled again for that.

        Raises:
            SpawnError: no room for so many (nothing was started), or some could not be made (the others
                were stopped again); `failures` says which and why.
            TypeError, ValueError: the arguments are wrong.
        """
        care = self._care(kind, on_crash, snapshot_every)
        recipe = self._spawner.recipe(kind, count, each, args, {**(kwargs or {}), **init}, placement, keys, care)
        self._switchboard.check_open()
        return self._spawner.spawn(recipe, count, name)

    def spawn_waves(
        self,
        kind: type[Agent],
        count: int,
        *,
        wave_size: int,
        interval: float = 0.0,
        on_failure: Literal["continue", "stop", "rollback"] = "continue",
        progress: bool = False,
        each: Mapping[str, Iterable[Any]] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        placement: Literal["round_robin", "least_loaded", "hash"] | int = "round_robin",
        keys: Iterable[Any] | None = None,
        on_crash: Literal["retry", "fail"] | None = None,
        snapshot_every: float | None = None,
        **init: Any,
    ) -> Iterator[Any]:
        """Make agents in waves of `wave_size`, one Wave at a time; iterate over it.

        A wave is acknowledged before the next begins. `interval` is in seconds from the start of one wave
        to the start of the next. After a failure, "continue" goes on, "stop" ends with what there is,
        "rollback" stops all agents spawned so far. `progress=True` shows a bar (needs tqdm).

        Raises:
            TypeError, ValueError, SpawnError: as spawn_batch; raised here, before the first wave, where
                it concerns the arguments.
        """
        care = self._care(kind, on_crash, snapshot_every)
        recipe = self._spawner.recipe(kind, count, each, args, {**(kwargs or {}), **init}, placement, keys, care)
        self._switchboard.check_open()
        return iter(Waves(self._spawner, recipe, count, wave_size, interval, on_failure, progress))

    def prewarm(self, kind: type[Agent], count: int, *args: Any, **kwargs: Any) -> None:
        """Keep `count` agents of this class and these arguments constructed in advance.

        A spawn_batch with equal arguments takes them and constructs nothing; they are made anew in the
        background. 0 gives the store up.
        """
        recipe = self._spawner.recipe(kind, count, None, args, kwargs)
        self._switchboard.check_open()
        self._spawner.prewarm(recipe, count)

    def find(self, name: str) -> AgentRef | ArrayGroup | None:
        """Return the living agent of this name, or the array agents that were spawned under it; None: there is none."""
        self._switchboard.check_open()
        found = self._directory.find(name)
        return self._find_array(name) if found is None else AgentRef(self, *found, name)

    def _serve(self, sender: int, correlation: int, request: Any) -> None:
        """Do what an agent asked for, in the pump."""
        try:
            answer: Any = None
            if isinstance(request, bytes):
                self.stop_agents(array("Q", request), None)
            elif isinstance(request, Undecodable):
                raise request.error
            else:
                answer = self.spawn_batch(request.kind, request.how_many, **request.options)
        except Exception as error:
            answer = describe(error)
        if not self.is_alive(sender):
            return
        try:
            self._switchboard.answer(sender, correlation, answer)
        except FabricError as error:  # the answer cannot be sent: that can, unless whoever asked has gone meanwhile
            with contextlib.suppress(FabricError):
                self._switchboard.answer(sender, correlation, describe(error))
