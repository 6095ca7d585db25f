"""Agents and bodies of the tests of large data; importable by workers."""

import asyncio
import dataclasses
import gc
import os
import signal

import numpy as np

from fabric import Agent, BackpressureError
from tests.crash_agents import crash


def pattern(seed, size):
    """Return bytes that only this seed has, as an array: a wrong, a shifted or an old block shows."""
    return np.random.Generator(np.random.SFC64(seed)).integers(0, 256, size, "u1")


def read_only(array):
    """Return an array that may no longer be written to."""
    array.flags.writeable = False
    return array


@dataclasses.dataclass
class Bundle:
    """Arrays in an object of a user's class."""

    name: str
    arrays: list
    rest: dict


class Holder(Agent):
    """Keeps what it is told for as long as it likes; does other things when it is told a tuple."""

    def __init__(self, given=None):
        self.given = given
        self.kept = []
        self.others = []

    def on_message(self, body):
        if not isinstance(body, tuple):
            return body
        what, *arguments = body
        return getattr(self, what)(*arguments)

    def know(self, *others):
        self.others = list(others)

    def keep(self, array):
        self.kept.append(array)

    def let_go(self):
        self.kept.clear()
        gc.collect()

    def write(self, array, value=1):
        """Add to what came, keep it, and say what it is now."""
        array += value
        self.kept.append(array)
        return int(array[0]), int(array[-1])

    def look(self):
        return [(int(array.min()), int(array.max())) for array in self.kept]

    def show(self):
        return self.kept

    def say_given(self):
        given = self.given
        value = getattr(given, "value", given)
        return None if value is None else (int(value.sum()), value.flags.writeable)

    def sum(self, *arrays):
        return [int(np.asarray(array, "u1").sum(dtype="u8")) for array in arrays]

    def make(self, seed, size):
        return pattern(seed, size)

    def make_loan(self, seed, size):
        with self.context.loan(size, "u1") as array:
            array[:] = pattern(seed, size)
        return array

    def lend(self, seed, size):
        """Send a loan to all others, in place; say how many blocks that took."""
        with self.context.loan(size, "u1") as array:
            array[:] = pattern(seed, size)
            for other in self.others:
                other.tell(("keep", array))
        return self._host.arena.usage()[5]

    def make_and_keep(self, seed, size):
        self.kept.append(pattern(seed, size))
        return self.kept[-1]

    def pass_on(self, body):
        for other in self.others:
            other.tell(("keep", body))

    def forward(self, body):
        self.context.forward(self.others[0], body)

    def later(self, body):
        self.context.tell_later(0.001, self.others[0], ("keep", body))

    def put_off(self, body):
        handle = self.context.reply_later()
        handle.reply(body)

    def flood(self, size):
        """Send until the arena is full; say how often that went well, and why it did not."""
        for count in range(1_000):
            try:
                self.others[0].tell(("keep", np.full(size, count % 256, "u1")))
            except BackpressureError as error:
                return count, str(error)
        return 1_000, ""

    def fail(self, array):
        raise ValueError(f"{array.nbytes:,} bytes came")

    def die(self, *rest):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, flag, body):
        """Write to what came, and die of it, unless a predecessor did."""
        body[:] = 0xEE if not os.path.exists(flag) else body
        if not os.path.exists(flag):
            with open(flag, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)
        return body

    def send_and_die(self, seed, size):
        """Die when it is built, lent and queued, and not yet sent."""
        for other in self.others:
            other.tell(("keep", pattern(seed, size)))
        self.die()

    def answer_with(self, what, *arguments):
        return BODIES[what](*arguments)

    def usage(self):
        """Say how many loans of this worker's are out, and how many blocks there are."""
        gc.collect()
        return self._host.arena.usage()[3], self._host.arena.usage()[5]


class AsyncHolder(Holder):
    """Answers in coroutines, several at a time."""

    max_concurrency = 8

    async def on_message(self, body):
        await asyncio.sleep(0)
        if isinstance(body, tuple) and body[0] == "ask":
            return await self.others[0].ask_async(body[1])
        return super().on_message(body)


class BatchHolder(Holder):
    """Answers in batches."""

    def on_batch(self, bodies):
        return [self.on_message(body) for body in bodies]


class KeepingHolder(Agent):
    """Remembers in a sum and a count all that it is told; its state is kept."""

    def __init__(self):
        self.count, self.sum = 0, 0

    def on_message(self, body):
        if isinstance(body, str):
            return self.count, self.sum
        self.count += 1
        self.sum += int(body.sum(dtype="u8"))
        body[:] = 0
        return self.count

    def snapshot(self):
        return self.count, self.sum

    def restore(self, state):
        self.count, self.sum = state


class KillsWhenEncoded:
    """Has its first part written to the arena, and then kills who pickles it; unless the flag is there."""

    def __init__(self, flag, array):
        self.flag, self.array = flag, array

    def __reduce_ex__(self, protocol):
        if not os.path.exists(self.flag):
            with open(self.flag, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)
        return tuple, ([self.array],)


class KillsWhenDecoded:
    """Kills the first process that unpickles it, when its array is there already."""

    def __init__(self, flag, array):
        self.flag, self.array = flag, array

    def __setstate__(self, state):
        self.__dict__.update(state)
        if not os.path.exists(self.flag):
            with open(self.flag, "x", encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGKILL)


class CrashesWhenDecoded:
    """Holds an array, and raises in whoever unpickles it."""

    def __init__(self, array):
        self.array = array

    def __setstate__(self, state):
        crash("raise")


BODIES = {
    "kills when encoded": lambda flag, size: KillsWhenEncoded(flag, pattern(1, size)),
    "crashes when decoded": lambda size: CrashesWhenDecoded(pattern(1, size)),
    "cannot be encoded": lambda size: [pattern(1, size), (x for x in "")],
}
