"""scenarios.toml: what it may say; a mistake is named by scenario, key, and what may have been meant."""

from pathlib import Path

import pytest

from bench import __main__ as command
from bench import requirements, scenario_file, scenarios
from bench.scenario_file import SCALES, Scenario

LOAD = """
[[scenario]]
name = "a load"
kind = "load"
message = "ask"
arrivals = "constant"
every_ms = 1
workers = 1
agents = 10
rate = 100
seconds = 60
rounds = 3
scales = { quick = 0.01, requirements = 0.1, full = 1 }
limits = { p50_ms = 1, p99_ms = 10, lost = 0 }
"""
BURST = (
    LOAD.replace('kind = "load"', 'kind = "burst"')
    .replace("rate = 100\nseconds = 60", "phases = [[1, 10], [2, 100], [1, 10]]\ncalm_ms = 5")
    .replace("lost = 0", "recovery_s = 5")
)
SPAWN = """
[[scenario]]
name = "a spawn"
kind = "spawn"
workers = 2
agents = 100
times = 50
rounds = 1
scales = { quick = 0.01, requirements = 0.1, full = 1 }
limits = { single_ms = 10 }
"""
MISTAKES = [  # (file, what is changed in it, into what, what the error says)
    (LOAD, "seconds = 60", "secnods = 60", "unknown key 'secnods'; near: 'seconds'"),
    (LOAD, "seconds = 60", "", "key 'seconds' is missing"),
    (LOAD, "seconds = 60", 'seconds = "60"', "'seconds' is '60', must be a number"),
    (LOAD, "seconds = 60", "seconds = -1", "'seconds' is -1, must be over 0"),
    (LOAD, "seconds = 60", "seconds = 60\ntimes = 3", "unknown key 'times'"),
    (LOAD, "agents = 10", "agents = 10.5", "'agents' is 10.5, must be an int"),
    (LOAD, "agents = 10", "agents = true", "'agents' is True, must be an int"),
    (LOAD, "workers = 1", "workers = 11", "'agents' is 10, fewer than 'workers', 11"),
    (LOAD, '"ask"', '"aks"', "'message' is 'aks'; near: 'ask'"),
    (LOAD, '"constant"', '"konstant"', "'arrivals' is 'konstant'; near: 'constant'"),
    (LOAD, 'kind = "load"', 'kind = "laod"', "'kind' is 'laod'; near: 'load'"),
    (LOAD, 'kind = "load"', "", "key 'kind' is missing"),
    (LOAD, "quick = 0.01", "quik = 0.01", "unknown scale 'quik' in 'scales'; near: 'quick'"),
    (LOAD, "quick = 0.01, ", "", "key 'quick' is missing"),
    (LOAD, "quick = 0.01", "quick = 0.5", "'scales' contradict: quick=0.5, requirements=0.1"),
    (LOAD, "full = 1", "full = 2", "scale 'full' is 2, must be 1"),
    (LOAD, "p99_ms = 10", "p99_sm = 10", "unknown limit 'p99_sm' for kind 'load'; near: 'p99_ms'"),
    (LOAD, "p99_ms = 10", "single_ms = 10", "unknown limit 'single_ms' for kind 'load'"),
    (LOAD, "p99_ms = 10", 'p99_ms = "10"', "limit 'p99_ms' is '10', must be a number"),
    (LOAD, "p50_ms = 1", "p50_ms = 11", "limits contradict: 'p50_ms' is 11, over 'p99_ms', 10"),
    (LOAD, "p50_ms = 1, p99_ms = 10, lost = 0", "", "'limits' says none"),
    (LOAD, "lost = 0", "conversations = 5", "'conversations' is for message"),
    (LOAD.replace('"ask"', '"converse"'), "lost = 0", "conversations = 11", "is 11, more than 'agents', 10"),
    (BURST, "[2, 100]", "[2, 5]", "a burst has three, and the second has the highest rate"),
    (BURST, ", [1, 10]]", "]", "a burst has three"),
    (BURST, "[2, 100]", "[2, 100, 3]", r"'phases' has \[2, 100, 3\]"),
    (BURST, "calm_ms = 5", "rate = 5", "unknown key 'rate'"),
    (SPAWN, "times = 50", "times = 50\nrate = 3", "unknown key 'rate'"),
    (SPAWN, "single_ms", "singel_ms", "unknown limit 'singel_ms' for kind 'spawn'; near: 'single_ms'"),
]


