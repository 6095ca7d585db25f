"""The benchmarks: wrong answers fail, hangs end, absent peers are rows, targets name what is measured."""

import json
import re
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench
from bench import __main__ as command
from bench import bodies, crashes, harness, latency, records, requirements, startup, streams, table
from bench.harness import Case, Contestant, Metric, Result, Settings, run_case, run_trial
from bench.peers import stream
from bench.sample import Sample, WrongAnswerError, percentile, percentiles

RATE = Metric("rate", "messages/s")
DELAY = Metric("delay", "µs", higher_is_better=False)
FOLDER = Path(bench.__file__).parent


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that trials import; its functions note in the file `ran` that they ran."""
    source = f"""
        import os, subprocess, time
        from pathlib import Path
        from bench.sample import Sample, WrongAnswerError

        def note(name):
            with Path({str(tmp_path / "ran")!r}).open("a") as file:
                file.write(name + "\\n")

        def good(name="good"):
            note(name)
            return Sample({{"rate": [1.0]}}, "a remark")

        def wrong():
            note("wrong")
            raise WrongAnswerError("7 arrived, 8 were due")

        def broken():
            note("broken")
            raise OSError("no such socket")

        def killed():
            os.kill(os.getpid(), 9)

        def hangs():
            child = subprocess.Popen(["sleep", "60"], start_new_session=True)
            note(str(child.pid))
            time.sleep(60)
    """
    (tmp_path / "contestants.py").write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def contestant(function: str, **more: object) -> Contestant:
    return Contestant(function, f"contestants:{function}", **more)  # type: ignore[arg-type]


def case_of(*contestants: Contestant, rounds: int = 1) -> Case:
    return Case("a case", (RATE,), contestants, rounds)


def result(name: str, *values: float, metric: Metric = RATE, ours: bool = False) -> Result:
    return Result("a bench", "a case", metric, name, ours, "a status", False, list(values), 1, "")


def test_the_list_names_every_bench_with_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(command.BENCHES)
    assert all(line.endswith("?") for line in lines)


def test_every_file_that_has_cases_is_a_bench_of_the_command() -> None:
    files = {path.stem for path in FOLDER.glob("*.py") if "\ndef cases(" in path.read_text()}
    assert files == set(command.BENCHES)


def test_an_unknown_name_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["ask_mnay"])
    assert stopped.value.code == 2
    assert re.search("ask_mnay.*ask_many", capsys.readouterr().err)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("name", command.BENCHES)
def test_every_bench_begins_with_ours_and_says_what_would_change_our_minds(name: str, quick: bool) -> None:
    found = command.cases_of(name, quick)
    assert found
    assert all(case.rounds >= 1 and case.metrics for case in found)
    assert all(case.contestants[0].call.split(":")[0].startswith("bench.") for case in found)
    assert "change our minds" in " ".join((FOLDER / f"{name}.py").read_text().split())


def test_the_command_fails_when_an_answer_is_wrong_and_writes_why(
    trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = case_of(contestant("good"), contestant("wrong"))
    monkeypatch.setattr(command, "cases_of", lambda name, quick: [case])
    file = tmp_path / "report.json"
    assert command.main(["spawn", "--no-report", "--json", str(file)]) == 1
    assert "wrong answer: 7 arrived, 8 were due" in capsys.readouterr().out
    report = json.loads(file.read_text())
    assert [row["status"] for row in report["results"]] == ["ok", "wrong answer: 7 arrived, 8 were due"]
    assert {"commit", "cores", "processor", "python", "load_before"} <= report["facts"].keys()


@pytest.mark.parametrize(("ours", "peer", "status"), [("good", "broken", 0), ("broken", "good", 1)])
def test_the_command_goes_on_when_one_fails_and_fails_when_it_was_ours(
    trials: Path, monkeypatch: pytest.MonkeyPatch, ours: str, peer: str, status: int
) -> None:
    case = case_of(contestant(ours), contestant(peer), rounds=2)
    monkeypatch.setattr(command, "cases_of", lambda name, quick: [case])
    assert command.main(["spawn", "--no-report"]) == status
    assert sorted((trials / "ran").read_text().split()) == ["broken", "good", "good"]


@pytest.mark.parametrize(("target", "status"), [(0.5, 0), (1.5, 1)])
def test_the_requirements_run_ours_only_and_fail_when_one_is_missed(
    trials: Path, monkeypatch: pytest.MonkeyPatch, target: float, status: int
) -> None:
    case = case_of(contestant("good"), contestant("wrong"))
    asked = requirements.Requirement("spawned", "spawn", "a case", "rate", target, "messages/s", "at least")
    monkeypatch.setattr(command, "cases_of", lambda name, quick: [case])
    monkeypatch.setattr(requirements, "load", lambda: [asked])
    assert command.main(["requirements", "--no-report"]) == status
    assert (trials / "ran").read_text().split() == ["good"]


def test_each_round_starts_with_the_next_contestant_so_that_noise_hits_all(trials: Path) -> None:
    names = [Contestant(name, "contestants:good", {"name": name}) for name in "abc"]
    run_case("a bench", case_of(*names, rounds=3), Settings())
    assert (trials / "ran").read_text().split() == [*"abc", *"bca", *"cab"]


def test_a_trial_over_its_limit_is_killed_with_what_it_started(trials: Path) -> None:
    found = run_trial(contestant("hangs", limit_s=3.0))
    assert found["failed"].startswith("no answer within 3 s (in hangs, contestants.py:")
    try:
        child = psutil.Process(int((trials / "ran").read_text()))
        deadline = time.monotonic() + 10
        while child.status() != psutil.STATUS_ZOMBIE:  # on a busy machine the kernel takes its time
            assert time.monotonic() < deadline, "it lives on"
    except psutil.NoSuchProcess:
        pass


def test_a_trial_that_dies_is_a_row_that_says_how(trials: Path) -> None:
    assert "status -9" in run_trial(contestant("killed"))["failed"]


def test_peers_that_are_not_installed_or_too_slow_for_quick_are_rows_that_say_so(trials: Path) -> None:
    peers = contestant("good", needs="no_such_peer"), contestant("good", slow=True)
    found = run_case("a bench", case_of(contestant("good"), *peers), Settings(quick=True))
    assert [row.status for row in found] == ["ok", "not installed (no_such_peer)", "left out by --quick"]


def test_more_busy_processes_than_cores_are_told(trials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "usable_cores", lambda: 2)
    found = run_case("a bench", case_of(contestant("good"), contestant("good", busy=3)), Settings())
    assert [row.note for row in found] == ["a remark", "a remark; 3 busy processes on 2 cores"]


def test_percentiles_are_by_nearest_rank() -> None:
    hundred = [float(value) for value in range(1, 101)]
    assert percentile(hundred, 0.99) == 99
    assert percentile(hundred, 0.991) == 100
    assert percentile(hundred, 0) == 1
    assert percentile([5.0], 0.5) == 5
    found = percentiles([4.0, 1.0, 3.0, 2.0])
    assert (found.minimum, found.median, found.p99, found.maximum, found.count) == (1, 2.5, 4, 4, 4)


def test_percentiles_of_nothing_or_of_no_share_are_refused() -> None:
    for values, share in (([], 0.5), ([1.0], 1.5)):
        with pytest.raises(ValueError, match=r"percentile|share"):
            percentile(values, share)


def test_a_ratio_above_one_means_that_ours_is_better_whatever_the_direction() -> None:
    assert table.ratio(result("ours", 30.0), result("peer", 10.0)) == 3
    ours, peer = result("ours", 10.0, metric=DELAY), result("peer", 30.0, metric=DELAY)
    assert table.ratio(ours, peer) == 3
    assert table.ratio(ours, result("peer", metric=DELAY)) is None


def test_the_best_peer_is_compared_with_and_a_lost_comparison_says_so() -> None:
    rows = [result("ours", 10.0, ours=True), result("slow", 1.0), result("fast", 20.0)]
    (found,) = table.comparisons(rows)
    assert (found.best_peer, found.ratio, found.lost) == ("fast", 0.5, True)
    assert str(found).startswith("WE LOSE")

    other_setting = result("ours, in another setting", 20.0, ours=True)
    assert table.comparisons([rows[0], other_setting]) == []


def test_figures_are_shown_with_three_digits() -> None:
    shown = [
        table.figure(value) for value in (28_400_000_000, 1_849_000, 62_130, 999.7, 130, 4.123, 0.0996, 0.00437, 0)
    ]
    assert shown == ["28.4 G", "1.85 M", "62.1 k", "1.00 k", "130", "4.12", "0.10", "0.0044", "0"]


@pytest.mark.parametrize("with_rich", [True, False])
def test_a_table_shows_every_row_with_rich_and_without(
    with_rich: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not with_rich:
        monkeypatch.setattr(table, "Console", None)
    table.show([result("ours", 20.0, ours=True), result("a peer", 10.0), result("absent")])
    shown = capsys.readouterr().out
    assert re.search("ours .*20.0.*20.0", shown)
    assert re.search("a peer .*10.0.* 2.00 x", shown)
    assert re.search("absent .*a status", shown)


def test_every_requirement_names_a_metric_that_its_bench_measures() -> None:
    known = requirements.load()
    assert known
    for asked in known:
        by_name = {case.name: case for case in command.cases_of(asked.bench, False)}
        (metric,) = [one for one in by_name[asked.case].metrics if one.name == asked.metric]
        if asked.peer:
            assert asked.peer in [one.name for one in by_name[asked.case].contestants]
        else:
            assert metric.unit == asked.unit
            assert metric.higher_is_better == (asked.direction == requirements.AT_LEAST)


def test_a_requirement_without_a_figure_is_missed() -> None:
    asked = requirements.Requirement("x", "a bench", "a case", "rate", 1.0, "messages/s", "at least")
    (verdict,) = requirements.judge([asked], [result("ours", ours=True)])
    assert not verdict.met
    assert verdict.why == "a status"


SEEDED = {  # a fault in the agent of each bench
    "ask_many": {"kind": "bytes", "messages": 500, "agents": 10, "agent": "Liar"},
    "tell_many": {"messages": 500, "agents": 10, "agent": "Forgetful"},
    "round_trip": {"trips": 50, "silence_us": 0, "agent": "Liar"},
    "spawn": {"agents": 100, "agent": "Miscounter"},
    "idle": {"seconds": 0.1, "agents": 100, "agent": "Liar"},
    "memory": {"agents": 100, "agent": "Miscounter"},
    "records": {"records": 5_000, "agents": 10, "agent": "Forgetful"},
    "array_spawn": {"agents": 1_000, "agent": "Deaf"},
    "million": {"agents": 100, "workers": 1, "agent": "Miscounter"},
    "protection": {"kind": "bytes", "alternations": 1, "messages": 500, "agents": 10, "agent": "Liar"},
    "large": {"job": {"back": "sum", "trips": 3}, "agent": "Skimmer"},
    "threshold": {
        "form": "bytes",
        "way": "to a worker",
        "many": True,
        "messages": 8,
        "sizes": [8192],
        "agent": "SkimmingReader",
    },
    "growth": {"messages": 100, "agent": "SkimmingReader"},
    "recovery": {"kills": 1, "told": True, "agents": 10, "agent": "Deserter"},
}
STREAM, TRIPS, TASKS = {"messages": 100}, {"trips": 10, "silence_us": 0}, {"kind": "dicts", "messages": 20}
PEERS: dict[str, Mapping[str, Any]] = {
    "pipe:tell": STREAM,
    "pipe:ask": TRIPS,
    "mp_queue:tell": STREAM,
    "mp_queue:ask": TRIPS,
    "pool:ask_map": TASKS,
    "pool:ask_unordered": TASKS,
    "executor:ask": TASKS,
    "record_pipe:tell": {"records": 5_000},
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_bench_fails_when_an_agent_answers_wrong(name: str) -> None:
    found = run_trial(Contestant("a liar", f"bench.{name}:ours", SEEDED[name], limit_s=30))
    assert found.get("wrong"), found
    assert found["failed"].startswith("wrong answer: ")


def test_replies_to_records_that_are_swapped_fail() -> None:
    with pytest.raises(WrongAnswerError, match="serial numbers"):
        records.asked(5_000, agents=10, agent="Liar")
    assert records.asked(5_000, agents=10).values["asked"][0] > 0


def test_a_worker_killed_is_seen_in_what_a_peer_finishes_and_not_in_ours() -> None:
    peer = crashes.lose_a_worker("ProcessPoolExecutor", "busy")
    assert 0 < peer.values["finished"][0] < crashes.TASKS
    assert peer.values["usable afterwards"] == [0]
    assert crashes.lose_a_worker("fabric", "busy").values == {"finished": [crashes.TASKS], "usable afterwards": [1]}


def test_what_a_killed_program_leaves_is_counted_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "_SETTLE", 2.0)
    assert crashes.orphan("ProcessPoolExecutor").values["left behind"][0] >= 2
    assert crashes.orphan("fabric") == Sample({"left behind": [0]}, "nothing")


def test_startup_fails_when_the_first_reply_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "liar.py").write_text("print(14, 0.1)")
    monkeypatch.setattr(startup, "SCRIPTS", tmp_path)
    with pytest.raises(WrongAnswerError, match="14"):
        startup.first_reply("liar")


def test_a_round_trip_fails_when_a_peer_answers_with_another_body() -> None:
    with pytest.raises(WrongAnswerError):
        latency.ping(lambda body: body[::-1], trips=1, silence_us=0)


@pytest.mark.parametrize("arrived", [[b"a", b"b"], [b"b", b"a", b"c"], [b"a", b"b", b"d"]])
def test_a_lost_a_swapped_and_a_changed_message_each_fail(arrived: list[bytes]) -> None:
    with pytest.raises(WrongAnswerError):
        stream.check((len(arrived), bodies.digest(arrived)), [b"a", b"b", b"c"])
    with pytest.raises(WrongAnswerError):
        bodies.expect(arrived, [b"a", b"b", b"c"], "replies")


@pytest.mark.parametrize("items", [[0], [0, 2], [1, 0], [0, 1, 2]])
def test_a_stream_that_loses_swaps_or_adds_an_item_fails(items: list[int]) -> None:
    with pytest.raises(WrongAnswerError):
        streams._read((number.to_bytes(8) for number in items), 2, 8)


@pytest.mark.parametrize("call", PEERS)
def test_the_peers_of_the_standard_library_run(call: str) -> None:
    found = run_trial(Contestant("a peer", f"bench.peers.{call}", PEERS[call], limit_s=30))
    assert "failed" not in found, found
    assert all(value > 0 for values in found["values"].values() for value in values)
