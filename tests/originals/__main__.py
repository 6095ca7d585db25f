"""Run the originals' own tests against our classes, and name each difference: `scripts/originals --help`."""

import argparse
import importlib
import os
import platform
import signal
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.originals import jobs, report
from tests.originals.suites import SUITES, Part, parts
from tests.originals.verdict import Outcomes, different, judge

CPUS = len(os.sched_getaffinity(0))
EXPLANATIONS = Path(__file__).with_name("differences.toml")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/originals", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("-k", dest="select", default="", metavar="PATTERN", help="only tests whose names match")
    subjects = "whom to judge: us, the original once more, or a class that fails, which has to be noticed"
    parser.add_argument("--subject", default="fabric", choices=("fabric", "same", "faulty"), help=subjects)
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="for one test (60)")
    parser.add_argument("--jobs", type=int, default=CPUS, help="parts that run at once (one for each CPU)")
    parser.add_argument("--tests", default="", metavar="FOLDER", help="more modules of the package `test`")
    options = parser.parse_args()
    for suite in set(options.suites) - set(SUITES):
        parser.error(f"no suite {suite}; there are {', '.join(SUITES)}")
    return options


def _again(part: Part, side: jobs.Side, original: Outcomes, ours: Outcomes) -> list[str]:
    """Repeat, with nothing beside them, tests that may have failed for want of CPU; return those that now pass."""
    failed = [name for name in different(original, ours) if name in original]
    again, _ = jobs.run(part, side, only=failed) if failed else ({}, 0)
    steady = [name for name in failed if again[name].kind == "passed"]
    ours.update({name: again[name] for name in steady})
    return steady


def main() -> int:
    options = _options()
    if options.tests:
        importlib.import_module("test").__path__.append(options.tests)
    with EXPLANATIONS.open("rb") as file:
        explanations = tomllib.load(file) if options.subject == "fabric" else {}
    original = jobs.Side("original", options.limit, options.tests, options.select)
    ours = replace(original, subject=options.subject)
    chosen = [part for suite in options.suites or SUITES for part in parts(suite)]
    for part in [part for part in chosen if not part.modules]:
        print(f"*** {part.name}: skipped: this Python has no such tests ***", file=sys.stderr)
        chosen.remove(part)
    print(f"CPython {platform.python_version()}, {CPUS} CPUs; logs in {jobs.LOGS}", flush=True)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, jobs.give_up)
    with ThreadPoolExecutor(options.jobs) as executor:
        pairs = [(part, side) for part in chosen for side in (original, ours)]
        runs = {(part, side.subject): executor.submit(jobs.run, part, side) for part, side in pairs}
    rows, good = {}, True
    for part in chosen:
        (before, _), (after, _) = runs[part, "original"].result(), runs[part, ours.subject].result()
        unsteady = _again(part, ours, before, after) if ours.subject == "fabric" else []
        row = rows.setdefault(part.suite, report.Row(part.suite))
        row.add(before, runs[part, "original"].result()[1], after, runs[part, ours.subject].result()[1], unsteady)
    for row in rows.values():
        row.verdict = judge(row.original, row.ours, explanations.get(row.suite, {}))
        good = good and row.verdict.good
    report.show(list(rows.values()), options.subject)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
