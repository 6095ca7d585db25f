"""Requirements beside a peer: what is judged is how many times better ours is, and only that peer runs too."""

import pytest

from bench import __main__ as command
from bench import requirements
from bench.harness import Case, Contestant, Metric, Result

RATE = Metric("rate", "tasks/s")
DELAY = Metric("delay", "µs", higher_is_better=False)


def test_a_requirement_beside_a_peer_is_how_many_times_better_ours_is() -> None:
    asked = beside("a peer", target=2.0)
    rows = [row("ours", 30.0, ours=True), row("another", 90.0), row("a peer", 10.0)]
    (found,) = requirements.judge([asked], rows)
    assert (found.measured, found.met) == (3, True)
    (found,) = requirements.judge([asked], [row("ours", 30.0, ours=True), row("a peer", 20.0)])
    assert (found.measured, found.met) == (1.5, False)
    (found,) = requirements.judge(
        [asked], [row("ours", 10.0, ours=True, metric=DELAY), row("a peer", 30.0, metric=DELAY)]
    )
    assert found.why == "was not measured"  # by that metric


@pytest.mark.parametrize("absent", ["ours", "a peer"])
def test_a_requirement_beside_a_peer_that_has_no_figure_is_missed_and_says_who_has_none(absent: str) -> None:
    rows = [row(name, *([] if name == absent else [1.0]), ours=name == "ours") for name in ("ours", "a peer")]
    (found,) = requirements.judge([beside("a peer")], rows)
    assert not found.met
    assert found.why == ("a status" if absent == "ours" else "a peer: a status")


def test_a_requirement_beside_a_peer_is_at_least_so_many_times() -> None:
    with pytest.raises(ValueError, match="times"):
        requirements.Requirement("x", "a bench", "a case", "rate", 1.0, "tasks/s", "at least", "a peer")


def test_the_requirements_run_ours_and_the_peers_that_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    contestants = [
        Contestant(name, "bench.pool:mapped", peer=name != "setting") for name in ("ours", "setting", "a peer", "b")
    ]
    monkeypatch.setattr(command, "cases_of", lambda bench, quick: [Case("a case", (RATE,), tuple(contestants), 1)])
    for asked, names in ((beside("a peer"), ["ours", "a peer"]), (beside(""), ["ours"])):
        ((case,),) = command._wanted([], False, [asked]).values()
        assert [one.name for one in case.contestants] == names


def beside(peer: str, target: float = 1.0) -> requirements.Requirement:
    return requirements.Requirement("x", "pool", "a case", "rate", target, "times", "at least", peer)


def row(name: str, *values: float, ours: bool = False, metric: Metric = RATE) -> Result:
    return Result("pool", "a case", metric, name, ours, "a status", False, list(values), 1, "")
