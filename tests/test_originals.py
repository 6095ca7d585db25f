"""The harness that runs the originals' tests (tests/originals): it reaches all, survives all, and judges rightly."""

import pytest

from tests.originals import jobs
from tests.originals.jobs import Side
from tests.originals.suites import Part
from tests.originals.verdict import Outcome, judge

PASSED, FAILED, SKIPPED = Outcome("passed"), Outcome("failed", "why"), Outcome("skipped")


@pytest.fixture(autouse=True)
def _logs_of_our_own(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOGS", tmp_path)


def _run(select: str, subject: str, limit: float = 50, only=()):
    part = Part("executor", "sample", "drive_unittest", ("tests.originals.sample",), select)
    return jobs.run(part, Side(subject, limit), only)[0]


def test_a_faulty_class_is_met_in_the_process_of_the_tests_in_scripts_and_in_spawned_children():
    found = _run("^Reach", "faulty")
    assert {name: outcome.kind for name, outcome in found.items()} == {
        "Reach.test_here": "failed",
        "Reach.test_in_a_script": "failed",
        "Reach.test_in_a_spawned_child": "failed",
    }
    assert "a planted fault" in found["Reach.test_here"].detail


@pytest.mark.parametrize("subject", ["original", "same"])
def test_the_original_passes_with_and_without_the_redirection(subject):
    assert {outcome.kind for outcome in _run("^Reach", subject).values()} == {"passed"}


def test_a_hang_and_a_death_cost_one_test_each():
    found = _run("^Trouble", "original", limit=10)
    assert [outcome.kind for outcome in found.values()] == ["failed", "failed", "failed", "passed", "skipped"]
    hung, dead, *_ = found.values()
    assert "not done after 10 s" in hung.detail
    assert "test_a_hangs" in hung.detail, "the stacks of the process are missing"
    assert "ended with 3" in dead.detail


def test_what_a_test_leaves_behind_fails_it_and_not_the_next():
    found = _run("^Mess", "original")
    assert found["Mess.test_a_leaves_a_mark"].kind == "failed"
    assert found["Mess.test_b_passes"].kind == "passed"


def test_named_tests_run_alone():
    assert list(_run("^Trouble", "original", only=["Trouble.test_d_passes"])) == ["Trouble.test_d_passes"]


def test_a_suite_without_tests_is_a_failure():
    [outcome] = _run("^Nothing", "original").values()
    assert outcome.kind == "failed"


def test_a_difference_without_an_explanation_is_found():
    verdict = judge({"a": PASSED, "b": PASSED, "c": PASSED}, {"a": PASSED, "b": FAILED, "c": SKIPPED}, {})
    assert list(verdict.unexplained) == ["b", "c"]
    assert not verdict.good


def test_a_test_that_never_ran_with_us_is_a_difference():
    assert list(judge({"a": PASSED}, {}, {}).unexplained) == ["a"]


def test_what_the_original_fails_or_skips_is_nobodys_fault():
    assert judge({"a": FAILED, "b": SKIPPED}, {"a": FAILED, "b": FAILED}, {}).good


def test_a_complaint_of_the_driver_about_us_alone_is_a_difference():
    assert list(judge({"a": PASSED}, {"a": PASSED, "after a": FAILED}, {}).unexplained) == ["after a"]


def test_an_explanation_excuses_what_its_pattern_names():
    verdict = judge({"x.a": PASSED, "x.b": PASSED}, {"x.a": FAILED, "x.b": FAILED}, {"*.a": "because"})
    assert verdict.explained == {"x.a": "because"}
    assert list(verdict.unexplained) == ["x.b"]


def test_an_explanation_of_a_test_that_passes_is_stale():
    verdict = judge({"x.a": PASSED}, {"x.a": PASSED}, {"*.a": "because", "*.of another version": "because"})
    assert verdict.stale == {"*.a": "x.a"}
    assert not verdict.good