def load(folder: Path, text: str) -> list[Scenario]:
    (folder / "scenarios.toml").write_text(text)
    return scenario_file.load(folder / "scenarios.toml")


@pytest.mark.parametrize("place", range(len(MISTAKES)))
def test_a_mistake_is_named_by_scenario_and_key_with_what_is_near(tmp_path: Path, place: int) -> None:
    text, right, wrong, said = MISTAKES[place]
    assert load(tmp_path, text)
    assert right in text
    name = "a spawn" if text is SPAWN else "a load"
    with pytest.raises(ValueError, match=f"^scenarios.toml: '{name}': .*{said}"):
        load(tmp_path, text.replace(right, wrong))


def test_what_belongs_to_no_scenario_is_named_too(tmp_path: Path) -> None:
    for text, said in (
        (LOAD + LOAD, "'a load': 'name' is that of two scenarios"),
        (LOAD.replace('name = "a load"\n', ""), "a scenario has no name"),
        (LOAD.replace("[[scenario]]", "[[scenarios]]"), "unknown key 'scenarios'; near: 'scenario'"),
        ("", "key 'scenario' is missing"),
    ):
        with pytest.raises(ValueError, match=f"^scenarios.toml: {said}"):
            load(tmp_path, text)


def test_a_scale_shortens_it_and_leaves_its_rate_alone(tmp_path: Path) -> None:
    one, burst, spawn = load(tmp_path, LOAD + BURST.replace("a load", "a burst") + SPAWN)
    assert one.scaled("full") == one
    assert one.scaled("requirements").phases == [(6, 100)]
    assert one.scaled(0.5).phases == [(30, 100)]
    assert burst.scaled("requirements").phases == [(0.1, 10), (0.2, 100), (0.1, 10)]
    assert spawn.scaled("requirements").how["times"] == 5
    assert spawn.scaled("quick").how["times"] == 1
    assert one.scaled("quick").limits == one.limits


@pytest.mark.parametrize(("scale", "said"), [("qiuck", "near: 'quick'"), ("0", "over 0"), ("2", "at most 1")])
def test_an_unknown_scale_is_refused_with_those_there_are(
    scale: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=said):
        scenarios.cases_at(scale)
    with pytest.raises(SystemExit):
        command.main(["scenarios", "--scale", scale])
    assert said in capsys.readouterr().err


def test_a_scale_is_refused_where_no_scenario_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["spawn", "--scale", "full"])
    assert "was not asked for" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [*SCALES, "0.01"])
def test_every_scenario_is_a_case_that_may_take_as_long_as_it_lasts(scale: str) -> None:
    found = scenarios.cases_at(scale)
    assert [case.name for case in found] == [one.name for one in scenario_file.load()]
    for case, one in zip(found, scenario_file.load(), strict=True):
        wanted = one.scaled(scale if scale in SCALES else 0.01)
        assert case.contestants[0].limit_s > wanted.seconds
        assert case.rounds == (one.rounds if scale == "requirements" else 1)


def test_scenarios_are_short_enough_for_the_requirements() -> None:
    lengths = [one.rounds * one.scaled("requirements").seconds for one in scenario_file.load()]
    assert max(lengths) <= 20
    assert sum(lengths) <= 150


def test_the_limits_of_the_scenarios_are_those_of_the_requirements() -> None:
    limits = {
        (one.name, scenarios.LIMITS[key]): value for one in scenario_file.load() for key, value in one.limits.items()
    }
    asked = [one for one in requirements.load() if one.bench == "scenarios"]
    assert {(one.case, one.metric): one.target for one in asked} == limits
    assert len(asked) == len(limits)
