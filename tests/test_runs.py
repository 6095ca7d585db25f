"""The runs of maps, over a pool without processes: what its workers would do is done when somebody waits."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest

from fabric.chunking import FixedSize
from fabric.mapping import map_items
from fabric.pool_results import ApplyResult, IMapIterator, MapResult
from fabric.runs import Run, Work
from fabric.sources import Iterated, Listed
from fabric.task_future import TaskFuture, TaskOptions, Waiter
from fabric.task_runner import Outcomes
from tests.waiting import until

DEADLINE = 10.0


class FakePool:
    """The part of a TaskPool that runs need. Tasks are done in the thread that waits."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(max_workers=2)
        self.functions = SimpleNamespace(dump=lambda function: None)
        self.steward = SimpleNamespace(feed=self._note_feeder)
        self.feeders: dict[Callable[[], None], None] = {}
        self.tasks: dict[TaskFuture, tuple[Any, ...]] = {}
        self.runs: dict[Run, None] = {}
        self.before_reply: Callable[[], None] = lambda: None

    def _note_feeder(self, feeder: Callable[[], None]) -> None:
        self.feeders[feeder] = None

    def name_of_function(self, function: Any) -> str:
        return "it"

    def submit_call(self, options: TaskOptions, call: tuple[Any, ...], function: Any) -> TaskFuture:
        task = TaskFuture(self, options)  # type: ignore[arg-type]
        self.tasks[task] = call
        return task

    def reply(self) -> None:
        """Do the oldest task."""
        task = next(iter(self.tasks))
        function, items, *_ = self.tasks.pop(task)
        self.before_reply()
        task.settle(Outcomes([function(item) for item in items], {}, 0.0), None)
        follower = task.take_follower()
        if follower is not None:
            follower(task)

    def reply_to_all(self) -> None:
        """Be workers, and the steward, until there is nothing to do."""
        while self.tasks or self.feeders:
            while self.tasks:
                self.reply()
            while self.feeders:
                self.feeders.popitem()[0]()

    def wait_for(self, waiter: Waiter, deadline: float | None) -> bool:
        while not waiter.done:
            assert self.tasks, "it waits for what nobody does"
            for _ in range(len(self.tasks)):  # they came together, as far as who drains can tell
                self.reply()
        return True

    def cancel_waiting(self, task: TaskFuture) -> None:
        self.tasks.pop(task, None)

    def begin_run(self, run: Run) -> None:
        self.runs[run] = None

    def end_run(self, run: Run) -> None:
        del self.runs[run]

    def wake(self) -> None:
        pass


def mapped(pool: Any, items: Any, buffer: int | None) -> Iterator[Any]:
    return map_items(pool, (str, False, TaskOptions(), None), items, 1, buffer, None)


def run_of(pool: Any, source: Any, chunksize: int = 1) -> Run:
    return Run(pool, Work(str, False, TaskOptions()), source, FixedSize(chunksize))


def in_thread(job: Callable[[], object]) -> bool:
    """Run something that must not wait for ever; False: it did."""
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 50])
def test_a_buffered_map_of_finitely_many_items_ends(count: int) -> None:
    pool = FakePool()
    for buffer in (1, 2, 100):
        assert list(mapped(pool, iter(range(count)), buffer)) == [str(i) for i in range(count)]
    assert not pool.runs


def test_an_iterable_may_wait_for_tasks_of_the_pool_that_maps_it() -> None:
    pool = FakePool()
    got: list[str] = []

    def nest() -> None:
        got.extend(mapped(pool, mapped(pool, range(20), 4), 20))

    assert in_thread(nest)
    assert got == [str(i) for i in range(20)]
    assert not pool.runs


def test_a_buffered_map_that_nobody_reads_to_its_end_holds_up_no_pool_that_is_left() -> None:
    for read in (0, 3):
        pool = FakePool()
        results = mapped(pool, iter(range(100)), 4)
        assert [next(results) for _ in range(read)] == [str(i) for i in range(read)]
        for run in list(pool.runs):
            run.release()
        pool.reply_to_all()
        assert not pool.runs
        assert [next(results) for _ in range(4 - read)] == [str(i) for i in range(read, 4)]
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            next(results)


def test_a_map_whose_reader_does_not_come_back_is_sent_to_its_end() -> None:
    pool = FakePool()
    results = mapped(pool, range(2_000), None)  # more than are sent ahead
    assert next(results) == "0"
    pool.reply_to_all()
    assert not pool.runs


def test_a_map_that_is_left_goes_on_though_nobody_feeds_it() -> None:
    pool = FakePool()
    run = run_of(pool, Listed(range(2_000)))
    run.begin(SimpleNamespace(accept=lambda *arguments: None, finish=lambda: None))  # type: ignore[arg-type]
    while pool.tasks:
        pool.reply()
    pool.feeders.clear()
    run.release()
    pool.reply_to_all()
    assert not pool.runs


