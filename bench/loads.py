"""Runs one scenario that is a load, and says what it measured: latencies, errors, memory, CPU, recovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.agents import Echo
from bench.exchanges import PATIENCE, Asked, Conversations, Exchange, Routed, Submitted, Told
from bench.load import OpenLoop, Pace
from bench.processes import Footprint, footprint
from bench.recorder import Recorder
from bench.sample import Sample
from bench.scenario_file import Scenario
from bench.timetable import Timetable
from fabric import Fabric, FabricConfig, Statistics

_EXCHANGES = {"ask": Asked, "tell": Told, "submit": Submitted, "converse": Conversations, "route": Routed}
_ALONE = ("tell", "submit", "route")  # that wait for no reply: one sender is as many as are needed
_WARM_S, _WARM_SHARE = 2.0, 0.2
_TURN_BODY = 16 << 10
_QUIET = 5.0  # % of a core that a machine takes for itself


@dataclass(frozen=True)
class Course:
    """How a load went, beside what its exchange recorded."""

    sent: int
    begun: int  # ns
    before: Footprint  # when the warm-up was over
    after: Footprint
    batches: int


def run_load(scenario: Scenario, agent: str = "", patience: float = PATIENCE) -> Sample:
    """Run it and check all answers. Raises: WrongAnswerError: messages were lost, came twice or were mixed up."""
    how = scenario.how
    with Fabric(workers=scenario.workers) as fabric:
        exchange: Exchange = _EXCHANGES[how["message"]](fabric, scenario.agents, agent, patience)
        _turn_lanes(fabric, scenario.workers)
        course = _drive(exchange, scenario)
        exchange.finish(course.sent)
        values = _figures(exchange, course)
        if scenario.kind == "burst":
            values["recovery"] = [_recovery(exchange.recorder, scenario)]
        if how["message"] == "converse":
            values["conversations"] = [min(float(scenario.agents), float(course.sent))]  # all: what was checked
        return Sample(values, _remarks(course, fabric.statistics()))


def _drive(exchange: Exchange, scenario: Scenario) -> Course:
    how, phases = scenario.how, scenario.phases
    warm = min(_WARM_S, _WARM_SHARE * phases[0][0])
    pace = Pace(1 if how["message"] in _ALONE else Pace.senders, how["every_ms"], exchange.most)
    loop = OpenLoop(Timetable(phases, how["arrivals"]), pace)
    calm = loop.start + round(1e9 * sum(seconds for seconds, _ in phases[:2])) if scenario.kind == "burst" else None
    exchange.begin(Recorder(loop.start + round(warm * 1e9), calm))
    before: list[Footprint] = []
    sent = loop.run(exchange.send, warm, lambda: before.append(footprint()))
    return Course(sent, loop.start, before[0], footprint(), loop.batches)


def _figures(exchange: Exchange, course: Course) -> dict[str, list[float]]:
    found, before, after = exchange.recorder, course.before, course.after
    latencies = found.latencies
    figures = {
        "p50": latencies.percentile(0.5) / 1e6,
        "p99": latencies.percentile(0.99) / 1e6,
        "p99.9": latencies.percentile(0.999) / 1e6,
        "slowest": latencies.maximum / 1e6,
        "rate": course.sent / (found.last - course.begun) * 1e9,
        "errors": 100 * exchange.errors / course.sent,
        "lost or doubled": 0.0,  # anything else was raised
        "memory": after.resident / 1e6,
        "growth": max(0.0, 100 * (after.resident / before.resident - 1)),
        "CPU": 100 * (after.cpu_s - before.cpu_s) / (after.at - before.at),
    }
    return {name: [value] for name, value in figures.items()}


def _remarks(course: Course, counted: Statistics) -> str:
    """Say how it went, and what may have disturbed it."""
    spent, passed = (getattr(course.after, key) - getattr(course.before, key) for key in ("machine_s", "at"))
    others = 100 * (spent - (course.after.cpu_s - course.before.cpu_s)) / passed
    notes = [f"{course.sent:,} messages, {course.sent / course.batches:.3g} together"]
    notes += [f"others took {others:.0f} % of a core"] if others > _QUIET else []
    notes += [f"{counted.restarts} restarts"] if counted.restarts else []
    return ", ".join([*notes, *([f"{counted.alarms} alarms"] if counted.alarms else [])])


def _recovery(recorder: Recorder, scenario: Scenario) -> float:
    found = recorder.calm_after(scenario.how["calm_ms"])
    if found is None:
        raise RuntimeError(f"not recovered {scenario.phases[-1][0]:g} s after the burst")
    return found


def _turn_lanes(fabric: Fabric, workers: int) -> None:
    """Send all lanes full, there and back: a ring touches all its pages sooner or later, which is no growth."""
    echoes: list[Any] = [fabric.spawn_batch(Echo, 1, placement=worker)[0] for worker in range(workers)]
    bodies = [bytes([index % 251]) * _TURN_BODY for index in range(2 * FabricConfig().lane_bytes // _TURN_BODY)]
    for echo in echoes:
        fabric.ask_many([echo] * len(bodies), bodies)
        echo.stop()
