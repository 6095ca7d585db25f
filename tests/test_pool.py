"""Calls of a Pool: multiprocessing.Pool's contract, and what goes beyond it."""

import gc
import itertools
import multiprocessing
import multiprocessing.pool
import pickle
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import Pool
from tests import task_functions as work
from tests.waiting import until

DEADLINE = 20.0


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2) as shared:
        assert len(shared._pool) == 2  # they have started: else they would seem to be left behind by the first test
        yield shared


class Sized:
    """Has a length, and fails when it is iterated over."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        raise KeyError("no items")


def broken_after(count: int) -> Iterator[int]:
    """Yield so many numbers, then raise."""
    yield from range(count)
    raise KeyError("no more")


# One call.


def test_apply_returns_what_the_function_returns(pool: Pool) -> None:
    assert pool.apply(work.both, (1, 2), {"c": 3}) == ((1, 2), {"c": 3})
    assert pool.apply(work.echo, [None]) is None
    assert pool.apply(lambda x: x + 1, (1,)) == 2


def test_apply_raises_what_the_function_raises_with_its_remote_traceback(pool: Pool) -> None:
    with pytest.raises(KeyError, match="nothing there") as caught:
        pool.apply(work.fail, (KeyError("nothing there"),))
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    assert "raise error" in caught.value.__cause__.tb
    assert pool.apply(work.echo, (1,)) == 1


def test_an_async_result_says_whether_it_is_there(pool: Pool, tmp_path: Path) -> None:
    result = pool.apply_async(work.wait_for_file, (str(tmp_path / "go"),))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    result.wait(0.01)
    (tmp_path / "go").touch()
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get(0) == "gone"
    failed = pool.apply_async(work.fail, (KeyError(),))
    failed.wait()
    assert not failed.successful()


def test_many_calls_come_back_each_to_its_own_result(pool: Pool) -> None:
    results = [pool.apply_async(work.echo, (i,)) for i in range(3_000)]
    assert [result.get(DEADLINE) for result in results] == list(range(3_000))


def test_a_callback_has_run_before_the_result_is_ready(pool: Pool) -> None:
    got: list[Any] = []
    assert pool.apply_async(work.echo, (7,), callback=got.append).get(DEADLINE) == 7
    assert got == [7]
    error = KeyError("nothing there")
    with pytest.raises(KeyError):
        pool.apply_async(work.fail, (error,), callback=got.append, error_callback=got.append).get(DEADLINE)
    assert [type(item) for item in got] == [int, KeyError]
    pool.map_async(work.echo, [1, 2], callback=got.append).wait()
    assert got[2:] == [[1, 2]]


def test_a_callback_runs_though_nobody_waits_and_may_use_the_pool(pool: Pool) -> None:
    came = threading.Event()
    got: list[Any] = []

    def again(value: int) -> None:
        got.append(pool.map(work.echo, [value, value]))
        came.set()

    pool.apply_async(work.echo, (3,), callback=again)
    assert came.wait(DEADLINE)
    assert got == [[3, 3]]


def test_a_callback_that_raises_holds_up_nobody(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    assert pool.apply_async(work.echo, (1,), callback=lambda value: 1 // 0).get(DEADLINE) == 1
    assert "a callback of a pool's result raised" in caplog.text


def test_what_cannot_be_pickled_is_told_by_the_result(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="cannot pickle"):
        pool.apply_async(work.echo, (work.Unpicklable(),)).get(DEADLINE)
    for function in (work.make_lambda, work.make_generator):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError) as caught:
            pool.apply(function)
        assert "Error" in caught.value.exc
        assert "at 0x" in caught.value.value
    with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="cannot be pickled") as caught:
        pool.apply(work.fail_unpicklably)
    assert "fail_unpicklably" in str(caught.value.__cause__)


# map.


def test_map_keeps_the_order(pool: Pool) -> None:
    assert pool.map(work.echo, range(50_000)) == list(range(50_000))
    assert pool.map(work.echo, [str(i) for i in range(1_000)], chunksize=7) == [str(i) for i in range(1_000)]
    assert pool.map(work.echo, (i for i in range(100)), 1) == list(range(100))
    assert pool.map(work.echo, {3: 1, 4: 1}) == [3, 4]
    assert pool.map(work.echo, "abc") == ["a", "b", "c"]
    assert pool.map(work.echo, []) == []
    assert pool.map_async(work.echo, [], chunksize=1).get(0) == []
    assert pool.starmap(work.add, [(i, 1) for i in range(100)]) == list(range(1, 101))
    assert pool.starmap_async(work.add, zip(range(100), range(100), strict=True), 9).get() == list(range(0, 200, 2))


def test_map_of_an_array_goes_by_its_rows(pool: Pool) -> None:
    rows = np.arange(3_000.0).reshape(1_000, 3)
    assert pool.map(work.total, rows) == [float(row.sum()) for row in rows]


def test_map_waits_for_all_items_before_it_raises(pool: Pool, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}") for i in range(20)]
    calls = [(path, 0.01, i in (3, 7)) for i, path in enumerate(paths)]
    for chunksize in (None, 1, 5):
        with pytest.raises(FileNotFoundError, match="/3"):
            pool.starmap(work.note_and_maybe_fail, calls, chunksize)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(str(i) for i in range(20))
        for path in tmp_path.iterdir():
            path.unlink()


def test_an_iterable_that_raises_raises_in_the_caller(pool: Pool) -> None:
    for items in (broken_after(3), Sized()):
        with pytest.raises(KeyError) as caught:
            pool.map(work.echo, items)  # type: ignore[arg-type]
        assert caught.value.__cause__ is None
    assert pool.map(work.echo, [1]) == [1]


def test_an_item_that_cannot_be_pickled_fails_the_map_and_nothing_else(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="cannot pickle"):
        pool.map(work.echo, [*range(100), work.Unpicklable()])
    assert pool.map(work.echo, range(100)) == list(range(100))


def test_a_function_that_raises_StopIteration_ends_nothing(pool: Pool) -> None:
    with pytest.raises(StopIteration):
        pool.map(work.fail, [StopIteration()] * 3)


def test_results_are_let_go_of(pool: Pool) -> None:
    arrays = [np.zeros(3) for _ in range(10)]
    given = [weakref.ref(array) for array in arrays]
    results = pool.map(work.echo, arrays)
    taken = [weakref.ref(array) for array in results]
    del arrays, results
    gc.collect()
    assert [ref() for ref in given + taken] == [None] * 20


# imap.


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_imap_yields_in_order_and_imap_unordered_yields_all(pool: Pool, chunksize: int) -> None:
    for items in (range(1_000), iter(range(1_000))):
        assert list(pool.imap(work.echo, items, chunksize)) == list(range(1_000))
    for items in (range(1_000), iter(range(1_000))):
        assert sorted(pool.imap_unordered(work.echo, items, chunksize)) == list(range(1_000))
    assert list(pool.imap(work.echo, [], chunksize)) == []
    assert list(pool.imap_unordered(work.echo, iter([]), chunksize)) == []


def test_imap_goes_on_behind_an_item_that_raises(pool: Pool) -> None:
    results = pool.imap(work.fail_at_multiples, range(1, 8))
    assert next(results) == 1
    assert next(results) == 2
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert [next(results), next(results)] == [4, 5]
    with pytest.raises(ValueError, match="6"):
        next(results)
    assert list(results) == [7]


@pytest.mark.parametrize(("chunksize", "whole"), [(1, 7), (2, 6), (4, 4)])
def test_imap_yields_the_whole_chunks_before_the_iterable_raised(pool: Pool, chunksize: int, whole: int) -> None:
    results = pool.imap(work.echo, broken_after(7), chunksize)
    assert [next(results) for _ in range(whole)] == list(range(whole))
    with pytest.raises(KeyError, match="no more"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert len(list(itertools.islice(pool.imap_unordered(work.echo, iter(range(7)), chunksize), 7))) == 7


def test_next_may_give_up_and_be_called_again(pool: Pool, tmp_path: Path) -> None:
    results = pool.imap(work.wait_for_file, [str(tmp_path / "go")])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.02)  # type: ignore[attr-defined]
    (tmp_path / "go").touch()
    assert results.next(DEADLINE) == "gone"  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        results.next(0)  # type: ignore[attr-defined]


def test_imap_unordered_yields_what_comes_first(pool: Pool, tmp_path: Path) -> None:
    results = pool.imap_unordered(work.wait_for_file, [str(tmp_path / "late"), str(tmp_path / "soon")])
    (tmp_path / "soon").touch()
    assert next(results) == "gone"
    (tmp_path / "late").touch()
    assert next(results) == "gone"


def test_an_iterable_may_wait_for_results_of_its_own_items(pool: Pool) -> None:
    room = threading.Semaphore(1)

    def one_at_a_time() -> Iterator[int]:
        for i in range(20):
            room.acquire()
            yield i

    got = []
    for value in pool.imap(work.echo, one_at_a_time()):
        got.append(value)
        room.release()
    assert got == list(range(20))


def test_an_endless_iterable_is_consumed_as_its_results_are_taken(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fabric.pool._BOUND", 100)
    with Pool(1) as own:
        endless = itertools.count()
        results = own.imap(work.echo, endless)
        assert [next(results) for _ in range(1_000)] == list(range(1_000))
        assert next(endless) <= 2_000


def test_imap_goes_on_while_nobody_takes_results(pool: Pool, tmp_path: Path) -> None:
    for items in (range(200), iter(range(200, 400))):
        results = pool.imap(work.touch, (str(tmp_path / f"{i}") for i in items))
        del results
    until(lambda: len(list(tmp_path.iterdir())) == 400)


def test_a_pool_cannot_be_pickled(pool: Pool) -> None:
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)
