"""Some seconds of tests/soak_payloads.py, and a minute of it with -m soak. Longer: python -m tests.soak_payloads."""

import os

import pytest

from tests.soak_payloads import run

SEED = int(os.environ.get("FABRIC_SEED", 1))


@pytest.mark.parametrize(
    "seconds", [4, pytest.param(60, marks=[pytest.mark.soak, pytest.mark.timeout(300)])], ids=["short", "long"]
)
def test_large_bodies_in_all_ways_leave_nothing_though_workers_are_killed(seconds):
    problems, figures = run(seconds, SEED, pause=0.5)
    print(figures)
    assert problems == []
    assert figures["kills"] > 0
