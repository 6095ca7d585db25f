"""The scenarios: each check of theirs can fail. A fault is seeded for every one."""

import json
from typing import Any

import pytest

from bench import __main__ as command
from bench import requirements, scenarios, sheet
from bench.exchanges import check_counts
from bench.harness import Case, Contestant, Metric, Result, run_trial
from bench.requirements import Requirement
from bench.sample import Sample, WrongAnswerError
from bench.scenario_file import Scenario

SCALES = {"quick": 1, "requirements": 1, "full": 1}


def scenario(kind: str, limits: dict[str, float] | None = None, agents: int = 10, workers: int = 1, **how: Any) -> str:
    return json.dumps(vars(Scenario("a scenario", kind, workers, agents, 1, SCALES, limits or {}, how)))


def load(message: str, seconds: float = 0.2, rate: float = 1_000, every_ms: float = 1, **more: Any) -> str:
    how = {"message": message, "arrivals": "constant", "every_ms": every_ms, "rate": rate, "seconds": seconds}
    return scenario("load", **how, **more)


BURST = {"message": "tell", "arrivals": "constant", "every_ms": 1, "calm_ms": 50}
RIGHT = {
    "ask": load("ask"),
    "tell": load("tell", workers=2),
    "submit": load("submit", every_ms=0),
    "converse": load("converse"),
    "route": load("route", workers=2),
    "burst": scenario("burst", phases=[[0.1, 200], [0.1, 5_000], [0.3, 200]], **BURST | {"calm_ms": 10_000}),
    "spawn": scenario("spawn", times=2),
    "startup": scenario("startup", times=10),
}
WRONG = [  # (scenario, agent with a fault, what is said of it)
    ("ask", "Dropper", "of 200 messages 1 were lost and 0 came twice"),
    ("ask", "Doubler", "0 were lost and 1 came twice"),
    ("ask", "Swapper", "not the same"),
    ("ask", "Liar", "message 7 was answered with 8, not 7"),
    ("tell", "Deaf", "1 were lost"),
    ("tell", "Hearer", "1 came twice"),
    ("route", "Deaf", "1 were lost"),
    ("route", "Hearer", "1 came twice"),
    ("submit", "Miscalculator", "order 7 was answered with"),
    ("converse", "Gossip", "message [0-9]+ was answered with"),
    ("spawn", "Doubler", "what the agents counted"),
    ("startup", "Liar", "first answers"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_a_scenario_measures_all_it_is_judged_by(name: str) -> None:
    found = scenarios.ours(RIGHT[name])
    wanted = scenarios.metrics_of(Scenario(**json.loads(RIGHT[name])))
    assert set(found.values) == {metric.name for metric in wanted}
    assert all(len(values) == 1 and values[0] >= 0 for values in found.values.values())
    if name not in ("spawn", "startup"):
        assert 0 < found.values["p50"][0] <= found.values["p99"][0] <= found.values["slowest"][0]
        assert found.values["errors"] == [0]
        assert found.values["memory"][0] > 10
        assert "alarms" not in found.note


@pytest.mark.parametrize(("name", "agent", "said"), WRONG)
def test_messages_that_are_lost_doubled_or_answered_wrong_fail_it(name: str, agent: str, said: str) -> None:
    with pytest.raises(WrongAnswerError, match=said):
        scenarios.ours(RIGHT[name], agent)


def test_a_question_that_is_never_answered_is_lost() -> None:
    with pytest.raises(WrongAnswerError, match=r"messages were lost: [0-9]+ of"):
        scenarios.ours(RIGHT["ask"], "Mute", patience=0.5)


def test_a_submitted_message_that_is_never_answered_is_lost() -> None:
    with pytest.raises(WrongAnswerError, match=r"[0-9]+ of 200 messages were lost: no answer came"):
        scenarios.ours(RIGHT["submit"], "Postponer", patience=0.5)


def test_agents_that_raise_miss_the_limit_on_errors() -> None:
    found = scenarios.ours(RIGHT["ask"], "Raiser")
    assert found.values["errors"] == [10]
    assert not met(found, "errors", 0.01)


def test_a_worker_that_stops_for_a_while_is_in_the_latencies_of_all_that_was_due_meanwhile() -> None:
    found = scenarios.ours(load("ask", seconds=0.5), "Staller")
    assert found.values["p50"][0] > 50  # 300 of the 400 that count were due in its 0.3 s; asked in turn it would be one
    assert not met(found, "p99", 10)


def test_agents_that_keep_what_they_get_miss_the_limit_on_growth() -> None:
    assert not met(scenarios.ours(load("ask", seconds=1.5), "Hoarder"), "growth", 10)


def test_a_burst_that_takes_long_to_be_handled_takes_as_long_to_recover_from() -> None:
    slow = scenario("burst", phases=[[0.1, 100], [0.1, 4_000], [4, 100]], **BURST)
    found = scenarios.ours(slow, "Sleeper")
    assert found.values["recovery"][0] >= 0.3  # 400 messages of 1 ms each, at most 100 of them during the burst
    assert not met(found, "recovery", 0.2)


def test_a_burst_that_is_not_over_in_the_end_fails_it() -> None:
    slow = scenario("burst", phases=[[0.1, 100], [0.1, 4_000], [0.1, 100]], **BURST)
    with pytest.raises(RuntimeError, match=r"not recovered 0.1 s after the burst"):
        scenarios.ours(slow, "Sleeper")


def test_a_turn_waits_for_the_answer_that_it_quotes_and_that_is_in_its_latency() -> None:
    found = scenarios.ours(load("converse", rate=100), "Thinker")  # 20 turns of 0.1 s, all due within 0.2 s
    assert found.values["slowest"][0] > 1_000
    assert found.values["conversations"] == [10]


def test_a_turn_that_is_answered_with_an_error_fails_it() -> None:
    with pytest.raises(WrongAnswerError, match="answered with an error"):
        scenarios.ours(RIGHT["converse"], "Sulker")


@pytest.mark.parametrize(
    ("verdicts", "errors", "said"),
    [
        ([(3, 6), (2, 4)], 0, None),
        ([(3, 6), (1, 1)], 0, "1 were lost"),
        ([(3, 6), (1, 1)], 1, None),
        ([(4, 12), (1, 1)], 1, "1 came twice"),  # one of each is not none
        ([(3, 7), (2, 4)], 0, "not the same"),
    ],
)
def test_counts_are_compared_agent_by_agent(verdicts: list[tuple[int, int]], errors: int, said: str | None) -> None:
    if said is None:
        check_counts(verdicts, 5, errors)
    else:
        with pytest.raises(WrongAnswerError, match=said):
            check_counts(verdicts, 5, errors)


def test_the_command_fails_when_a_scenario_misses_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = (Metric("errors", "% of messages", higher_is_better=False), Metric("rate", "messages/s"))
    options = {"scenario": RIGHT["ask"], "agent": "Raiser"}
    case = Case("a case", metrics, (Contestant("fabric", "bench.scenarios:ours", options),), 1)
    monkeypatch.setattr(command, "cases_of", lambda name, quick: [case])
    for target, status in ((9.0, 1), (11.0, 0)):
        asked = Requirement("errors", "scenarios", "a case", "errors", target, "% of messages", "at most")
        monkeypatch.setattr(requirements, "load", lambda asked=asked: [asked])
        assert command.main(["scenarios", "--no-report"]) == status
        assert ("MISSED" in capsys.readouterr().out) == bool(status)


def test_a_wrong_answer_of_a_trial_says_that_it_is_one() -> None:
    options = {"scenario": RIGHT["ask"], "agent": "Dropper"}
    found = run_trial(Contestant("fabric", "bench.scenarios:ours", options, limit_s=30))
    assert found["wrong"]
    assert "1 were lost" in found["failed"]


def test_a_sheet_shows_a_metric_a_row_and_a_failure_once(capsys: pytest.CaptureFixture[str]) -> None:
    def row(name: str, *values: float, status: str = "ok") -> Result:
        metric = Metric(name, "ms", higher_is_better=False)
        return Result("scenarios", "a case", metric, "fabric", True, status, False, list(values), len(values), "a note")

    assert sheet.is_one([row("p50", 1), row("p99", 2)])
    assert not sheet.is_one([row("p50", 1)])
    sheet.show([row("p50", 1, 2, 3), row("p99", 4, 5, 9)])
    shown = capsys.readouterr().out
    assert "a case (a note)" in shown
    assert [line.split()[1::2] for line in shown.splitlines() if "p99" in line] == [
        ["p99", "5.00", "9.00", "4.00", "ms"]
    ]
    sheet.show([row("p50", status="it broke"), row("p99", status="it broke")])
    assert capsys.readouterr().out.count("it broke") == 1


def met(sample: Sample, metric: str, target: float) -> bool:
    values = sample.values[metric]
    row = Result("scenarios", "c", Metric(metric, "x"), "fabric", True, "ok", False, values, 1, "")
    (verdict,) = requirements.judge([Requirement("x", "scenarios", "c", metric, target, "x", "at most")], [row])
    return verdict.met
