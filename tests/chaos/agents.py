"""The agents of a chaos run. Each counts in the tally what it handles, and checks what it is sent."""

import faulthandler
import functools
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fabric import Agent
from tests.chaos.tally import ASTRAY, DRIFT, NEXT, Tally

_PATTERN = bytes(range(256)) * 16


def content(agent: int, message: int) -> bytes:
    """Return what message `message` to `agent` carries: its size and its bytes follow from the two."""
    mixed = (agent * 2654435761 + message * 40503) & 0xFFFF
    size = mixed & 0xFFF if mixed & 0xF000 == 0 else mixed & 0x7F  # mostly small, one in 16 up to a page
    return _PATTERN[mixed & 0xFF : (mixed & 0xFF) + size]


@functools.cache
def _tally(path: str, agents: int, most: int) -> Tally:
    """Map the tally once in each worker, and have the worker write its stacks when it gets SIGUSR1."""
    file = Path(path).with_name(f"stack.{os.getpid()}").open("w")  # stays open: faulthandler writes to it
    faulthandler.register(signal.SIGUSR1, file)
    return Tally(path, agents, most)


class Witness(Agent):
    """Answers (agent, message); asked with None, how many messages it has begun."""

    def __init__(self, tally: tuple[str, int, int], index: int) -> None:
        self.tally = _tally(*tally)
        self.index = index
        self.tally.made(index)

    def on_message(self, body: Any) -> Any:
        """Count a message; say which it was."""
        if body is None:
            return self._begun()
        self._begin(body)
        return self.index, body[0]

    def _begun(self) -> int:
        return self.tally.words(self.index)[NEXT]

    def _begin(self, body: tuple[int, bytes]) -> None:
        message, data = body
        self.tally.begun(self.index, message, data == content(self.index, message))


class Relay(Witness):
    """Tells each message on to a witness on another worker."""

    def __init__(self, tally: tuple[str, int, int], index: int, receiver: Any, receiver_index: int) -> None:
        super().__init__(tally, index)
        self.receiver = receiver
        self.receiver_index = receiver_index

    def on_message(self, body: Any) -> Any:
        """Count and pass on."""
        if body is not None:
            self.context.tell(self.receiver, (body[0], content(self.receiver_index, body[0])))
        return super().on_message(body)


class Inquirer(Relay):
    """Asks a witness on another worker, and answers when that has."""

    max_concurrency = 8

    async def on_message(self, body: Any) -> Any:  # type: ignore[override]
        """Count, ask, and compare the answer."""
        self._begin(body)
        asked = (body[0], content(self.receiver_index, body[0]))
        answer = await self.receiver.ask_async(asked)
        return (self.index, body[0]) if answer == (self.receiver_index, body[0]) else ("wrong answer", answer)


class Bomber(Witness):
    """Has its process killed at the so manieth call or return of a function from now on; once for each message."""

    def on_message(self, body: Any) -> None:
        """Set the bomb off, unless it has gone off: a message that killed its worker comes again."""
        message, calls = body
        if message >= self._begun():
            self.tally.begun(self.index, message, True)
            sys.setprofile(functools.partial(_count_down, itertools.count(-calls)))


def _count_down(counter: "itertools.count[int]", frame: Any, event: str, argument: Any) -> None:
    if next(counter) == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Keeps:
    """Has a state that is kept, the number of messages that it is made of, and notes when it is not as it should be."""

    count = 0

    def _begin(self: Any, body: tuple[int, bytes]) -> None:
        if body[0] != self.count:
            words = self.tally.words(self.index)
            words[ASTRAY] += 1
            words[DRIFT] = (body[0] - self.count) % (1 << 64)
        self.count += 1
        super()._begin(body)  # type: ignore[misc]

    def _begun(self) -> int:
        return self.count

    def snapshot(self) -> int:
        """The state."""
        return self.count

    def restore(self, state: int) -> None:
        """Go on from there."""
        self.count = state


class KeepingWitness(Keeps, Witness):
    """A witness whose state is kept."""


class KeepingRelay(Keeps, Relay):
    """A relay whose state is kept: what it tells on arrives once."""


class KeepingInquirer(Keeps, Inquirer):
    """An inquirer whose state is kept."""

    max_concurrency = 1


class Member(Agent):
    """Answers with its number: one of many in waves."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_message(self, body: Any) -> Any:
        """Say who it is, and what it was sent."""
        return self.number, body
