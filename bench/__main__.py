"""The command: `python -m bench [NAME ...]`, or `python -m bench requirements`; `--help` says the rest.

`python -m bench compare EARLIER.json LATER.json` and `report RUN.json` look at runs there were: bench.saved.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import curve, outputs, report, requirements, saved, scenario_file, session, sheet, table
from bench.harness import Case, Interrupted, Result, Settings, run_case
from bench.history import Run
from bench.machine import NOISY, facts

BENCHES = (
    "ask_many",
    "tell_many",
    "round_trip",
    "spawn",
    "startup",
    "idle",
    "memory",
    "million",
    "records",
    "array_spawn",
    "population",
    "scaling",
    "publishers",
    "lookup",
    "placing",
    "encoding",
    "recovery",
    "protection",
    "metrics",
    "crashes",
    "large",
    "sizes",
    "body_sizes",
    "threshold",
    "growth",
    "streams",
    "stream_chunks",
    "queues",
    "fifo_grid",
    "executor",
    "pool",
    "concurrent_imap",
    "joblib_calls",
    "ray_cases",
    "scenarios",
)
CURVES = (  # what --plot draws
    "sizes",
    "body_sizes",
    "threshold",
    "stream_chunks",
    "population",
    "scaling",
    "publishers",
    "lookup",
    "placing",
)
REQUIREMENTS = "requirements"
INTERRUPTED = 128 + 2  # as shells say it of SIGINT
SCENARIOS = "scenarios"  # the bench that --scale is for, and whose limits are judged whenever it is named


def question(bench: str) -> str:
    """Return the first line of the bench's docstring: its question."""
    return (importlib.import_module(f"bench.{bench}").__doc__ or "").strip().splitlines()[0]


def cases_of(bench: str, quick: bool) -> list[Case]:
    """Return the cases of a bench."""
    found: list[Case] = importlib.import_module(f"bench.{bench}").cases(quick)
    return found


def run(wanted: dict[str, list[Case]], settings: Settings, kept: session.Session) -> None:
    """Run the cases of each bench, print their tables as they come, and keep the results (with Ctrl-C those so far)."""
    try:
        for bench, its_cases in wanted.items():
            kept.begin(bench)
            for case in its_cases:
                _keep(run_case(bench, case, settings), kept)
        kept.end()
    except Interrupted as interrupt:
        _keep(interrupt.results, kept)
        kept.interrupted()
    except KeyboardInterrupt:
        kept.interrupted()


def _keep(found: list[Result], kept: session.Session) -> None:
    (curve if curve.is_one(found) else sheet if sheet.is_one(found) else table).show(found)
    kept.add(found)


