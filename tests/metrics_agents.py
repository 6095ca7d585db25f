"""Agents whose messages are counted by class and by how they end; importable by workers."""

import asyncio
import os

from fabric import Agent


class Picky(Agent):
    """Raises for odd numbers."""

    def on_message(self, body):
        if body % 2:
            raise ValueError(f"{body} is odd")
        return body


class Other(Agent):
    """Answers with what it was sent."""

    def on_message(self, body):
        return body


class PickyLater(Agent):
    """Raises for odd numbers, as a coroutine."""

    async def on_message(self, body):
        if body % 2:
            raise ValueError(f"{body} is odd")
        return body


class Patient(Agent):
    """Waits until a file is there, as a coroutine; then raises."""

    async def on_message(self, body):
        while not os.path.exists(body):
            await asyncio.sleep(0.002)
        raise ValueError("now")


class AsyncSleeper(Agent):
    """Sleeps as long as it is told, and lets others run meanwhile."""

    async def on_message(self, body):
        await asyncio.sleep(body)
