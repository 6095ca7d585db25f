"""Agents that tests spawn; importable by workers, which do not import test modules by path."""

import asyncio
import ctypes
import os
import signal
import sys
import tempfile
import time

from fabric import Agent


class Echo(Agent):
    """Answers with what it was sent."""

    def on_message(self, body):
        return body


class Imported(Agent):
    """Says which of these modules its worker has imported."""

    def on_message(self, names):
        return [name in sys.modules for name in names]


class Counter(Agent):
    """Adds what it is sent."""

    def __init__(self, start=0):
        self.total = start

    def on_message(self, body):
        self.total += body
        return self.total


class Relay(Agent):
    """Tells (ref, body) on to another agent."""

    def on_message(self, body):
        ref, message = body
        self.context.tell(ref, message)


class Recorder(Agent):
    """Remembers what it was told; asked for "all", says it."""

    def __init__(self):
        self.seen = []

    def on_message(self, body):
        if body == "all":
            return self.seen
        self.seen.append(body)
        return None


class Deadly(Agent):
    """Answers with what it was sent, and tells it to a witness; some messages kill its process."""

    def __init__(self, witness=None):
        self.witness = witness

    def on_message(self, body):
        if self.witness is not None and body != "exit":
            self.context.tell(self.witness, body)
        if body == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if body == "exit":
            os._exit(3)
        if body == "die once":
            return _die_once(self)
        return body


def _die_once(agent):
    """Kill this process, unless its predecessor died of the same message: the flag outlives it."""
    flag = f"{tempfile.gettempdir()}/shm-fabric-{os.getppid()}-{agent.ref.address}"
    if os.path.exists(flag):
        os.unlink(flag)
        return "survived"
    with open(flag, "x", encoding="utf-8"):
        os.kill(os.getpid(), signal.SIGKILL)
    return "not reached"


class Inquirer(Agent):
    """Asks another agent what it is asked itself, and notes that in a file first."""

    max_concurrency = 100

    def __init__(self, ref, path):
        self.other = ref
        self.path = path

    async def on_message(self, body):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{body}\n")
        return await self.other.ask_async(body)


class Talker(Agent):
    """Answers with more than it was sent."""

    def on_message(self, body):
        return body * 8_000


class Doorkeeper(Agent):
    """Answers with what it was sent; told to wait, it holds up its worker until a file exists."""

    def __init__(self, path):
        self.path = path

    def on_message(self, body):
        while body == "wait" and not os.path.exists(self.path):
            time.sleep(0.001)
        return body


class FailsToStartAgain(Agent):
    """Sleeps as long as it is told; while the flag exists, its process ends when it is started."""

    def __init__(self, flag):
        self.flag = flag

    def on_start(self):
        if os.path.exists(self.flag):
            os._exit(9)

    def on_message(self, body):
        time.sleep(body)


class Sleeper(Agent):
    """Sleeps as long as it is told; told to spin, it never lets go of the GIL."""

    def on_message(self, body):
        if body == "spin":
            sys.setswitchinterval(1000)
            while True:
                pass
        time.sleep(body)


class Gate(Agent):
    """Counts what it is sent; told to wait, it holds up its worker until a file exists."""

    def __init__(self, path):
        self.path = path
        self.count = 0

    def on_message(self, body):
        if body == "wait":
            while not os.path.exists(self.path):
                time.sleep(0.001)
            return None
        if body != "count":
            self.count += 1
        return self.count


class Flooder(Agent):
    """Answers each message with two to its partner, down to depth 0: more than any outbox takes."""

    def on_message(self, body):
        what, *rest = body
        if what == "meet":
            self.partner, self.witness = rest
            return
        depth = rest[0]
        for _ in range(64 if depth == 12 else 2):
            if depth:
                self.context.tell(self.partner, ("flood", depth - 1))


class Segfaulter(Agent):
    """Dies of a segmentation fault whatever it is told."""

    def on_message(self, body):
        dereference_null()


def dereference_null():
    ctypes.string_at(0)


class Rally(Agent):
    """Tells whoever told it, for ever."""

    def on_message(self, body):
        if body != "back":
            self.other = body
        self.other.tell("back")


class Waiter(Agent):
    """Waits for ever."""

    max_concurrency = 10

    async def on_message(self, body):
        await asyncio.Event().wait()


class Dreamer(Agent):
    """Waits as long as it is told, and lets others work meanwhile."""

    async def on_message(self, body):
        await asyncio.sleep(body)
        return body
