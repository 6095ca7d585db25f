"""The agents that the benchmarks spawn. Their handlers are trivial: the way there and back is measured."""

from __future__ import annotations

import mmap
import os
import time
from typing import Any, ClassVar

from bench.bodies import digest
from fabric import Agent


class Echo(Agent):
    """Answers with the body."""

    def on_message(self, body: Any) -> Any:
        return body


class Busy(Agent):
    """Answers with the body after 20 µs of work."""

    def on_message(self, body: bytes) -> bytes:
        return busy(body)


def busy(body: bytes) -> bytes:
    """Use the processor for 20 µs; return the body."""
    until = time.perf_counter_ns() + 20_000
    while time.perf_counter_ns() < until:
        pass
    return body


class Counter(Agent):
    """Adds each body to its total and answers with the total."""

    def __init__(self, start: int = 0) -> None:
        self.total = start

    def on_message(self, body: int) -> int:
        self.total += body
        return self.total


class Sink(Agent):
    """Keeps what it is told. `index` is its place in the batch."""

    of_this_worker: ClassVar[dict[int, list[bytes]]] = {}

    def __init__(self, index: int) -> None:
        self.seen: list[bytes] = []
        self.of_this_worker[index] = self.seen

    def on_message(self, body: bytes) -> None:
        self.seen.append(body)


class Auditor(Agent):
    """Answers for all sinks of its worker with (count, digest) and empties them: a sink knows no commands."""

    def on_message(self, _: object) -> tuple[int, str]:
        sinks = [Sink.of_this_worker[index] for index in sorted(Sink.of_this_worker)]
        answer = sum(map(len, sinks)), digest(body for seen in sinks for body in seen)
        for seen in sinks:
            seen.clear()
        return answer


class Worker(Agent):
    """Sleeps and returns a number, as the tasks of bench.crash_users do."""

    def on_message(self, body: tuple[int, float]) -> int:
        number, seconds = body
        time.sleep(seconds)
        return number


class Survivor(Agent):
    """Answers None with its pid; counts other messages in a file, where the count outlives its process."""

    maps: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: str) -> None:
        if path not in self.maps:
            with open(path, "r+b") as file:
                self.maps[path] = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
        self.handled = self.maps[path]

    def on_message(self, body: Any) -> int:
        if body is not None:
            self.handled[0] += 1
        return os.getpid()


# The faults below are seeded by tests only, to prove that each check can fail.


class Liar(Echo):
    """Answers the seventh body, and every seventh after it, with something else."""

    calls: ClassVar[list[int]] = [0]

    def on_message(self, body: Any) -> Any:
        self.calls[0] += 1
        return "a lie" if self.calls[0] % 7 == 0 else body


class Forgetful(Sink):
    """Keeps all but the last byte of what it is told."""

    def on_message(self, body: bytes) -> None:
        self.seen.append(body[:-1])


class Miscounter(Counter):
    """Counts the body 3 twice."""

    def on_message(self, body: int) -> int:
        return super().on_message(6 if body == 3 else body)


class Impostor(Counter):
    """Gives itself out for its neighbour, if it is the seventh."""

    def on_message(self, body: int) -> int:
        return super().on_message(body) + (self.total == 7)


class Deserter(Survivor):
    """Handles nothing, and says nothing of it."""

    def on_message(self, body: Any) -> int:
        return os.getpid()
