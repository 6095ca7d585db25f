"""The agents that are sent arrays and large bodies; apart from bench.agents, which do without numpy."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from bench import arrays
from fabric import Agent

VARIANTS = 4  # of what a Source sends, so that an old answer shows


class Summer(Agent):
    """Sums an array; answers with the sum, or with the array."""

    def __init__(self, back: str) -> None:
        self._back = back

    def on_message(self, body: Any) -> Any:
        return arrays.answer(body, self._back)


class Reader(Agent):
    """Answers with the sum of the 8-byte words of a body, which is an array or bytes."""

    def on_message(self, body: Any) -> int:
        return words(body)


class Source(Agent):
    """Answers an index with a body of `size` bytes that depends on it."""

    def __init__(self, form: str, size: int) -> None:
        self._bodies = variants(form, size)

    def on_message(self, body: int) -> Any:
        return self._bodies[body % VARIANTS]


def variants(form: str, size: int) -> list[Any]:
    """Return bodies of `size` bytes, "bytes" or "arrays", no two with the same words."""
    made = [np.arange(size // 8, dtype="u8") + start for start in range(VARIANTS)]
    return made if form == "arrays" else [one.tobytes() for one in made]


def words(body: Any) -> int:
    """Return the sum of a body's 8-byte words: all of it is read."""
    return int(np.frombuffer(body, "u8").sum())


# The faults below are seeded by tests only, to prove that each check can fail.


class Skimmer(Summer):
    """Leaves out the last element."""

    def on_message(self, body: Any) -> Any:
        if self._back == arrays.ARRAY:
            body[-1] = 0.0
            return super().on_message(body)
        return super().on_message(body[:-1])


class SkimmingReader(Reader):
    """Leaves out the last word."""

    def on_message(self, body: Any) -> int:
        return words(body[:-8])


class Hoarder(Reader):
    """Keeps every hundredth array it is sent."""

    calls: ClassVar[list[int]] = [0]
    kept: ClassVar[list[Any]] = []

    def on_message(self, body: Any) -> int:
        self.calls[0] += 1
        if self.calls[0] % 100 == 0:
            self.kept.append(body)
        return super().on_message(body)
