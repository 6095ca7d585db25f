"""multiprocessing's Manager: an object in a process of its own, called through a proxy, one call at a time."""

from __future__ import annotations

from multiprocessing.managers import BaseManager
from typing import Any

from bench.sample import Sample, WrongAnswerError, rate


class Small:
    """Answers with two bytes."""

    def small_value(self) -> bytes:
        """Return them."""
        return b"ok"


class Manager(BaseManager):
    """Serves objects over a socket of the file system."""


Manager.register("Small", Small)


def run(case: str, seconds: float) -> Sample:
    """Call one object, one call after the other."""
    with Manager() as manager:
        proxy: Any = manager.Small()  # type: ignore[attr-defined]

        def call() -> int:
            if proxy.small_value() != b"ok":
                raise WrongAnswerError("the object does not answer with what it should")
            return 1

        return Sample({"calls": [rate(call, seconds)]}, f"for {seconds:g} s")
