"""Runs of the benchmarks that nobody measured: what the tests of the report and of the command tell and compare."""

from bench import calibration, requirements
from bench.calibration import Reading
from bench.harness import Metric, Result
from bench.history import Run

RATE = Metric("rate", "messages/s")
TRIP = Metric("round trip", "µs", higher_is_better=False)
HELD = Metric("memory", "bytes/agent", higher_is_better=False)
ABOUT = {"ask_many": "How many?\n\n::\n\n    here ── <there> & back\n\nWhat would change our minds: a lot."}
FACTS = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "abc_def",
    "processor": "a processor",
    "cores": 2,
    "system": "Linux",
    "python": "CPython 3",
    "load_before": 3.0,
    "versions": {"shm-fabric": "0.1.0"},
}
MARK = {
    "name": "a <requirement>",
    "bench": "ask_many",
    "case": "bytes",
    "metric": "rate",
    "target": 100.0,
    "unit": "messages/s",
    "direction": requirements.AT_LEAST,
    "peer": "",
    "measured": 50.0,
    "met": False,
    "why": "",
}


def row(
    metric: Metric, name: str, *values: float, case: str = "bytes", status: str = "ok", bench: str = "ask_many"
) -> Result:
    return Result(
        bench, case, metric, name, name.startswith("fabric"), status, False, [*values], len(values), "a note", [*values]
    )


def a_run(day: int = 2, *more: Result) -> Run:
    sizes = (64, 4_096, 1 << 20)
    curve = [
        row(Metric(f"{size:,} B", "µs", higher_is_better=False, size=size), name, size / 50, size / 40, case="sizes")
        for size in sizes
        for name in ("fabric", "a peer")
    ]
    agents = [
        row(Metric(f"{what} of {count:,}", "ms", False, count, "agents"), "fabric", count / 10, case="agents")
        for what in ("p50", "p99")
        for count in (10, 1_000)
    ]
    rows = [
        *(row(RATE, name, *values) for name, values in (("fabric", (50.0, 55.0)), ("fabric, slow", (5.0, 6.0)))),
        row(RATE, "a_peer*", 100.0, 120.0),
        row(RATE, "another", status="no answer within 3 s"),
        row(RATE, "absent", status="not installed (absent)"),
        *(row(HELD, name, value) for name, value in (("fabric", 0.0), ("a_peer*", 12.0))),
        *(row(TRIP, name, *map(float, range(1, 201)), case="trips") for name in ("fabric", "a peer")),
        *(row(Metric(name, "ms", higher_is_better=False), "fabric", 1.0, case="alone") for name in ("p50", "p99")),
        *curve,
        *agents,
        row(RATE, "fabric", 3.0, 4.0, bench="spawn"),  # whose case is called as one of another bench
        *more,
    ]
    paces = {kind: [1e6, 1.1e6] for kind in calibration.UNITS}
    readings = [Reading("ask_many", paces), Reading(calibration.END, paces)]
    facts = FACTS | {"date": f"2026-01-{day:02}T03:04:05+00:00"}
    return Run(facts, False, rows, readings, [MARK], [], ABOUT)
