"""Executor.map: its order, its time limit, how far ahead it is, and whom a slow item holds up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric import Executor
from tests import task_functions as work

DEADLINE = 20.0


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as shared:
        yield shared


def test_map_keeps_the_order(executor: Executor) -> None:
    assert list(executor.map(work.echo, range(20_000))) == list(range(20_000))
    assert list(executor.map(work.add, range(100), range(50))) == [2 * i for i in range(50)]
    assert list(executor.map(work.echo, [])) == []
    assert list(executor.map(work.echo, range(100), chunksize=7)) == list(range(100))


def test_map_yields_what_came_before_an_exception(executor: Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_takes_an_endless_iterable_when_it_is_told_how_far(executor: Executor) -> None:
    import itertools

    taken = itertools.count()
    results = executor.map(work.echo, taken, buffersize=10)
    assert [next(results) for _ in range(100)] == list(range(100))
    results.close()  # type: ignore[attr-defined]
    assert next(taken) <= 120


def test_map_times_out_from_its_call_on(executor: Executor, tmp_path: Path) -> None:
    executor.submit(work.sleep_and_return, 0.05).result(DEADLINE)  # a worker is there, and gets one task at a time
    (tmp_path / "there").touch()
    results = executor.map(work.wait_for_file, [str(tmp_path / name) for name in ("there", "there", "go")], timeout=2.5)
    assert [next(results), next(results)] == ["gone", "gone"]
    with pytest.raises(TimeoutError):
        next(results)
    (tmp_path / "go").touch()


def test_a_slow_item_does_not_hold_up_those_that_another_worker_could_take(executor: Executor, tmp_path: Path) -> None:
    path = str(tmp_path / "last")
    functions = [work.echo] * 200 + [work.wait_for_file] + [work.echo] * 199 + [work.touch]  # for the last one
    arguments = [*range(200), path, *range(199), path]
    results = list(executor.map(work.call, functions, arguments))
    assert results == [*range(200), "gone", *range(199), None]


def test_seeded_tasks_draw_the_same_with_any_number_of_workers() -> None:
    draws = []
    for workers in (1, 2):
        with Executor(workers) as executor:
            draws.append(list(executor.map(work.draw, range(200), seed=42)))
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 200


def test_results_are_not_kept_by_the_iterator(executor: Executor) -> None:
    import gc
    import weakref

    for array in executor.map(work.fill, range(1, 10)):
        kept = weakref.ref(array)
        del array
        gc.collect()
        assert kept() is None
