"""Send messages of every kind from threads of their own, and check what comes back.

Asks        ask, ask_many                        each answered once, with the right reply
Futures     submit                               the same
Tells       tell, tell_many, then a question     what was told before is begun before the question is
Relays      tell_many to relays, which tell on   judged at the end, by the tally of the receivers
Inquiries   ask_many to agents that ask others   each answered once, with the right reply
Waves       spawn_waves, ask each, stop          all there, each answers as itself
"""

import random
import threading
from collections.abc import Sequence
from typing import Any

from fabric import AgentRef, Fabric, WorkerLostError
from tests.chaos.agents import Member, content

_SHOWN = 5  # problems that are kept of a stream


class Stream(threading.Thread):
    """A thread that sends to some agents until it is told to end. Agent i of `refs` is `first + i` in the tally."""

    most = 600  # messages in one call

    def __init__(
        self, fabric: Fabric, refs: Sequence[AgentRef], first: int, seed: int, patience: float, once: bool = False
    ) -> None:
        super().__init__(name=f"chaos-{type(self).__name__.lower()}")
        self.fabric, self.refs, self.first = fabric, refs, first
        self.dice = random.Random(seed)
        self.patience = patience
        self.once = once  # on_crash="fail": an answer may be a WorkerLostError
        self.over = threading.Event()
        self.failed = threading.Event()  # shared by all of a run: one failure ends it
        self.sent = [0] * len(refs)
        self.completed = 0
        self.lost = 0  # answered by a WorkerLostError
        self.problems: list[str] = []

    def run(self) -> None:
        """Send until the end."""
        try:
            while not self.over.is_set() and not self.failed.is_set():
                self.turn()
        except BaseException as error:
            self.object(f"{type(error).__name__}: {error}")

    def turn(self) -> None:
        """Send some messages and check the answers."""
        raise NotImplementedError

    def object(self, problem: str) -> None:
        """Note what is wrong, and end the run."""
        if len(self.problems) < _SHOWN:
            self.problems.append(f"{self.name}: {problem}")
        self.failed.set()

    def draw(self) -> tuple[list[AgentRef], list[Any], list[tuple[int, int]]]:
        """Return receivers, bodies, and the answers due."""
        count = self.dice.choice((1, 2, min(30, self.most), self.most))
        refs, bodies, due = [], [], []
        for _ in range(count):
            place = self.dice.randrange(len(self.refs))
            message, agent = self.sent[place], self.first + place
            self.sent[place] += 1
            refs.append(self.refs[place])
            bodies.append((message, content(agent, message)))
            due.append((agent, message))
        return refs, bodies, due

    def judge(self, answers: Sequence[Any], due: Sequence[tuple[int, int]]) -> None:
        """Compare answers with those due."""
        for answer, wanted in zip(answers, due, strict=True):
            if self.once and isinstance(answer, WorkerLostError):
                self.lost += 1
            elif answer != wanted:
                self.object(f"answer {answer!r} instead of {wanted!r}")
        self.completed += len(due)


class Asks(Stream):
    """Asks one at a time and many together."""

    def turn(self) -> None:
        """Ask; see Stream."""
        refs, bodies, due = self.draw()
        if len(refs) == 1:
            try:
                answers: list[Any] = [refs[0].ask(bodies[0], timeout=self.patience)]
            except WorkerLostError as error:
                answers = [error]
        else:
            answers = self.fabric.ask_many(refs, bodies, timeout=self.patience, return_exceptions=True)
        self.judge(answers, due)


class Inquiries(Asks):
    """Asks agents that ask others. Few at a time: over half a lane in the hands of coroutines is not retried."""

    most = 100


class Futures(Stream):
    """Asks by futures, and takes the answers in another order."""

    most = 150

    def turn(self) -> None:
        """Submit; see Stream."""
        refs, bodies, due = self.draw()
        futures = [ref.submit(body) for ref, body in zip(refs, bodies, strict=True)]
        order = list(range(len(futures)))
        self.dice.shuffle(order)
        answers: list[Any] = [None] * len(futures)
        for place in order:
            answers[place] = futures[place].exception(self.patience) or futures[place].result()
        self.judge(answers, due)


class Tells(Stream):
    """Tells; a question after that finds all of it begun."""

    def turn(self) -> None:
        """Tell; see Stream."""
        refs, bodies, due = self.draw()
        if len(refs) == 1:
            refs[0].tell(bodies[0], timeout=self.patience)
        else:
            self.fabric.tell_many(refs, bodies, timeout=self.patience)
        asked = self.fabric.ask_many(self.refs, [None] * len(self.refs), self.patience, return_exceptions=True)
        for place, begun in enumerate(asked):
            if self.once:  # the last of them may have been lost, which is reported, or the question was
                continue
            if begun != self.sent[place]:
                self.object(f"agent {self.first + place} has begun {begun} of {self.sent[place]} before a question")
        self.completed += len(due)


class Relays(Stream):
    """Tells relays. Not more than is on its way: what handlers send has an end to its room."""

    most = 300

    def turn(self) -> None:
        """Tell, then wait until the relays have come so far."""
        refs, bodies, due = self.draw()
        self.fabric.tell_many(refs, bodies, timeout=self.patience)
        self.fabric.ask_many(self.refs, [None] * len(self.refs), self.patience, return_exceptions=True)
        self.completed += len(due)


class Waves(Stream):
    """Spawns agents in waves, asks each who it is, and stops them."""

    def turn(self) -> None:
        """Spawn, ask, stop."""
        count = self.dice.randrange(1, 120)
        size = self.dice.randrange(1, 40)
        each = {"number": range(count)}
        waves = self.fabric.spawn_waves(Member, count, wave_size=size, each=each, on_crash="retry")
        spawned = 0
        for wave in waves:
            numbers = list(range(spawned, spawned + len(wave.agents)))
            answers = wave.agents.ask_all("who", timeout=self.patience)
            if wave.failed or answers != [(number, "who") for number in numbers]:
                self.object(f"wave {wave.index}: {wave.failed} failed, answers {answers[:3]} for {numbers[:3]}")
            spawned += len(numbers)
            self.completed += len(numbers)
            wave.agents.stop(timeout=self.patience)
        if spawned != count:
            self.object(f"{spawned} of {count} agents spawned in waves")
