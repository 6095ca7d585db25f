"""Agents of tests/test_api*.py that handle messages in coroutines; importable by workers."""

import asyncio

from fabric import Agent


class AsyncForwarder(Agent):
    """Passes a message on from a coroutine."""

    async def on_message(self, body):
        await asyncio.sleep(0)
        self.context.forward(body[0], *body[1:])
        return "not this"


class AsyncPostponer(Agent):
    """Answers through a handle, in a coroutine that returns something else."""

    async def on_message(self, body):
        handle = self.context.reply_later()
        await asyncio.sleep(0)
        if body == "raise":
            raise ValueError("raised after reply_later")
        handle.reply(body)
        return "not this"


class Overlapping(Agent):
    """Notes how many of its coroutines run at once."""

    def __init__(self):
        self.running = self.most = 0
        self.order = []

    async def on_message(self, body):
        if body == "most":
            return self.most, self.order
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(body)
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1
        return body


class ThreeAtOnce(Overlapping):
    """As Overlapping, with three at once."""

    max_concurrency = 3


class Asker(Agent):
    """Asks others in a coroutine: (ref, body), or (ref, body, timeout)."""

    async def on_message(self, body):
        ref, message, *timeout = body
        return await ref.ask_async(message, *timeout)


class Chained(Agent):
    """Asks another one many times, and sleeps in between."""

    async def on_message(self, body):
        ref, times = body
        for number in range(times):
            await asyncio.sleep(0.001)
            assert await ref.ask_async(number) == number
        return "done"


class Stuck(Agent):
    """Awaits what never comes."""

    async def on_message(self, body):
        await asyncio.Event().wait()


class Summoner(Agent):
    """Has the coordinator spawn agents."""

    async def on_message(self, body):
        kind, count, options = body
        return await self.context.spawn_batch(kind, count, **options)


class Hop(Agent):
    """Asks one of its peers, who does likewise, until the depth is 0; answers with the depth."""

    max_concurrency = 10_000

    async def on_message(self, body):
        depth, peers = body
        return 1 + await peers[depth % 2].ask_async((depth - 1, peers)) if depth else 0
