"""The agents of bench.ray_cases: what Ray's microbenchmark calls its actors, async actors and clients."""

from __future__ import annotations

import asyncio
from typing import Any

from fabric import Agent, AgentRef

OK = b"ok"


class Small(Agent):
    """Answers with two bytes, whatever it is asked."""

    def on_message(self, body: Any) -> bytes:
        return OK


class AsyncSmall(Agent):
    """Does so in a coroutine, of which 1,000 may run at a time, as in an async actor of Ray's."""

    max_concurrency = 1_000

    async def on_message(self, body: Any) -> bytes:
        return OK


class Concurrent(AsyncSmall):
    """Has 16 in hand at most."""

    max_concurrency = 16


class Client(Agent):
    """Asks others, so many questions in turn, all at once; answers with how many were answered right."""

    async def on_message(self, body: tuple[list[AgentRef], int, Any]) -> int:
        servers, count, argument = body
        asked = [servers[place % len(servers)].ask_async(argument) for place in range(count)]
        return sum(reply == OK for reply in await asyncio.gather(*asked))


# Seeded by tests only, to prove that each check can fail.


class Careless(Small):
    """Answers every third question with something else."""

    calls = 0

    def on_message(self, body: Any) -> bytes:
        self.calls += 1
        return OK if self.calls % 3 else b"no"
