"""Two runs compared: a slower machine is no regression, one row that is slower by more than its noise is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bench import calibration, history
from bench.calibration import CPU, MEMORY, PIPE, Reading
from bench.compare import BETTER, GONE, NEW, NO_RATIO, REGRESSION, SAME, UNSURE, Comparison, compare, kind_of
from bench.harness import Metric, Result
from bench.history import NotARunError, Run

RATE = Metric("rate", "messages/s")
TRIP = Metric("round trip", "µs", higher_is_better=False)
HELD = Metric("memory", "bytes/agent", higher_is_better=False)
LEFT = Metric("left behind", "things", higher_is_better=False)
FACTS = {"date": "2026-01-01T00:00:00+00:00", "commit": "abc", "processor": "a processor", "cores": 2, "python": "3"}


def row(
    metric: Metric, values: Sequence[float], name: str = "fabric", ours: bool = True, case: str = "a case"
) -> Result:
    status = "ok" if values else "no answer within 3 s"
    return Result("a bench", case, metric, name, ours, status, False, [*values], len(values), "", [*values])


def run(*rows: Result, pace: float = 1.0, kinds: Mapping[str, float] | None = None, quick: bool = False) -> Run:
    paces = {CPU: pace, MEMORY: pace, PIPE: pace, **(kinds or {})}
    values = {kind: [1000 * found * share for share in (0.99, 1.0, 1.01)] for kind, found in paces.items()}
    return Run(FACTS, quick, rows, [Reading("a bench", values), Reading(calibration.END, values)])


def verdicts(found: Comparison) -> list[str]:
    return [one.verdict for one in found.changes]


def around(middle: float, noise: float = 0.02) -> list[float]:
    return [middle * (1 + noise * share) for share in (-1, -0.5, 0, 0.5, 1)]


@pytest.mark.parametrize("pace", [0.4, 1.0, 2.5])
def test_a_slow_machine_is_no_regression_and_a_fast_one_no_progress(pace: float) -> None:
    before = run(row(RATE, around(1e6)), row(TRIP, around(5.0)), row(HELD, [190.0] * 3))
    now = run(row(RATE, around(1e6 * pace)), row(TRIP, around(5.0 / pace)), row(HELD, [190.0] * 3), pace=pace)
    assert verdicts(compare(before, now)) == [SAME, SAME, SAME]


@pytest.mark.parametrize("pace", [0.4, 1.0, 2.5])
def test_what_is_slower_is_a_regression_however_fast_the_machine_is(pace: float) -> None:
    before = run(row(RATE, around(1e6)), row(TRIP, around(5.0)), row(HELD, [190.0] * 3))
    now = run(
        row(RATE, around(1e6 * pace / 1.4)), row(TRIP, around(5.0 / pace * 1.5)), row(HELD, [250.0] * 3), pace=pace
    )
    found = compare(before, now)
    assert verdicts(found) == [REGRESSION] * 3
    assert [one.row.metric for one in found.regressions] == [TRIP, RATE, HELD]  # the worst first
    assert verdicts(compare(now, before)) == [BETTER] * 3


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, REGRESSION), (0.15, SAME)])
def test_a_change_within_the_noise_of_both_runs_is_none(noise: float, verdict: str) -> None:
    before, now = run(row(RATE, around(1e6, noise))), run(row(RATE, around(0.8e6, noise)))
    assert verdicts(compare(before, now)) == [verdict]


@pytest.mark.parametrize(("rounds", "verdict"), [(1, SAME), (2, SAME), (3, REGRESSION)])
def test_a_row_of_one_or_two_rounds_must_change_by_more(rounds: int, verdict: str) -> None:
    before, now = run(row(RATE, [1e6] * rounds)), run(row(RATE, [0.8e6] * rounds))
    assert verdicts(compare(before, now)) == [verdict]
    assert verdicts(compare(before, run(row(RATE, [0.4e6] * rounds)))) == [REGRESSION]


def test_a_calibration_that_is_all_over_the_place_makes_room() -> None:
    before, now = run(row(RATE, [1e6] * 3)), run(row(RATE, [0.86e6] * 3))
    assert verdicts(compare(before, now)) == [REGRESSION]
    unsure = {kind: [500.0, 800.0, 1000.0, 1200.0, 1500.0] for kind in calibration.UNITS}
    now = Run(FACTS, False, now.results, [Reading("a bench", unsure), Reading(calibration.END, unsure)])
    assert verdicts(compare(before, now)) == [SAME]


def test_each_row_is_measured_by_the_loop_that_is_nearest_to_it() -> None:
    def size(amount: int, axis: str = "bytes") -> Metric:
        return Metric(str(amount), "µs", higher_is_better=False, size=amount, axis=axis)

    assert [kind_of(row(metric, [1.0])) for metric in (RATE, TRIP, HELD)] == [CPU, PIPE, ""]
    assert [kind_of(row(size(amount), [1.0])) for amount in (64, 1 << 20)] == [PIPE, MEMORY]
    assert kind_of(row(size(1 << 20, "agents"), [1.0])) == PIPE
    assert kind_of(row(RATE, [1.0], case="1 MB, one to one")) == MEMORY
    units = {"ms, p99": CPU, "µs a message": PIPE, "% of a core": CPU, "% of messages": "", "things": "", "": ""}
    assert {unit: kind_of(row(Metric("a metric", unit), [1.0])) for unit in units} == units
    before = run(row(RATE, around(1e6)), row(TRIP, around(5.0)))
    now = run(row(RATE, around(1e6)), row(TRIP, around(8.0)), kinds={PIPE: 0.6})
    assert verdicts(compare(before, now)) == [SAME, SAME]


def test_loops_that_disagree_make_room_since_more_was_at_work_than_a_slower_machine() -> None:
    before, now = row(RATE, around(1e6)), row(RATE, around(0.8e6))
    assert verdicts(compare(run(before), run(now))) == [REGRESSION]
    assert verdicts(compare(run(before), run(now, kinds={MEMORY: 0.8, PIPE: 1.3}))) == [SAME]
    assert verdicts(compare(run(before), run(now, kinds={MEMORY: 0.4, PIPE: 2.0}))) == [UNSURE]
    held, more = row(HELD, [190.0] * 3), row(HELD, [250.0] * 3)  # which is no speed
    assert verdicts(compare(run(held), run(more, kinds={MEMORY: 0.4, PIPE: 2.0}))) == [REGRESSION]


def test_the_pace_is_that_around_the_bench() -> None:
    slow, fast = ({kind: [pace] * 4 for kind in calibration.UNITS} for pace in (500.0, 1000.0))
    readings = [
        Reading("another", slow),
        Reading("yet another", slow),
        Reading("a bench", fast),
        Reading(calibration.END, fast),
    ]
    before = run(row(RATE, around(1e6)))
    now = Run(FACTS, False, [row(RATE, around(1e6))], readings)
    assert [one.pace for one in compare(before, now).changes] == [1.0]
    assert calibration.around(readings, "neither")[CPU] == [*slow[CPU], *slow[CPU], *fast[CPU], *fast[CPU]]
    assert calibration.around([], "a bench") == {}


def test_peers_never_regress_and_are_shown() -> None:
    before = run(row(RATE, around(1e6), "a peer", ours=False))
    found = compare(before, run(row(RATE, around(0.5e6), "a peer", ours=False)))
    assert (verdicts(found), found.regressions) == (["worse"], [])


def test_rows_that_one_run_lacks_are_said() -> None:
    one, other = row(RATE, around(1e6)), row(TRIP, around(5.0))
    assert [(one.verdict, one.row.metric) for one in compare(run(one), run(other)).changes] == [
        (NEW, TRIP),
        (GONE, RATE),
    ]


def test_a_row_that_fails_now_is_a_regression_and_one_that_failed_then_is_none() -> None:
    good, failed = row(RATE, around(1e6)), row(RATE, [])
    (change,) = compare(run(good), run(failed)).changes
    assert (change.verdict, change.why) == (REGRESSION, "no figure now: no answer within 3 s")
    assert verdicts(compare(run(failed), run(good))) == [NEW]
    assert verdicts(compare(run(failed), run(failed))) == [SAME]


def test_what_was_0_in_all_rounds_and_is_in_none_is_a_regression() -> None:
    nothing, some, one = row(LEFT, [0.0] * 3), row(LEFT, [2.0] * 3), row(LEFT, [0.0, 2.0, 0.0])
    assert verdicts(compare(run(nothing), run(some))) == [REGRESSION]
    assert verdicts(compare(run(some), run(nothing))) == [BETTER]
    assert verdicts(compare(run(nothing), run(one))) == [NO_RATIO]
    assert verdicts(compare(run(row(LEFT, [0.0])), run(row(LEFT, [2.0])))) == [NO_RATIO]  # once is never


def test_runs_of_other_amounts_are_not_compared_and_other_machines_are_told_of() -> None:
    before = run(row(RATE, around(1e6)))
    with pytest.raises(ValueError, match="--quick"):
        compare(before, run(row(RATE, around(1e6)), quick=True))
    elsewhere = Run({**FACTS, "processor": "another", "load_before": 3.5}, False, before.results, interrupted=True)
    assert [remark.split(":")[0] for remark in compare(before, elsewhere).remarks] == [
        "The later run has no calibration",
        "The later run was interrupted",
        "Another processor (the calibration bridges pace, not architecture)",
        "The machine was not quiet",
    ]


def test_of_speeds_in_a_run_without_calibration_nothing_is_said() -> None:
    bare = Run(FACTS, False, [row(RATE, around(1e6)), row(HELD, [190.0] * 3)])
    now = run(row(RATE, around(0.1e6)), row(HELD, [250.0] * 3))
    assert verdicts(compare(bare, now)) == [UNSURE, REGRESSION]


def test_only_the_benches_that_were_run_or_are_named_are_compared() -> None:
    other = row(RATE, around(1e6))
    other.bench = "another"
    before, now = run(row(RATE, around(1e6)), other), run(row(RATE, around(1e6)))
    assert verdicts(compare(before, now)) == [SAME]
    assert verdicts(compare(before, now, ["another"])) == [GONE]


def test_a_run_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    many = row(TRIP, [float(value) for value in range(1, 201)])
    many.by_round = [100.5]
    made = run(row(RATE, around(1e6)), many, row(RATE, [], "a peer", ours=False))
    file = tmp_path / "deeper" / "run.json"
    made.write(file)
    found = history.read(file)
    assert verdicts(compare(made, found)) == [SAME, SAME, SAME]
    assert [one.figures for one in found.results] == [one.figures for one in made.results]
    assert [one.by_round for one in found.results] == [one.by_round for one in made.results]
    assert found.calibration == made.calibration
    assert [*file.parent.iterdir()] == [file]


def test_a_file_that_holds_no_run_is_refused_by_name(tmp_path: Path) -> None:
    for text in ("", "[]", '{"facts": {}}', '{"facts": {"date": "", "commit": ""}, "quick": false, "results": [{}]}'):
        file = tmp_path / "report.json"
        file.write_text(text)
        with pytest.raises(NotARunError, match=r"report\.json is no file that"):
            history.read(file)
    with pytest.raises(NotARunError, match="No such file"):
        history.read(tmp_path / "nowhere.json")


def test_the_history_holds_the_earlier_runs_like_this_one_in_their_order(tmp_path: Path) -> None:
    def dated(day: int, **facts: object) -> Run:
        return Run({**FACTS, "date": f"2026-01-{day:02}T00:00:00+00:00", **facts}, False)

    runs = [dated(3), dated(1), dated(2, cores=64), dated(2, scale="full"), dated(4), dated(9)]
    for one in runs:
        one.write(history.place_in(tmp_path, one))
    (tmp_path / "broken.json").write_text("{")
    assert [one.date[:10] for one in history.earlier(tmp_path, dated(4))] == ["2026-01-01", "2026-01-03"]
    assert [one.date[:10] for one in history.earlier(tmp_path, dated(4), most=1)] == ["2026-01-03"]
    assert history.earlier(tmp_path / "nowhere", dated(4)) == []


def test_a_reading_times_each_loop_and_leaves_nothing_behind() -> None:
    found = calibration.read("a bench")
    assert found.before == "a bench"
    assert found.values.keys() == calibration.UNITS.keys()
    assert all(len(values) >= 5 and min(values) > 0 for values in found.values.values())
    assert Reading.from_json(found.as_json()).values.keys() == found.values.keys()
