"""xoscar: actors as coroutines in a pool of processes; here one, on 127.0.0.1, as our one worker."""

from __future__ import annotations

import asyncio
import importlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench import bodies
from bench.sample import Sample, warm_up

xo: Any = importlib.import_module("xoscar")


class Echo(xo.StatelessActor):  # type: ignore[misc]
    """Answers with the body."""

    @xo.extensible  # type: ignore[untyped-decorator]
    def ask(self, body: Any) -> Any:
        """Return the body."""
        return body


def ask(kind: str, messages: int, agents: int) -> Sample:
    """Ask each actor for its share in one batch call, all actors at once."""
    return asyncio.run(_ask(bodies.make(kind, messages), agents))


def spawn(agents: int) -> Sample:
    """Create the actors, all at once, and ask each one."""
    return asyncio.run(_spawn(agents))


async def _ask(sent: list[Any], agents: int) -> Sample:
    async with pool() as address:
        actors = await _create(address, agents)

        async def ask_each(some: list[Any]) -> list[Any]:
            shares = [some[place::agents] for place in range(min(agents, len(some)))]
            calls = [
                actor.ask.batch(*[actor.ask.delay(body) for body in share])
                for actor, share in zip(actors, shares, strict=False)
            ]
            rows = itertools.zip_longest(*await asyncio.gather(*calls))
            return [reply for row in rows for reply in row][: len(some)]

        await ask_each(sent[: warm_up(len(sent))])
        start = asyncio.get_running_loop().time()
        replies = await ask_each(sent)
        seconds = asyncio.get_running_loop().time() - start
    bodies.expect(replies, sent, "replies of the actors")
    share = len(sent) // agents
    return Sample({"replies": [len(sent) / seconds]}, f"{len(sent):,} calls, batches of {share} to {agents:,} actors")


async def _spawn(agents: int) -> Sample:
    async with pool() as address:
        await _create(address, 10)
        start = asyncio.get_running_loop().time()
        actors = await _create(address, agents)
        seconds = asyncio.get_running_loop().time() - start
        replies = await asyncio.gather(*[actor.ask(place) for place, actor in enumerate(actors)])
    bodies.expect(replies, range(agents), "replies of the actors")
    return Sample({"spawned": [agents / seconds]}, f"{agents:,} actors")


async def _create(address: str, count: int) -> list[Any]:
    strategy = xo.allocate_strategy.ProcessIndex(1)
    return list(
        await asyncio.gather(
            *[xo.create_actor(Echo, address=address, allocate_strategy=strategy) for _ in range(count)]
        )
    )


@asynccontextmanager
async def pool(processes: int = 1) -> AsyncIterator[str]:
    """Run so many processes beside the main one; give the address of all."""
    started = await xo.create_actor_pool("127.0.0.1", n_process=processes)
    async with started:
        yield started.external_address


def find(agents: list[int], looks: int) -> Sample:
    """Get actors by their names, one after the other."""
    return Sample({f"{count:,}": [asyncio.run(_find(count, looks))] for count in agents}, f"{looks:,} looks")


async def _find(count: int, looks: int) -> float:
    async with pool() as address:
        strategy = xo.allocate_strategy.ProcessIndex(1)
        for place in range(count):
            await xo.create_actor(Echo, address=address, uid=f"clerk-{place}", allocate_strategy=strategy)
        names = [f"clerk-{place % count}" for place in range(looks)]
        start = asyncio.get_running_loop().time()
        found = [await xo.actor_ref(address, name) for name in names]
        seconds = asyncio.get_running_loop().time() - start
    bodies.expect([one.uid.decode() for one in found], names, "actors")
    return seconds * 1e9 / looks


def population(what: str, agents: list[int], messages: int) -> Sample:
    """Ask, or create, so many actors: see bench.population."""
    values = {}
    for count in agents:
        if what == "spawn_batch":
            values[f"{count:,}"] = [1e6 / rate for rate in spawn(count).values["spawned"]]
        else:
            values[f"{count:,}"] = ask("ints", messages, count).values["replies"]
    return Sample(values, f"{messages:,} messages")
