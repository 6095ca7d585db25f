"""Runs as files: what one run measured, on what, and how fast the machine was meanwhile. And those of a folder.

A folder of files, one a run, each just what `--json` writes, and not one file that grows by a line: any of them can be
compared with, sent on or deleted, and a run that is killed while it writes leaves the others whole, and itself as it
was after the bench before.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.calibration import Reading
from bench.harness import Result


class NotARunError(Exception):
    """A file does not hold what `python -m bench --json` writes."""


@dataclass(frozen=True)
class Run:
    """One run of the command, whole or cut short."""

    facts: Mapping[str, Any]
    quick: bool
    results: Sequence[Result] = ()
    calibration: Sequence[Reading] = ()
    requirements: Sequence[Mapping[str, Any]] = ()  # as requirements.marks gives them
    summary: Sequence[str] = ()
    about: Mapping[str, str] = field(
        default_factory=dict
    )  # docstring of each bench: question, topology, what would ...
    interrupted: bool = False

    @property
    def benches(self) -> list[str]:
        """Those that were run, in their order."""
        return list(dict.fromkeys(row.bench for row in self.results))

    @property
    def date(self) -> str:
        """When it began, for people: 2026-11-28 17:01, in UTC."""
        return str(self.facts["date"])[:16].replace("T", " ")

    @property
    def title(self) -> str:
        """Date and commit."""
        return f"{self.date} ({self.facts['commit']})"

    def of(self, bench: str) -> list[Result]:
        """Return the results of one bench."""
        return [row for row in self.results if row.bench == bench]

    def as_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return vars(self) | {
            "results": [row.as_json() for row in self.results],
            "calibration": [reading.as_json() for reading in self.calibration],
        }

    def write(self, path: Path) -> None:
        """Write the file, in place of an older one only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n")
        unfinished.replace(path)


def read(path: Path) -> Run:
    """Return the run in a file; what an earlier version did not write is as if it were not known.

    Raises: NotARunError when the file is none, or cannot be read.
    """
    try:
        found = json.loads(path.read_text())
        return Run(
            {"date": found["facts"]["date"], "commit": found["facts"]["commit"]} | found["facts"],
            found["quick"],
            [Result.from_json(row) for row in found["results"]],
            [Reading.from_json(reading) for reading in found.get("calibration", [])],
            found.get("requirements", []),
            found.get("summary", []),
            found.get("about", {}),
            found.get("interrupted", False),
        )
    except OSError as error:
        raise NotARunError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise NotARunError(f"{path} is no file that python -m bench --json wrote ({why})") from error


def place_in(folder: Path, run: Run) -> Path:
    """Return the file of a run in the history: named by when it began and by its commit, so that names sort by time."""
    date = re.sub(r"[^0-9T]", "", str(run.facts["date"])[:19])
    commit = re.sub(r"[^0-9A-Za-z]+", "-", str(run.facts["commit"]))
    return folder / f"{date}-{commit}.json"


def earlier(folder: Path, run: Run, most: int = 30) -> list[Run]:
    """Return the runs of the folder that are like this one and not younger, oldest first; unreadable ones are left out.

    Like it: as quick, by the same scale of scenarios, on a processor of that name, with as many cores.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            one = read(path)
        except NotARunError:
            continue
        if _kind(one) == _kind(run) and str(one.facts["date"]) < str(run.facts["date"]):
            found.append(replace(one, about={}))
    return found[-most:]


def _kind(run: Run) -> tuple[Any, ...]:
    return run.quick, *map(run.facts.get, ("scale", "processor", "cores"))
