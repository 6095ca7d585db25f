"""The report of a run: what it tells, that it stands alone, and that all benches can be drawn."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench import (
    compare,
    curve,
    history,
    outputs,
    plot_style,
    plots,
    report,
    report_html,
    report_markdown,
    report_runs,
)
from bench.blocks import Figure, Folded, Heading, Items, Table, Text
from bench.harness import ROOT, Metric
from bench.history import Run
from tests.made_up_runs import FACTS, HELD, RATE, a_run, row


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
        "4,096 B 92.2 92.2 (1.00 x)",
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
    blocks = report_runs.compared(compare.compare(before, now))
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


def test_a_case_of_several_curves_and_one_contestant_is_told_apart() -> None:
    agents = [row for row in a_run().results if row.case == "agents"]
    assert [[one.metric.name for one in found] for found in curve.split(agents)] == [
        ["p50 of 10", "p50 of 1,000"],
        ["p99 of 10", "p99 of 1,000"],
    ]
    sizes = [row for row in a_run().results if row.case == "sizes"]
    assert curve.split(sizes) == [sizes]
    names = ("64 KiB", "1,000", "p99.9 at 10", "10 agents", "p50")
    shown = [curve.series(row(Metric(name, "µs", False, 10), "fabric")) for name in names]
    assert shown == ["", "", "p99.9", "agents", "p50"]


ALL = """
from bench import __main__ as command, plots
from bench.harness import Result
for bench in command.BENCHES:
    for case in command.cases_of(bench, True):
        rows = [
            Result(bench, case.name, metric, one.name, case.is_ours(one), "ok", False, [value, 9], 2, "", [value, 9])
            for metric in case.metrics
            for value, one in enumerate(case.contestants, 1)
        ]
        assert plots.of_case(rows) or len(rows) == len(case.metrics), (bench, case.name)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_results_of_every_bench_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    subprocess.run([sys.executable, "-W", "error", "-c", ALL], check=True, timeout=230, cwd=ROOT)