def summarise(results: Sequence[Result]) -> list[str]:
    """Return what a reader should not overlook: where we lose, what failed, what was wrong."""
    against = table.comparisons(results)
    lines = [str(comparison) for comparison in sorted(against, key=lambda one: one.ratio)]
    lines += curve.summary(results)
    failed = [f"FAILED: {_where(row)}: {row.status}" for row in results if row.is_failure]
    lines += dict.fromkeys(failed)  # once, though it fails by every metric
    if against and not any(one.lost for one in against):
        lines.append("We lose no comparison in this run.")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 for a failure of ours, a wrong answer, a missed target."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] in saved.COMMANDS:
        return saved.main(words)
    asked, earlier = _parse(words)
    if asked.list:
        for bench in BENCHES:
            print(f"{bench:15} {question(bench)}")
        return 0
    judged = asked.names == [REQUIREMENTS] or SCENARIOS in asked.names
    known = _limits(asked.names)
    about = facts() | ({"scale": asked.scale} if asked.scale else {})
    _announce(about)
    wanted = _wanted(asked.names, asked.quick, known if REQUIREMENTS in asked.names else [])
    if asked.scale and SCENARIOS in wanted:
        wanted[SCENARIOS] = importlib.import_module("bench.scenarios").cases_at(asked.scale)
    kept = session.Session(about, asked.quick, asked.report and asked.report / report.RUNS)
    settings = Settings(asked.quick, asked.ours, lambda line: print(line, file=sys.stderr))
    run(wanted, settings, kept)
    verdicts = requirements.judge(known, kept.results)
    if judged:
        requirements.show(verdicts)
    lines = summarise(kept.results)
    print("", *lines, sep="\n")
    regressed = outputs.write(kept.finish(requirements.marks(verdicts), lines), asked, earlier)
    if asked.plot:
        curve.plot(kept.results, asked.plot)
    if kept.was_interrupted:
        print("Interrupted: what was measured by then is above, and in the files.", file=sys.stderr)
        return INTERRUPTED
    missed = not all(verdict.met for verdict in verdicts)
    return int(regressed or missed or any(row.is_failure for row in kept.results))


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Run | None]:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the fabric beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benches (default: all), or {REQUIREMENTS!r}")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer rounds, without the slow peers")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    outputs.add_options(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves there (needs matplotlib)")
    scales = f"{', '.join(scenario_file.SCALES)}, or a part of full such as 0.01"
    parser.add_argument("--scale", metavar="SCALE", help=f"how long {SCENARIOS!r} runs: {scales}")
    parser.add_argument("--list", action="store_true", help="print the benches and their questions")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in (*BENCHES, REQUIREMENTS)]
    if unknown:
        parser.error(f"no bench is called {', '.join(unknown)}: choose from {', '.join((*BENCHES, REQUIREMENTS))}")
    if asked.plot and asked.names and not {*asked.names} & {*CURVES}:
        parser.error(f"--plot draws {', '.join(CURVES)}: none of them was asked for")
    if asked.plot and importlib.util.find_spec("matplotlib") is None:  # before minutes of measuring
        parser.error("--plot needs matplotlib: pip install 'shm-fabric[plot]'")
    if REQUIREMENTS in asked.names and len(asked.names) > 1:
        parser.error(f"{REQUIREMENTS!r} chooses its benches itself: give it alone")
    if asked.scale:
        _check_scale(parser, asked)
    return asked, outputs.checked(parser, asked)


def _check_scale(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    if asked.names and not {*asked.names} & {SCENARIOS, REQUIREMENTS}:
        parser.error(f"--scale is for {SCENARIOS!r}, which was not asked for")
    try:
        scenario_file.check_scale(asked.scale)
    except ValueError as error:
        parser.error(f"--scale: {error}")


def _limits(names: Sequence[str]) -> list[requirements.Requirement]:
    """Return the requirements that the run is judged by."""
    if list(names) == [REQUIREMENTS]:
        return requirements.load()
    return [one for one in requirements.load() if one.bench == SCENARIOS] if SCENARIOS in names else []


def _wanted(names: Sequence[str], quick: bool, known: Sequence[requirements.Requirement]) -> dict[str, list[Case]]:
    """Return the cases to run: of the named benches, or those that a requirement is about."""
    if not known:
        return {bench: cases_of(bench, quick) for bench in names or BENCHES}
    needed: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # the peers, by bench and case
    for one in known:
        needed[one.bench, one.case].add(one.peer)
    chosen = {bench: cases_of(bench, quick) for bench in BENCHES if bench in {name for name, _ in needed}}
    return {
        bench: [_without_others(one, needed[bench, one.name]) for one in found if (bench, one.name) in needed]
        for bench, found in chosen.items()
    }


def _without_others(case: Case, peers: set[str]) -> Case:
    """Return the case with ours and those peers only that a requirement is about."""
    ours, *others = case.contestants
    return replace(case, contestants=(ours, *(one for one in others if one.name in peers)))


def _where(row: Result) -> str:
    return f"{row.bench} · {row.case} · {row.contestant}"


def _announce(about: dict[str, Any]) -> None:
    print(*(about[key] for key in ("processor", "system", "python", "commit")), sep=", ", end=", ")
    print(f"{about['cores']} usable cores")
    if about["load_before"] > NOISY:
        print(f"The machine was not quiet when this began: load average {about['load_before']}.")


if __name__ == "__main__":
    sys.exit(main())
