"""xoscar by the cases of Ray's microbenchmark, on 127.0.0.1; see bench.ray_cases. Its actors are coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.peers.xoscar_actors import pool, xo
from bench.ray_cases import AT_ONCE, CROWDS, check, half_the_cores
from bench.sample import Sample, WrongAnswerError


class Small(xo.StatelessActor):  # type: ignore[misc]
    """An actor."""

    async def small_value(self, argument: Any = None) -> bytes:
        """Return two bytes."""
        return b"ok"


class Client(xo.StatelessActor):  # type: ignore[misc]
    """An actor that calls others."""

    async def ask(self, servers: list[Any], count: int, argument: Any) -> int:
        """Call the servers by turns, wait for all; return how many answered right."""
        given = () if argument is None else (argument,)
        asked = [servers[place % len(servers)].small_value(*given) for place in range(count)]
        return sum(reply == b"ok" for reply in await asyncio.gather(*asked))


def run(case: str, seconds: float) -> Sample:
    """Run the case of that name."""
    return Sample({"calls": [asyncio.run(_run(case, seconds))]}, f"for {seconds:g} s")


async def _run(case: str, seconds: float) -> float:
    size = half_the_cores()
    async with pool(2 * size if case in CROWDS else 1) as address:
        call = await (_crowd(case, address, size) if case in CROWDS else _one_to_one(case, address))
        await _done_in(call, seconds / 4)
        return await _done_in(call, seconds)


async def _one_to_one(case: str, address: str) -> Callable[[], Awaitable[int]]:
    actor = await _actor(address, Small, 1)
    arguments = [(number,) for number in range(AT_ONCE)] if "with args" in case else [()] * AT_ONCE

    async def one() -> int:
        return check([await actor.small_value()], 1)

    async def at_once() -> int:
        return check(await asyncio.gather(*[actor.small_value(*some) for some in arguments]), AT_ONCE)

    return one if " calls sync" in case else at_once


async def _crowd(case: str, address: str, size: int) -> Callable[[], Awaitable[int]]:
    _, to_each, calls, argument = CROWDS[case]
    servers = [await _actor(address, Small, 1 + size + place) for place in range(size)]
    count = size if to_each == 1 else max(1, to_each)
    clients = [await _actor(address, Client, 1 + place % size) for place in range(count)]
    if to_each == 1:
        orders: list[tuple[Any, ...]] = [([server], calls, argument) for server in servers]
    else:
        orders = [(servers, calls * (1 if to_each else size), argument)] * len(clients)
    due = sum(order[1] for order in orders)

    async def ask_clients() -> int:
        asked = [client.ask(*order) for client, order in zip(clients, orders, strict=True)]
        right = sum(await asyncio.gather(*asked))
        if right != due:
            raise WrongAnswerError(f"{right:,} of {due:,} answers are right")
        return due

    return ask_clients


async def _actor(address: str, kind: Any, process: int) -> Any:
    strategy = xo.allocate_strategy.ProcessIndex(process)
    return await xo.create_actor(kind, address=address, allocate_strategy=strategy)


async def _done_in(call: Callable[[], Awaitable[int]], seconds: float) -> float:
    """Return calls a second."""
    done, passed, start = 0, 0.0, time.perf_counter()
    while passed < seconds:
        done += await call()
        passed = time.perf_counter() - start
    return done / passed
