"""Agents that yield, and agents that are sent streams; importable by workers."""

import asyncio
import os
import signal
import threading

from fabric import Agent
from tests.agents import _die_once


class Yielder(Agent):
    """Yields what a request says, and counts what it makes and closes. Told a name of a count, it says it."""

    def __init__(self):
        self.made = self.closed = 0

    def on_message(self, body):
        if isinstance(body, str):
            return getattr(self, body)
        return self.items(**body)

    def items(self, count, fail_at=None, die_at=None, die_once_at=None, item=None):
        try:
            for number in range(count):
                if number == fail_at:
                    raise ValueError(f"at {number}")
                if number == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                if number == die_once_at:
                    _die_once(self)
                self.made += 1
                yield number if item is None else item
        finally:
            self.closed += 1


class Pure(Agent):
    """Its on_message is itself a generator."""

    def on_message(self, body):
        yield from range(body)


class AsyncYielder(Agent):
    """Its on_message is itself an asynchronous generator."""

    async def on_message(self, body):
        for number in range(body["count"]):
            await asyncio.sleep(0)
            if number == body.get("fail_at"):
                raise ValueError(f"at {number}")
            yield number


class CoroutineYielder(Yielder):
    """Makes a generator in a coroutine."""

    async def on_message(self, body):
        await asyncio.sleep(0)
        return super().on_message(body)


class AsyncWatched(Agent):
    """Makes asynchronous generators, and counts what they make and close."""

    def __init__(self):
        self.made = self.closed = 0

    def on_message(self, body):
        return getattr(self, body) if isinstance(body, str) else self.items(body)

    async def items(self, count):
        try:
            for number in range(count):
                self.made += 1
                yield number
        finally:
            self.closed += 1


class AsyncAnswers(Agent):
    """Its coroutine answers at once with one reply."""

    async def on_message(self, body):
        return body


class BatchYielder(Agent):
    """Makes generators where messages come in batches."""

    def on_batch(self, bodies):
        return [range_of(body) for body in bodies]


def iter_of(*items):
    """Yield these."""
    yield from items


def range_of(count):
    """Yield so many numbers."""
    yield from range(count)


class Telling(Agent):
    """Tells a witness each item before it yields it, and who asked."""

    def __init__(self, witness):
        self.witness = witness

    def on_message(self, body):
        for number in range(body):
            self.context.tell(self.witness, (number, self.context.sender, self.ref == self.witness))
            yield number


class Misbehaving(Agent):
    """Does with a question for a stream what only others allow."""

    def on_message(self, body):
        if body == "later":
            return self.context.reply_later()
        if body == "forward":
            return self.context.forward(self.ref)
        if body == "unsendable":
            return iter_of(1, threading.Lock())
        if body == "no end":
            return self.stubborn()
        return None

    def stubborn(self):
        try:
            while True:
                yield 1
        finally:
            raise KeyError("in finally")


class Reader(Agent):
    """Reads a stream of another agent, as the request says."""

    max_concurrency = 4

    def __init__(self):
        self.kept = []

    async def on_message(self, body):
        ref, request, how = body
        if how == "keep":
            self.kept.append(ref.ask_stream(request, window=3))
            return await anext(self.kept[-1])
        if how == "drop":
            self.kept.clear()
            return None
        if how == "some":
            async for item in ref.ask_stream(request):
                return item
        if how == "for":
            return list(ref.ask_stream(request))
        if how == "slow":
            async with ref.ask_stream(request, window=2, timeout=0.05) as stream:
                return [item async for item in stream]
        return [item async for item in ref.ask_stream(request)]


class SyncReader(Agent):
    """Tries to read a stream, or to send one, where it would block its worker."""

    def on_message(self, body):
        ref, how = body
        return list(ref.ask_stream({"count": 3})) if how == "ask" else ref.send_stream([b"a"])


class Uploader(Agent):
    """Sends a stream from a coroutine."""

    async def on_message(self, body):
        ref, chunks, window = body
        if chunks == "raise":
            return await ref.send_stream_async(raises_after(3), window=window)
        if chunks == "async":
            return await ref.send_stream_async(pieces(), window=window)
        return await ref.send_stream_async(chunks, window=window)


def raises_after(count):
    """Yield so many chunks, then raise."""
    for number in range(count):
        yield bytes([number])
    raise OSError("the disk is gone")


async def pieces():
    """Yield three chunks, with other things in between."""
    for number in range(3):
        await asyncio.sleep(0)
        yield bytes([number])


class Collector(Agent):
    """Keeps the chunks of each stream; the reply to the last is all of them. Told "all", says what it keeps."""

    def __init__(self):
        self.streams = {}

    def on_message(self, body):
        if body == "all":
            return self.streams
        if body == "clear":
            return self.streams.clear()
        chunks = self.streams.setdefault(body.stream, [])
        if chunks and chunks[-1].is_last:
            raise AssertionError(f"{body} after the last")
        chunks.append(body)
        if not isinstance(body.data, bytes):
            return self.streams.pop(body.stream) if body.is_last else None
        if body.data == b"raise":
            raise ValueError("not this one")
        if body.data == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        if body.data == b"die once":
            _die_once(self)
        return self.streams.pop(body.stream) if body.is_last else None


class KeptCollector(Collector):
    """Does so with its state kept."""

    def snapshot(self):
        return self.streams

    def restore(self, state):
        self.streams = state


class KeptYielder(Yielder):
    """Yields, with its counts kept."""

    def snapshot(self):
        return self.made, self.closed

    def restore(self, state):
        self.made, self.closed = state


class Counting(Agent):
    """Counts the bytes of what it is sent."""

    def __init__(self):
        self.bytes = 0

    def on_message(self, body):
        self.bytes += len(body.data)
        return self.bytes


class Gated(Agent):
    """Yields once, then when it is told."""

    async def on_message(self, body):
        if body == "open":
            return self.gate.set()
        self.gate = asyncio.Event()
        return self.items()

    async def items(self):
        yield "before"
        await self.gate.wait()
        yield "after"
