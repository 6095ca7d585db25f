"""The targets of requirements.toml against what was measured."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Result
from bench.table import figure, grid

FILE = Path(__file__).with_name("requirements.toml")
AT_LEAST, AT_MOST = "at least", "at most"


@dataclass(frozen=True)
class Requirement:
    """One target, and the case and metric whose median (ours) must reach it."""

    name: str
    bench: str
    case: str
    metric: str
    target: float
    unit: str
    direction: str  # AT_LEAST or AT_MOST

    def __post_init__(self) -> None:
        if self.direction not in (AT_LEAST, AT_MOST):
            raise ValueError(f"{self.name}: direction is {self.direction!r}: say {AT_LEAST!r} or {AT_MOST!r}")


@dataclass(frozen=True)
class Verdict:
    """A requirement and what was measured; None: there is no figure, for the reason in `why`."""

    requirement: Requirement
    measured: float | None
    why: str

    @property
    def met(self) -> bool:
        """Whether the target is reached; a missing figure reaches nothing."""
        if self.measured is None:
            return False
        if self.requirement.direction == AT_LEAST:
            return self.measured >= self.requirement.target
        return self.measured <= self.requirement.target


def load(path: Path = FILE) -> list[Requirement]:
    """Return the requirements of the file, in its order.

    Raises: ValueError, TypeError when a row lacks a key, has one too many or an unknown direction.
    """
    rows: list[dict[str, Any]] = tomllib.loads(path.read_text())["requirement"]
    return [Requirement(**row) for row in rows]


def judge(requirements: Sequence[Requirement], results: Sequence[Result]) -> list[Verdict]:
    """Return a verdict per requirement."""
    ours: dict[tuple[str, str, str], Result] = {}
    for row in results:
        if row.ours:  # the first of a case is the one that counts
            ours.setdefault((row.bench, row.case, row.metric.name), row)
    verdicts = []
    for requirement in requirements:
        found = ours.get((requirement.bench, requirement.case, requirement.metric))
        figures = found.figures if found else None
        why = "" if figures else found.status if found else "was not measured"
        verdicts.append(Verdict(requirement, figures.median if figures else None, why))
    return verdicts


def show(verdicts: Sequence[Verdict]) -> None:
    """Print target, measured and pass or MISSED."""
    rows = []
    for verdict in verdicts:
        asked = verdict.requirement
        target = f"{asked.direction} {figure(asked.target)}"
        measured = "-" if verdict.measured is None else figure(verdict.measured)
        rows.append([asked.name, target, measured, asked.unit, "pass" if verdict.met else f"MISSED {verdict.why}"])
    grid("requirements", ["", "target", "measured", "unit", "verdict"], rows)
