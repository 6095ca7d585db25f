"""The report of a run: what it tells, that it stands alone, and that it is written when a run is cut short."""

import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import (
    calibration,
    compare,
    harness,
    history,
    outputs,
    plot_style,
    plots,
    report,
    report_html,
    report_markdown,
    requirements,
)
from bench.blocks import Figure, Folded, Heading, Items, Table, Text
from bench.calibration import Reading
from bench.harness import ROOT, Case, Contestant, Metric, Result
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
        *more,
    ]
    paces = {kind: [1e6, 1.1e6] for kind in calibration.UNITS}
    readings = [Reading("ask_many", paces), Reading(calibration.END, paces)]
    facts = FACTS | {"date": f"2026-01-{day:02}T03:04:05+00:00"}
    return Run(facts, False, rows, readings, [MARK], [], ABOUT)


def text_of(run: Run, *earlier: Run) -> str:
    """Return all words of a report."""
    words = []
    for block in report.blocks_of(run, earlier):
        match block:
            case Heading() | Text() | Folded():
                words.append(block.text)
            case Items():
                words += block.lines
            case Table():
                words += [" ".join(line) for line in (block.header, *block.rows)]
    return "\n".join(words)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_style, "is_there", lambda: False)


@pytest.mark.usefixtures("no_plots")
def test_a_report_says_what_was_asked_on_what_what_came_out_and_where_we_lose() -> None:
    told = text_of(a_run())
    for part in (
        "ask_many: How many?",
        "here ── <there> & back",
        "a processor, 2 usable cores",
        "load average 3.0",
        "0 of 1 requirements are met. MISSED: a <requirement>.",
        "WE LOSE  ask_many · bytes · rate: 0.48 x as good as the best peer, a_peer*",
        "another - - -   no answer within 3 s",
        "a <requirement> at least 100 50.0 messages/s MISSED",
        "process of its own",
        "4,096 B 92.2 92.2",
        "memory, bytes/s",
    ):
        assert part in told


@pytest.mark.usefixtures("no_plots")
def test_without_matplotlib_a_report_has_its_tables_and_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs.tell(report.write(a_run(), tmp_path, [a_run(1)]))
    assert "shm-fabric[plot]" in capsys.readouterr().err
    for file in ("report.md", "report.html"):
        written = (tmp_path / file).read_text()
        assert "shm-fabric[plot]" in written
        assert "no answer within 3 s" in written
        assert "svg" not in written.replace("figure svg", "")


@pytest.mark.usefixtures("no_plots")
def test_a_run_that_was_cut_short_says_so() -> None:
    whole = a_run()
    short = Run(whole.facts, False, whole.results, interrupted=True)
    assert "INTERRUPTED" in text_of(short)
    assert "INTERRUPTED" not in text_of(whole)


@pytest.mark.usefixtures("no_plots")
def test_a_comparison_is_a_part_of_the_report() -> None:
    before = a_run(1, row(RATE, "fabric", 90.0, 91.0, 92.0, case="more"), row(RATE, "fabric", 1.0, case="gone"))
    now = a_run(2, row(RATE, "fabric", 40.0, 41.0, 42.0, case="more"))
    blocks = report.compared(compare.compare(before, now))
    first, *_ = (block for block in blocks if isinstance(block, Table))
    assert [line[-1] for line in first.rows] == [compare.REGRESSION, compare.GONE, compare.NO_RATIO + " a figure is 0"]
    assert first.rows[0][:3] == ["ask_many · more · rate · fabric", "91.0", "41.0"]


@pytest.mark.usefixtures("no_plots")
def test_a_run_of_nothing_has_a_report() -> None:
    assert "INTERRUPTED" in text_of(Run(FACTS, False, interrupted=True))


class _Page(HTMLParser):
    """What a page opens and closes, names and points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta", "!doctype"):
            self.open.append(tag)
        self.ids += filter(None, [found.get("id")])
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href") and value]
        assert tag not in ("script", "link", "img")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_files_stand_alone_and_their_pictures_are_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for day in (1, 2):
        run = a_run(day)
        run.write(history.place_in(tmp_path / report.RUNS, run))
    # In a process of its own: matplotlib keeps its fonts open.
    (file, before) = (history.place_in(tmp_path / report.RUNS, a_run(day)) for day in (2, 1))
    arguments = ["report", str(file), "--report", str(tmp_path), "--compare", str(before)]
    subprocess.run([sys.executable, "-W", "error", "-m", "bench", *arguments], check=True, timeout=50, cwd=ROOT)

    markdown = (tmp_path / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", markdown)
    names = {Path(picture).stem for picture in pictures}
    assert names >= {"requirements", "comparisons", "history-ask_many", "history-pace", "ask-many-sizes-curve"}
    assert names >= {"ask-many-bytes", "ask-many-trips", "ask-many-alone", "ask-many-agents-curve"}
    for picture in pictures:
        ElementTree.parse(tmp_path / picture)
    assert len(pictures) == len(names) == len([*(tmp_path / "plots").iterdir()])

    page = _Page((tmp_path / "report.html").read_text())
    assert page.open == []
    assert len(page.ids) == len({*page.ids})
    assert {link for link in page.links if not link.startswith("#")} == set()
    assert {link[1:] for link in page.links} <= {*page.ids}


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    blocks = [Heading(1, "a <b>"), Text("a_b*c <i> `x_y`"), Table(["a|b"], [["<script>"]]), Folded("title", "a ``` b")]
    report_html.write(blocks, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert _Page(page).open == []
    assert "a_b*c &lt;i&gt; <code>x_y</code>" in page
    report_markdown.write(blocks, tmp_path / "report.md")
    markdown = (tmp_path / "report.md").read_text()
    assert r"a\_b\*c \<i> `x_y`" in markdown
    assert r"| a\|b |" in markdown
    assert "````text" in markdown


def test_a_case_of_single_figures_needs_no_picture() -> None:
    assert plots.of_case([row(HELD, "fabric", 1.0)]) == []
    assert plots.of_case([row(RATE, "fabric", status="no answer"), row(RATE, "a peer", status="not installed")]) == []
    assert not any(
        isinstance(block, Figure) for block in report.blocks_of(Run(FACTS, False, [row(HELD, "fabric", 1.0)]))
    )


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
        (["spawn", "--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["spawn", "--fail-on-regression"], "--compare"),
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
        command.main(["spawn", "--quick", "--compare", str(file)])
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