@pytest.mark.parametrize("buffer", [None, 4])
def test_a_map_may_be_given_up_by_a_thread_that_holds_its_locks(buffer: int | None) -> None:
    pool = FakePool()
    results = mapped(pool, range(2_000), buffer)
    assert next(results) == "0"
    run = next(iter(pool.runs))

    def collect() -> None:
        with run._lock:
            results.close()  # type: ignore[attr-defined]

    assert in_thread(collect)
    until(lambda: not pool.runs)
    assert not pool.tasks


def test_a_map_that_is_given_up_where_no_thread_can_start_is_ended_with_its_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*arguments: Any) -> None:
        raise RuntimeError("can't start new thread")

    pool = FakePool()
    results = mapped(pool, range(100), 4)
    assert next(results) == "0"
    monkeypatch.setattr("_thread.start_new_thread", start)
    results.close()  # type: ignore[attr-defined]
    next(iter(pool.runs)).release()
    pool.reply_to_all()
    assert not pool.runs


def test_results_are_in_place_before_another_thread_can_find_the_map_done() -> None:
    pool = FakePool()
    run = run_of(pool, Listed([1, 2]))
    result = MapResult(run, 2, "it", None, None)
    accept, looked = result.accept, []

    def look(first: int, values: list[Any], errors: dict[int, Any]) -> None:
        assert in_thread(run._finish_if_done)
        looked.append(result._complete)
        accept(first, values, errors)

    result.accept = look  # type: ignore[method-assign]
    pool.reply_to_all()
    assert looked == [False, False]
    assert result._complete
    assert result._value == ["1", "2"]


def test_a_result_is_there_for_who_waits_before_the_thread_that_drained_has_passed_it_on() -> None:
    pool = FakePool()
    task = pool.submit_call(TaskOptions(), (str, [1], False, 1.0, None), str)
    result = ApplyResult(pool, task, "it", None, None)  # type: ignore[arg-type]
    follower = task.take_follower()
    task.settle("1", None)
    pool.wait = lambda future, timeout: None  # type: ignore[attr-defined]  # it is done already
    assert result.get() == "1"
    assert follower is not None
    follower(task)
    assert result.get() == "1"


def test_threads_that_refill_an_iterator_at_once_lose_nothing() -> None:
    pool = FakePool()
    results = IMapIterator(run_of(pool, Listed(range(4)), 2), "it")
    pool.reply_to_all()
    others: list[str] = []

    class Ready(deque[list[Any]]):
        """Where another thread comes between the look at it and the taking."""

        def __bool__(self) -> bool:
            if other.ident is None:
                other.start()
                other.join(0.2)  # it may be done, or wait for us
            return len(self) > 0

    other = threading.Thread(target=lambda: others.extend(islice(results, 1)), daemon=True)
    results._ready = Ready(results._ready)
    got = list(results)
    other.join(DEADLINE)
    assert sorted(got + others) == ["0", "1", "2", "3"]


def test_a_thread_whose_result_was_taken_by_another_waits_for_the_next() -> None:
    pool = FakePool()
    run = run_of(pool, Listed(range(3)))
    run._most_open = 1  # results come one by one
    results = IMapIterator(run, "it")
    feed, taken = run.feed, list[str]()

    def take() -> None:
        """Be another thread, when the first has seen that there is a result."""
        feed()
        if results._ready and not taken:
            taken.append(results.next())

    run.feed = take  # type: ignore[method-assign]
    assert [*results, *taken] == ["1", "2", "0"]


def test_results_are_placed_by_one_thread_at_a_time() -> None:
    results = IMapIterator(run_of(FakePool(), Listed(range(3))), "it")
    placed = threading.Event()

    def place(first: int, values: list[Any]) -> None:
        results.accept(first, values, {})
        placed.set()

    with results._lock:
        threading.Thread(target=place, args=(0, ["0"]), daemon=True).start()
        assert not placed.wait(0.05)
    assert placed.wait(DEADLINE)
    assert next(results) == "0"


def test_what_comes_after_a_map_was_aborted_changes_nothing() -> None:
    pool = FakePool()
    run = run_of(pool, Listed([1, 2]))
    result = MapResult(run, 2, "it", None, None)
    run.abort(KeyError("gone"))
    result.accept(0, ["1"], {})
    assert result._value is None
    assert type(result._error) is KeyError


def test_a_map_whose_thread_cannot_start_holds_up_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = FakePool()
    run = run_of(pool, Iterated(iter([1]), 1, 100))
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        run.begin(SimpleNamespace(accept=lambda *arguments: None, finish=lambda: None))  # type: ignore[arg-type]
    assert not pool.runs
