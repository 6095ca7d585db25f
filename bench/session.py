"""A run while it is measured: gathers results and the machine's pace, and keeps in its file what there is so far."""

from __future__ import annotations

import importlib
import inspect
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import calibration, history
from bench.calibration import Reading
from bench.harness import Result
from bench.history import Run


class Session:
    """One run of the command. A run of a day that is killed leaves what it had after the bench before."""

    def __init__(self, facts: Mapping[str, Any], quick: bool, folder: Path | None) -> None:
        """Begin. `folder` is the history; None: nothing is kept in files."""
        self._facts = dict(facts)
        self._quick = quick
        self._folder = folder
        self._start = time.monotonic()
        self._readings: list[Reading] = []
        self._about: dict[str, str] = {}
        self.results: list[Result] = []
        self.was_interrupted = False

    def begin(self, bench: str) -> None:
        """Time the calibration's loops ahead of a bench, and write down what it asks."""
        self._readings.append(calibration.read(bench))
        self._about[bench] = inspect.cleandoc(importlib.import_module(f"bench.{bench}").__doc__ or "")
        self._save()

    def add(self, results: Sequence[Result]) -> None:
        """Take the results of a case."""
        self.results += results

    def end(self) -> None:
        """Time the loops once more."""
        self._readings.append(calibration.read(calibration.END))

    def interrupted(self) -> None:
        """Note that there would have been more."""
        self.was_interrupted = True

    def finish(self, requirements: Sequence[Mapping[str, Any]] = (), summary: Sequence[str] = ()) -> Run:
        """Return the whole run, and keep it in the history."""
        self._facts["load_after"] = round(os.getloadavg()[0], 2)
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        self._facts["duration"] = f"{minutes} min {seconds} s"
        run = self._run(self.was_interrupted, requirements, summary)
        self._save(run)
        return run

    def _run(
        self, interrupted: bool, requirements: Sequence[Mapping[str, Any]] = (), summary: Sequence[str] = ()
    ) -> Run:
        return Run(
            self._facts,
            self._quick,
            self.results,
            self._readings,
            requirements,
            summary,
            self._about,
            interrupted,
        )

    def _save(self, run: Run | None = None) -> None:
        if self._folder is None or not self.results:
            return
        whole = run or self._run(interrupted=True)  # for as long as nobody says that it is not
        whole.write(history.place_in(self._folder, whole))
