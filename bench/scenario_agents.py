"""The agents of the scenarios: each counts what it handles, so that what is lost or comes twice shows in the end."""

from __future__ import annotations

import time
from array import array
from typing import Any, ClassVar

import numpy as np

from bench.recorder import Recorder
from fabric import Agent, AgentRef

VERDICT = None  # the body that asks an agent what it has handled
_FULL = 4_096
_TOKEN = 0xFFFF_FFFF


class Handler(Agent):
    """Answers a number with that number. Counts: (how many, their sum) is its verdict."""

    def __init__(self) -> None:
        self.count = self.total = 0

    def on_message(self, body: Any) -> Any:
        if body is VERDICT:
            return self.count, self.total
        return self.handle(body)

    def handle(self, body: Any) -> Any:
        self.note(body)
        return body

    def note(self, number: int) -> None:
        """Count a message."""
        self.count += 1
        self.total += number


class Clerk(Handler):
    """Answers an order as a service does: takes it from the stock and says what it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = dict.fromkeys(range(10), 1 << 60)

    def handle(self, body: dict[str, Any]) -> dict[str, Any]:
        self.note(body["number"])
        cost = 0.0
        for line in body["lines"]:
            self.stock[line["item"]] -= line["pieces"]
            cost += line["pieces"] * line["price"]
        return {"number": body["number"], "cost": round(cost, 2)}


class Partner(Handler):
    """One side of a conversation: what is said must answer what it said last. Each answer depends on all before."""

    def __init__(self) -> None:
        super().__init__()
        self.token = 0

    def handle(self, body: tuple[int, int]) -> int | str:
        number, token = body
        self.note(number)
        if token != self.token:
            return f"mixed up: an answer to {token}, {self.token} was said"
        self.token = answer_to(number, token)
        return self.token


def answer_to(number: Any, token: Any) -> Any:
    """Return what a partner answers to message `number` that quotes this token; of numpy arrays of them too."""
    return (token * 1_103_515_245 + number + 12_345) & _TOKEN


class Listener(Handler):
    """Is told (number, ns): records how long after that it handles it, with the recorder of its worker."""

    recorder: ClassVar[Recorder | None] = None
    since: ClassVar[array[int]] = array("q")
    arrived: ClassVar[array[int]] = array("q")

    def handle(self, body: tuple[int, int]) -> None:
        self.note(body[0])
        self.since.append(body[1])
        self.arrived.append(time.monotonic_ns())
        if len(self.since) >= _FULL:
            flush()


def flush() -> None:
    """Let the recorder of this worker have what was noted since the last time."""
    if Listener.recorder is not None:
        Listener.recorder.record(np.array(Listener.since), np.array(Listener.arrived))
    for noted in (Listener.since, Listener.arrived):
        del noted[:]


class Scribe(Agent):
    """Gives its worker a recorder, and returns it when told nothing. One a worker."""

    def on_message(self, body: Recorder | None) -> Recorder | None:
        flush()
        if body is None:
            return Listener.recorder
        Listener.recorder = body
        return None


class Router(Handler):
    """Passes each number on to its neighbour, with the time at which it does so."""

    neighbour: AgentRef

    def on_message(self, body: Any) -> Any:
        if isinstance(body, AgentRef):
            self.neighbour = body
            return None
        return super().on_message(body)

    def handle(self, body: tuple[int, int]) -> None:
        self.note(body[0])
        self.neighbour.tell((body[0], time.monotonic_ns()))


# The faults below are seeded by tests only, to prove that each check can fail.


class Dropper(Handler):
    """Answers number 7 and has not counted it."""

    def note(self, number: int) -> None:
        if number != 7:
            super().note(number)


class Doubler(Handler):
    """Counts number 7 twice."""

    def note(self, number: int) -> None:
        super().note(number)
        if number == 7:
            super().note(number)


class Swapper(Handler):
    """Takes number 7 for 8: as many, and others."""

    def note(self, number: int) -> None:
        super().note(8 if number == 7 else number)


class Liar(Handler):
    """Answers number 7 with another."""

    def handle(self, body: int) -> int:
        return 8 if super().handle(body) == 7 else body


class Mute(Handler):
    """Never answers number 7."""

    def handle(self, body: int) -> int:
        if body == 7:
            self.kept = self.context.reply_later()
        return int(super().handle(body))


class Raiser(Handler):
    """Raises at each tenth number."""

    def handle(self, body: int) -> int:
        if body % 10 == 0:
            raise ValueError("a seeded fault")
        return int(super().handle(body))


class Staller(Handler):
    """Stops its worker for 0.3 s, once: at number 100."""

    def handle(self, body: int) -> int:
        if body == 100:
            time.sleep(0.3)
        return int(super().handle(body))


class Hoarder(Handler):
    """Keeps 100 kB of each message."""

    kept: ClassVar[list[bytearray]] = []

    def handle(self, body: int) -> int:
        self.kept.append(bytearray(b"x" * 100_000))
        return int(super().handle(body))


class Deaf(Listener):
    """Is told number 7 and handles nothing."""

    def handle(self, body: tuple[int, int]) -> None:
        if body[0] != 7:
            super().handle(body)


class Hearer(Listener):
    """Hears number 7 twice."""

    def handle(self, body: tuple[int, int]) -> None:
        super().handle(body)
        if body[0] == 7:
            super().handle(body)


class Sleeper(Listener):
    """Needs 1 ms for each message."""

    def handle(self, body: tuple[int, int]) -> None:
        time.sleep(0.001)
        super().handle(body)


class Gossip(Partner):
    """Says to all what it last said to one."""

    said: ClassVar[list[int | str]] = [0]

    def handle(self, body: tuple[int, int]) -> int | str:
        found, self.said[0] = self.said[0], super().handle(body)
        return found


class Miscalculator(Clerk):
    """Gives a discount on number 7."""

    def handle(self, body: dict[str, Any]) -> dict[str, Any]:
        found = super().handle(body)
        return found | {"cost": 0.0} if body["number"] == 7 else found


class Postponer(Clerk):
    """Never answers order 7."""

    def handle(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["number"] == 7:
            self.kept = self.context.reply_later()
        return super().handle(body)


class Thinker(Partner):
    """Takes 0.1 s for each answer."""

    def handle(self, body: tuple[int, int]) -> int | str:
        time.sleep(0.1)
        return super().handle(body)


class Sulker(Partner):
    """Has no answer to number 27."""

    def handle(self, body: tuple[int, int]) -> int | str:
        if body[0] == 27:
            raise ValueError("a seeded fault")
        return super().handle(body)
