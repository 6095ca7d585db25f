"""Scenarios as data: what scenarios.toml may say, and what it then says wrongly, by scenario and key. Pure."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.timetable import ARRIVALS

FILE = Path(__file__).with_name("scenarios.toml")
SCALES = ("quick", "requirements", "full")
NUMBER = (int, float)
_COMMON = {"name": str, "kind": str, "workers": int, "agents": int, "rounds": int, "scales": dict, "limits": dict}
_SENT = {"message": str, "arrivals": str, "every_ms": NUMBER}
_KEYS: dict[str, dict[str, Any]] = {  # by kind: what else is said, all of it
    "load": _SENT | {"rate": NUMBER, "seconds": NUMBER},
    "burst": _SENT | {"phases": list, "calm_ms": NUMBER},
    "spawn": {"times": int},
    "startup": {"times": int},
}
_CHOICES = {"kind": tuple(_KEYS), "message": ("ask", "tell", "submit", "converse", "route"), "arrivals": ARRIVALS}
_ABOUT_S = {"spawn": 0.05, "startup": 0.005}  # each time
_OF_LOADS = {"p50_ms", "p99_ms", "errors_percent", "growth_percent", "lost"}
_LIMITS = {
    "load": _OF_LOADS | {"conversations"},
    "burst": _OF_LOADS | {"recovery_s"},
    "spawn": {"single_ms", "batch_ms", "caller_ms"},
    "startup": {"p50_ms", "p99_ms"},
}


@dataclass(frozen=True)
class Scenario:
    """One scenario at full scale. `how` holds the keys that only its kind has."""

    name: str
    kind: str
    workers: int
    agents: int
    rounds: int  # at the scale of the requirements: the medians count
    scales: Mapping[str, float]
    limits: Mapping[str, float]
    how: Mapping[str, Any]

    @property
    def phases(self) -> list[tuple[float, float]]:
        """The (seconds, rate) of a load, one after the other."""
        found = self.how.get("phases") or [(self.how["seconds"], self.how["rate"])]
        return [(seconds, rate) for seconds, rate in found]

    @property
    def seconds(self) -> float:
        """About how long it takes once."""
        if "times" in self.how:
            return _ABOUT_S[self.kind] * float(self.how["times"])
        return sum(seconds for seconds, _ in self.phases)

    def scaled(self, scale: str | float) -> Scenario:
        """Return it as long as that scale says: by name, or so many times as long as at full scale.

        Raises: ValueError: no such scale.
        """
        factor = self.scales[scale] if scale in SCALES else _factor(scale)
        how = dict(self.how)
        if "seconds" in how:
            how["seconds"] = factor * how["seconds"]
        if "phases" in how:
            how["phases"] = [[factor * seconds, rate] for seconds, rate in how["phases"]]
        if "times" in how:
            how["times"] = max(1, round(factor * how["times"]))
        return Scenario(**(vars(self) | {"how": how}))


def load(path: Path = FILE) -> list[Scenario]:
    """Return the scenarios of the file, in its order.

    Raises: ValueError: names the scenario, and the key that is unknown, missing, of a wrong type or a contradiction.
    """
    content = tomllib.loads(path.read_text())
    try:
        _check_keys(content, {"scenario": list})
        found = [_scenario(row) for row in content["scenario"]]
        names = [one.name for one in found]
        for name in names:
            _demand(names.count(name) == 1, f"{name!r}: 'name' is that of two scenarios")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return found


def check_scale(scale: str) -> str | float:
    """Return the scale, a number where it is one. Raises: ValueError."""
    return scale if scale in SCALES else _factor(scale)


def _factor(scale: str | float) -> float:
    try:
        factor = float(scale)
    except ValueError:
        raise ValueError(f"no scale is called {scale!r}{_near(str(scale), SCALES)}; a number does too") from None
    _demand(0 < factor <= 1, f"scale {scale} must be over 0 and at most 1")
    return factor


def _scenario(row: Mapping[str, Any]) -> Scenario:
    name = row.get("name")
    _demand(isinstance(name, str) and bool(name), f"a scenario has no name, 'name' is {name!r}: {row}")
    try:
        _check_choice(row, "kind")
        _check_keys(row, _COMMON | _KEYS[row["kind"]])
        for key in ("message", "arrivals"):
            if key in row:
                _check_choice(row, key)
        how = {key: value for key, value in row.items() if key not in _COMMON}
        found = Scenario(**{key: row[key] for key in _COMMON}, how=how)
        _check_scales(found.scales)
        _check_limits(found)
        _check_sizes(found)
        if found.kind == "burst":
            _check_phases(found.how["phases"])
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    return found


def _check_keys(row: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in row:
        _demand(key in known, f"unknown key {key!r}{_near(key, known)}")
    for key, kind in known.items():
        _demand(key in row, f"key {key!r} is missing; needed are {', '.join(map(repr, known))}")
        right = isinstance(row[key], kind) and not isinstance(row[key], bool)
        wanted = "a number" if kind is NUMBER else f"{'an' if kind is int else 'a'} {kind.__name__}"
        _demand(right, f"{key!r} is {row[key]!r}, must be {wanted}")


def _check_choice(row: Mapping[str, Any], key: str) -> None:
    choices = _CHOICES[key]
    _demand(key in row, f"key {key!r} is missing; it may be {', '.join(map(repr, choices))}")
    _demand(row[key] in choices, f"{key!r} is {row[key]!r}{_near(str(row[key]), choices)}")


def _check_scales(scales: Mapping[str, Any]) -> None:
    for key in scales:
        _demand(key in SCALES, f"unknown scale {key!r} in 'scales'{_near(key, SCALES)}")
    _check_keys(scales, dict.fromkeys(SCALES, NUMBER))
    quick, middle, full = (scales[key] for key in SCALES)
    _demand(full == 1, f"scale 'full' is {full}, must be 1: durations are those at full scale")
    _demand(0 < quick <= middle <= full, f"'scales' contradict: quick={quick}, requirements={middle}, full={full}")


def _check_limits(scenario: Scenario) -> None:
    limits, known = scenario.limits, _LIMITS[scenario.kind]
    _demand(bool(limits), "'limits' says none: then nothing could be missed")
    for key, value in limits.items():
        _demand(key in known, f"unknown limit {key!r} for kind {scenario.kind!r}{_near(key, known)}")
        right = isinstance(value, NUMBER) and not isinstance(value, bool) and value >= 0
        _demand(right, f"limit {key!r} is {value!r}, must be a number from 0 on")
    median, tail = limits.get("p50_ms", 0), limits.get("p99_ms", float("inf"))
    _demand(median <= tail, f"limits contradict: 'p50_ms' is {median}, over 'p99_ms', {tail}")
    if "conversations" in limits:
        _demand(scenario.how["message"] == "converse", "limit 'conversations' is for message = \"converse\"")
        most = limits["conversations"]
        _demand(most <= scenario.agents, f"limit 'conversations' is {most}, more than 'agents', {scenario.agents}")


def _check_sizes(scenario: Scenario) -> None:
    sizes = {**vars(scenario), **scenario.how}
    for key in ("workers", "agents", "rounds", "rate", "seconds", "times", "calm_ms"):
        _demand(sizes.get(key, 1) > 0, f"{key!r} is {sizes.get(key)}, must be over 0")
    _demand(sizes.get("every_ms", 0) >= 0, f"'every_ms' is {sizes.get('every_ms')}, must be from 0 on")
    workers, agents = scenario.workers, scenario.agents
    _demand(agents >= workers, f"'agents' is {agents}, fewer than 'workers', {workers}: some would have none")


def _check_phases(phases: list[Any]) -> None:
    for phase in phases:
        right = isinstance(phase, list) and len(phase) == 2 and all(isinstance(one, NUMBER) for one in phase)
        _demand(right and min(phase) > 0, f"'phases' has {phase!r}, must be [seconds, messages a second], over 0")
    rates = [rate for _, rate in phases]
    middle = len(rates) == 3 and rates[1] > max(rates[0], rates[2])
    _demand(middle, f"'phases' are at {rates} a second: a burst has three, and the second has the highest rate")


def _demand(right: bool, why: str) -> None:
    if not right:
        raise ValueError(why)


def _near(word: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(word, list(names), 3, 0.5)
    return f"; near: {', '.join(map(repr, near))}" if near else f"; there are {', '.join(map(repr, names))}"
