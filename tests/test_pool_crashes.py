"""Pool when workers are killed, and with large data."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fabric import PoisonMessageError, Pool, WorkerLostError
from tests import task_functions as work

DEADLINE = 20.0


@pytest.fixture
def mortal() -> Iterator[Pool]:
    with Pool(2) as own:
        yield own


def test_a_killed_worker_takes_nothing_with_it(mortal: Pool, tmp_path: Path) -> None:
    results = mortal.map_async(work.echo, range(2_000), 1)
    assert mortal.apply(work.die_once, (str(tmp_path / "died"),)) == "survived"
    os.kill(mortal._pool[0].pid, signal.SIGKILL)
    assert results.get(DEADLINE) == list(range(2_000))
    assert list(mortal.imap(work.echo, range(2_000))) == list(range(2_000))


def test_only_the_item_that_kills_is_to_blame(mortal: Pool) -> None:
    results = mortal.imap(work.die, [0] * 30 + [signal.SIGKILL] + [0] * 30)
    outcomes = []
    for _ in range(61):
        try:
            outcomes.append(next(results))
        except PoisonMessageError:
            outcomes.append("poison")
    assert outcomes == [None] * 30 + ["poison"] + [None] * 30
    with pytest.raises(PoisonMessageError):
        mortal.map(work.die, [0, signal.SIGKILL, 0])


def test_with_on_crash_fail_what_was_begun_is_not_run_again(tmp_path: Path) -> None:
    with Pool(2, on_crash="fail") as own:
        with pytest.raises(WorkerLostError, match="die_once") as caught:
            own.apply(work.die_once, (str(tmp_path / "died"),))
        assert caught.value.signal_name == "SIGKILL"
        with pytest.raises(WorkerLostError):
            own.map(work.die, [signal.SIGKILL, 0, 0])
        assert own.map(work.echo, range(100)) == list(range(100))


def test_large_items_and_results_go_there_and_back(mortal: Pool) -> None:
    arrays = [np.full(300_000, float(i)) for i in range(20)]
    assert mortal.map(work.total, arrays) == [300_000.0 * i for i in range(20)]
    assert [array.sum() for array in mortal.imap(work.fill, [300_000] * 20)] == [600_000.0] * 20
    assert sum(array.sum() for array in mortal.map(work.fill, [300_000] * 20)) == 20 * 600_000.0
