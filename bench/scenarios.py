"""Does a fabric keep its latencies, its memory and every message under the loads of bench/scenarios.toml?

::

    timetable ── what is due, when it is due ──▶ senders ── ask, tell, submit ──▶ agents
                                                    ◀── every answer is checked ──┘   ... and what each agent counted

The load is open: messages are sent when they are due, whatever became of those before, and latency counts from when a
message was due, so that a stop of the service is in the figures with all that waited for it (coordinated omission). Of
a tell the latency is until its handler, of all else until the answer is here; of routing from one agent's send to the
other's handler. "startup" is that of an agent: from the call of spawn_batch until it has answered its first message.
The generator shares the cores with the fabric. Lost, doubled or mixed-up messages are wrong answers, and no figure.

`python -m bench scenarios` runs at the scale of the requirements; `--scale full` takes a day, `--scale 0.01` a
hundredth of that. What would change our minds: latencies that grow with the length of a run, or a limit missed.
"""

from __future__ import annotations

import json
from typing import Any

from bench import scenario_file
from bench.beginnings import run_spawn, run_startup
from bench.exchanges import PATIENCE
from bench.harness import Case, Contestant, Metric
from bench.loads import run_load
from bench.sample import Sample
from bench.scenario_file import Scenario

_LATENCIES = tuple(Metric(name, "ms", higher_is_better=False) for name in ("p50", "p99", "p99.9", "slowest"))
_OF_LOADS = (
    *_LATENCIES,
    Metric("rate", "messages/s"),
    Metric("errors", "% of messages", higher_is_better=False),
    Metric("lost or doubled", "messages", higher_is_better=False),
    Metric("memory", "MB", higher_is_better=False),
    Metric("growth", "% of memory", higher_is_better=False),
    Metric("CPU", "% of a core", higher_is_better=False),
)
CONVERSATIONS = Metric("conversations", "answered")
RECOVERY = Metric("recovery", "s", higher_is_better=False)
_SPAWN = tuple(Metric(name, "ms, p99", higher_is_better=False) for name in ("single", "batch", "caller"))
LIMITS = {  # by the names of scenarios.toml: which metric may be at most, or at least, so much
    "p50_ms": "p50",
    "p99_ms": "p99",
    "errors_percent": "errors",
    "growth_percent": "growth",
    "lost": "lost or doubled",
    "recovery_s": "recovery",
    "conversations": "conversations",
    "single_ms": "single",
    "batch_ms": "batch",
    "caller_ms": "caller",
}
_START_S = 30.0  # a trial's own beginning and end, on a busy machine


def cases(quick: bool) -> list[Case]:
    """Return a case for each scenario, at the scale of the requirements or the quick one."""
    return cases_at("quick" if quick else "requirements")


def cases_at(scale: str) -> list[Case]:
    """Return a case for each scenario at a scale: a name, or a number as text. Raises: ValueError."""
    wanted = scenario_file.check_scale(scale)
    return [
        _case(one, one.scaled(wanted), one.rounds if wanted == "requirements" else 1) for one in scenario_file.load()
    ]


def ours(scenario: str, agent: str = "", patience: float = 0.0) -> Sample:
    """Run one scenario, given as JSON, with another class of agents maybe; `patience`: what is later, in s, is lost."""
    found = Scenario(**json.loads(scenario))
    if found.kind in ("spawn", "startup"):
        run = run_spawn if found.kind == "spawn" else run_startup
        return run(found, agent or "Handler")
    return run_load(found, agent, patience or PATIENCE)


def metrics_of(scenario: Scenario) -> tuple[Metric, ...]:
    """Return what it measures."""
    if scenario.kind == "spawn":
        return _SPAWN
    if scenario.kind == "startup":
        return _LATENCIES[:2]
    more = [RECOVERY] if scenario.kind == "burst" else []
    return (*_OF_LOADS, *more, *([CONVERSATIONS] if scenario.how["message"] == "converse" else []))


def _case(full: Scenario, scenario: Scenario, rounds: int) -> Case:
    options: dict[str, Any] = {"scenario": json.dumps(vars(scenario))}
    contestant = Contestant(
        "fabric",
        "bench.scenarios:ours",
        options,
        busy=1 + scenario.workers,
        limit_s=_START_S + 2 * scenario.seconds,
    )
    return Case(full.name, metrics_of(scenario), (contestant,), rounds)
