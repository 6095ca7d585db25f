"""What a load says to its agents, and how the answers are checked: every reply, and what each agent counted in the end.

A message's number is its place in the timetable; message n goes to agent n modulo their count.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from bench import scenario_agents
from bench.load import MOST
from bench.recorder import Recorder
from bench.sample import WrongAnswerError
from bench.scenario_agents import VERDICT, Scribe, answer_to
from fabric import AgentGroup, Fabric, FabricError

PATIENCE = 30.0  # seconds after which a message that was not answered is lost


class Exchange:
    """One way to talk to the agents of a scenario. `send` is for OpenLoop: several threads call it at once."""

    agent = "Handler"
    most = MOST  # messages that are sent together

    def __init__(self, fabric: Fabric, agents: int, agent: str = "", patience: float = PATIENCE) -> None:
        self.fabric, self.agents, self.patience = fabric, agents, patience
        self.group = self.spawn(getattr(scenario_agents, agent or self.agent))
        refs = list(self.group)
        self._ring = refs * (1 + -(-self.most // agents))  # so that each stretch of it is a slice
        self._guard = threading.Lock()
        self.errors = 0
        self.recorder = Recorder(0)

    def spawn(self, kind: Any) -> AgentGroup:
        """Make the agents."""
        return self.fabric.spawn_batch(kind, self.agents)

    def begin(self, recorder: Recorder) -> None:
        """Record here from now on."""
        self.recorder = recorder

    def send(self, first: int, due: Any) -> None:
        """Send messages number `first` on, which were due then, and take their replies."""
        raise NotImplementedError

    def finish(self, sent: int) -> None:
        """Wait until all that was sent is over; see that each agent got what it was sent, once.

        Raises: WrongAnswerError.
        """
        check_counts(self.group.ask_all(VERDICT, timeout=self.patience), sent, self.errors)

    def refs(self, first: int, count: int) -> Sequence[Any]:
        """Return whom these messages go to."""
        place = first % self.agents
        return self._ring[place : place + count]


class Asked(Exchange):
    """Numbers are asked, many in a call; the answer is the number."""

    def send(self, first: int, due: Any) -> None:
        bodies = self.bodies(first, len(due))
        try:
            found = self.fabric.ask_many(
                self.refs(first, len(due)), bodies, timeout=self.patience, return_exceptions=True
            )
        except TimeoutError as error:
            raise WrongAnswerError(f"messages were lost: {error}") from error
        arrived = time.monotonic_ns()
        errors = self.check(first, bodies, found)
        with self._guard:
            self.errors += errors
            self.recorder.record(due, arrived)

    def bodies(self, first: int, count: int) -> list[Any]:
        """Return what is asked."""
        return list(range(first, first + count))

    def check(self, first: int, bodies: list[Any], found: list[Any]) -> int:
        """Compare the replies with what is right; return how many are errors."""
        return 0 if found == bodies else _count_errors(first, found, bodies)


class Conversations(Asked):
    """Each agent is in a conversation: what is said quotes its last answer, which depends on all said before."""

    agent = "Partner"

    def __init__(self, fabric: Fabric, agents: int, agent: str = "", patience: float = PATIENCE) -> None:
        self.most = min(MOST, agents)  # nobody is spoken to twice in a call
        super().__init__(fabric, agents, agent, patience)
        self._tokens, self._turns = np.zeros(agents, np.int64), np.zeros(agents, np.int64)
        self._answered, self._failed = threading.Condition(), False

    def bodies(self, first: int, count: int) -> list[Any]:
        """Return what is said next. Waits for the answers that it quotes, which counts as latency like any wait."""
        numbers = np.arange(first, first + count)
        who = numbers % self.agents

        def answered() -> bool:
            return self._failed or bool((self._turns[who] == numbers // self.agents).all())

        with self._answered:
            if not self._answered.wait_for(answered, self.patience) or self._failed:
                raise WrongAnswerError("a turn of a conversation was not answered, and the next cannot quote it")
            return list(zip(numbers.tolist(), self._tokens[who].tolist(), strict=True))

    def check(self, first: int, bodies: list[Any], found: list[Any]) -> int:
        numbers = np.arange(first, first + len(bodies))
        who = numbers % self.agents
        right = answer_to(numbers, self._tokens[who])
        try:
            if found != right.tolist() and _count_errors(first, found, right.tolist()):
                error = next(reply for reply in found if isinstance(reply, FabricError))
                raise WrongAnswerError(f"a turn of a conversation was answered with an error: {error}")
        except WrongAnswerError:
            self._failed = True
            raise
        finally:
            with self._answered:
                self._tokens[who] = right
                self._turns[who] += 1
                self._answered.notify_all()
        return 0


class Submitted(Exchange):
    """Orders are submitted one by one; a callback of the future takes the answer."""

    agent = "Clerk"

    def __init__(self, fabric: Fabric, agents: int, agent: str = "", patience: float = PATIENCE) -> None:
        super().__init__(fabric, agents, agent, patience)
        self._came, self._some_came = 0, threading.Condition(self._guard)
        self._wrong: WrongAnswerError | None = None

    def send(self, first: int, due: Any) -> None:
        for offset, ref in enumerate(self.refs(first, len(due))):
            future = ref.submit(_order(first + offset))
            future.add_done_callback(functools.partial(self._take, first + offset, due[offset : offset + 1]))

    def _take(self, number: int, due: Any, future: Future[Any]) -> None:
        arrived = time.monotonic_ns()
        error = future.exception()
        errors, wrong = int(error is not None), None
        if error is None and future.result() != (right := {"number": number, "cost": _cost(number)}):
            wrong = WrongAnswerError(f"order {number} was answered with {future.result()!r}, not {right!r}")
        with self._guard:
            self._came += 1
            self.errors += errors
            self._wrong = self._wrong or wrong
            self.recorder.record(due, arrived)
            self._some_came.notify_all()

    def finish(self, sent: int) -> None:
        with self._guard:
            if not self._some_came.wait_for(lambda: self._came >= sent, self.patience):
                raise WrongAnswerError(f"{sent - self._came:,} of {sent:,} messages were lost: no answer came")
        if self._wrong is not None:
            raise self._wrong
        super().finish(sent)


class Told(Exchange):
    """Numbers are told; the agents record when they handle them, counted from when they were due."""

    agent = "Listener"

    def begin(self, recorder: Recorder) -> None:
        super().begin(recorder)
        workers = range(len(self.fabric.statistics().workers))
        self._scribes = [self.fabric.spawn_batch(Scribe, 1, placement=worker)[0] for worker in workers]
        self.fabric.ask_many(self._scribes, [recorder] * len(workers))

    def send(self, first: int, due: Any) -> None:
        bodies = list(zip(range(first, first + len(due)), due.tolist(), strict=True))
        self.fabric.tell_many(self.refs(first, len(due)), bodies, timeout=self.patience)

    def finish(self, sent: int) -> None:
        self.fabric.drain(timeout=self.patience)
        for found in self.fabric.ask_many(self._scribes, [None] * len(self._scribes)):
            self.recorder.merge(found)
        self.errors += self.fabric.statistics().dead_letters
        super().finish(sent)


class Routed(Told):
    """Numbers are told to agents that pass them on to a neighbour, who records how long ago they did so.

    Those who pass on are in worker 0, their neighbours in the last: with one worker in the same.
    """

    def spawn(self, kind: Any) -> AgentGroup:
        last = len(self.fabric.statistics().workers) - 1
        self._neighbours = self.fabric.spawn_batch(kind, self.agents, placement=last)
        routers = self.fabric.spawn_batch(scenario_agents.Router, self.agents, placement=0)
        routers.ask_each(self._neighbours)
        return routers

    def finish(self, sent: int) -> None:
        super().finish(sent)
        check_counts(self._neighbours.ask_all(VERDICT, timeout=self.patience), sent, self.errors)


def check_counts(verdicts: Sequence[tuple[int, int]], sent: int, errors: int) -> None:
    """Compare what each agent handled with what it was sent; as many as there were errors may be missing.

    Raises: WrongAnswerError: messages were lost, came twice, or are others than were sent.
    """
    numbers = [range(place, sent, len(verdicts)) for place in range(len(verdicts))]
    excess = [count - len(due) for (count, _), due in zip(verdicts, numbers, strict=True)]
    doubled, lost = sum(max(0, one) for one in excess), sum(max(0, -one) for one in excess)
    if doubled or lost > errors:
        raise WrongAnswerError(f"of {sent:,} messages {max(0, lost - errors):,} were lost and {doubled:,} came twice")
    if not errors and any(total != _sum(due) for (_, total), due in zip(verdicts, numbers, strict=True)):
        raise WrongAnswerError(f"as many messages as were sent were handled ({sent:,}), but not the same")


def _sum(numbers: range) -> int:
    return len(numbers) * (numbers[0] + numbers[-1]) // 2 if numbers else 0


def _count_errors(first: int, found: list[Any], right: list[Any]) -> int:
    errors = 0
    for offset, (reply, due) in enumerate(zip(found, right, strict=True)):
        if isinstance(reply, FabricError):
            errors += 1
        elif reply != due:
            raise WrongAnswerError(f"message {first + offset} was answered with {reply!r}, not {due!r}")
    return errors


def _order(number: int) -> dict[str, Any]:
    lines = [{"item": (number + line) % 10, "pieces": 1 + line, "price": 9.99 + number % 7} for line in range(4)]
    return {"number": number, "customer": f"customer-{number % 1_000}", "lines": lines}


def _cost(number: int) -> float:
    cost = 0.0
    for line in _order(number)["lines"]:
        cost += line["pieces"] * line["price"]
    return round(cost, 2)
