"""The targets of requirements.toml against what was measured: by ours alone, or beside a peer in the same run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Result
from bench.table import figure, grid, ratio

FILE = Path(__file__).with_name("requirements.toml")
AT_LEAST, AT_MOST = "at least", "at most"
TIMES = "times"  # the unit of those that name a peer


@dataclass(frozen=True)
class Requirement:
    """One target, and the case and metric whose median (ours) must reach it.

    With a peer the target is how many times better ours must be than that contestant, in the same run.
    """

    name: str
    bench: str
    case: str
    metric: str
    target: float
    unit: str
    direction: str  # AT_LEAST or AT_MOST
    peer: str = ""

    def __post_init__(self) -> None:
        if self.peer and (self.direction, self.unit) != (AT_LEAST, TIMES):
            raise ValueError(f"{self.name}: beside a peer ours must be {AT_LEAST!r} so many {TIMES!r} as good")
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
    rows: dict[tuple[str, str, str, str], Result] = {}  # by contestant; ours is "", the first of a case
    for row in results:
        rows.setdefault((row.bench, row.case, row.metric.name, "" if row.ours else row.contestant), row)
    return [_verdict(one, rows) for one in requirements]


def marks(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the requirements with what was measured, for the JSON file and the report."""
    return [vars(one.requirement) | {"measured": one.measured, "met": one.met, "why": one.why} for one in verdicts]


def lines(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of marks: target, measured, and pass or MISSED."""
    rows = []
    for mark in found:
        target = f"{mark['direction']} {figure(mark['target'])}"
        unit = f"{mark['unit']} {mark['peer']}" if mark["peer"] else mark["unit"]
        measured = "-" if mark["measured"] is None else figure(mark["measured"])
        verdict = "pass" if mark["met"] else f"MISSED {mark.get('why', '')}"
        rows.append([mark["name"], target, measured, unit, verdict])
    return ["", "target", "measured", "unit", "verdict"], rows


def show(verdicts: Sequence[Verdict]) -> None:
    """Print target, measured and pass or MISSED."""
    grid("requirements", *lines(marks(verdicts)))


def _verdict(requirement: Requirement, rows: Mapping[tuple[str, str, str, str], Result]) -> Verdict:
    where = requirement.bench, requirement.case, requirement.metric
    needed = [rows.get((*where, name)) for name in dict.fromkeys(["", requirement.peer])]
    for row in needed:
        if row is None or row.figures is None:
            return Verdict(requirement, None, _why_not(row))
    ours, *peers = (row for row in needed if row is not None)
    figures = ours.figures
    assert figures is not None
    return Verdict(requirement, ratio(ours, peers[0]) if peers else figures.median, "")


def _why_not(row: Result | None) -> str:
    if row is None:
        return "was not measured"
    return row.status if row.ours else f"{row.contestant}: {row.status}"
