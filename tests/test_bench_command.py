"""What the command leaves: its history and report, also when it is cut short; and what it refuses to compare."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import calibration, harness, history, plot_style
from bench.calibration import Reading
from bench.harness import ROOT, Case, Contestant
from bench.history import Run
from tests.made_up_runs import FACTS, RATE, row


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_style, "is_there", lambda: False)


@pytest.fixture
def one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command runs two contestants, of which the second waits for ever; it writes `waiting` first."""
    (tmp_path / "sides.py").write_text(
        "import time\nfrom pathlib import Path\nfrom bench.sample import Sample\n"
        "def good():\n    return Sample({'rate': [1.0]})\n"
        f"def waits():\n    Path({str(tmp_path / 'waiting')!r}).touch()\n    time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def sides(*names: str) -> list[Case]:
    return [Case("a case", (RATE,), tuple(Contestant(name, f"sides:{name}") for name in names), 1)]


@pytest.mark.usefixtures("no_plots")
def test_each_run_is_kept_in_the_history_and_told_in_the_report(
    one_case: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "cases_of", lambda name, quick: sides("good"))
    folder, file = one_case / "out", one_case / "run.json"
    assert command.main(["spawn", "--report", str(folder), "--json", str(file)]) == 0
    (kept,) = (folder / "runs").iterdir()
    assert kept.read_text() == file.read_text()
    run = history.read(kept)
    assert [reading.before for reading in run.calibration] == ["spawn", calibration.END]
    assert not run.interrupted
    assert "How many agents a second" in (folder / "report.md").read_text()
    assert "report.html" in capsys.readouterr().err

    arguments = ["spawn", "--report", str(folder), "--compare", str(file), "--fail-on-regression"]
    assert command.main(arguments) == 0
    assert "Compared with an earlier run" in (folder / "report.md").read_text()


@pytest.mark.parametrize(("asked", "status"), [([], 0), (["--fail-on-regression"], 1)])
def test_a_regression_fails_the_run_where_that_is_asked_for(
    one_case: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], status: int
) -> None:
    monkeypatch.setattr(command, "cases_of", lambda name, quick: sides("good"))
    monkeypatch.setattr(
        calibration, "read", lambda before: Reading(before, {kind: [1.0] for kind in calibration.UNITS})
    )
    before, now = one_case / "before.json", one_case / "now.json"
    better = row(RATE, "good", 100.0, case="a case", bench="spawn")
    better.ours = True
    Run(FACTS, False, [better], [calibration.read("spawn")]).write(before)
    assert command.main(["spawn", "--no-report", "--json", str(now), "--compare", str(before), *asked]) == status
    assert command.main(["compare", str(before), str(now), *asked]) == status


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["spawn", "--no-report", "--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["spawn", "--no-report", "--fail-on-regression"], "--compare"),
        (["spawn", "--report", "/dev/null/folder"], "--no-report"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json cannot be read"),
        (["report", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_files_that_cannot_be_compared_with_are_refused_before_anything_is_measured(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert why in capsys.readouterr().err


def test_a_quick_run_is_not_compared_with_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "before.json"
    Run(FACTS, False).write(file)
    with pytest.raises(SystemExit):
        command.main(["spawn", "--no-report", "--quick", "--compare", str(file)])
    assert "without --quick" in capsys.readouterr().err


PROGRAM = """
import sys
from bench import __main__ as command, plot_style
from bench.harness import Case, Contestant, Metric
plot_style.is_there = lambda: False
sides = tuple(Contestant(name, f"sides:{name}") for name in ("good", "waits"))
rounds = Case("a case", (Metric("rate", "messages/s"),), sides, 1)
command.cases_of = lambda name, quick: [rounds]
sys.exit(command.main(["spawn", "memory", "--report", sys.argv[1]]))
"""


def test_ctrl_c_leaves_the_report_of_what_there_is(one_case: Path) -> None:
    folder = one_case / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (one_case / "waiting").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == command.INTERRUPTED
    assert "Interrupted" in said
    assert "Traceback" not in said
    (kept,) = (folder / "runs").iterdir()
    run = history.read(kept)
    assert run.interrupted
    assert [(one.contestant, one.status) for one in run.results] == [
        ("good", "ok"),
        ("waits", "stopped before it was measured"),
    ]
    assert "INTERRUPTED" in (folder / "report.md").read_text()


def test_an_interrupt_hands_back_the_rounds_there_were(one_case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"values": {"rate": [3.0]}}, {"values": {"rate": [5.0]}}])

    def trial(contestant: Contestant, cpus: int | None) -> dict[str, object]:
        try:
            return next(answers)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(harness, "run_trial", trial)
    case = Case("a case", (RATE,), (Contestant("good", "sides:good"),), rounds=3)
    with pytest.raises(harness.Interrupted) as stopped:
        harness.run_case("a bench", case, harness.Settings())
    (found,) = stopped.value.results
    assert (found.values, found.by_round, found.rounds) == ([3.0, 5.0], [3.0, 5.0], 2)


def test_micro_benchmarks_are_left_out_unless_asked_for_and_pass_when_they_are() -> None:
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_micro.py"]
    asked = subprocess.run(
        [*run, "-m", "benchmark", "--benchmark-disable"], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert asked.returncode == 0, asked.stdout
    unasked = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=50)
    (left_out,) = re.findall(r"(\d+) deselected", unasked.stdout)
    assert asked.stdout.splitlines()[-1].startswith(f"{left_out} passed")
