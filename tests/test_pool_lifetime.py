"""Pools as a whole: how they start, what they refuse, and how they are closed, terminated, dropped and collected."""

import gc
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fabric import ClosedError, Pool
from tests import task_functions as work
from tests.waiting import until

DEADLINE = 20.0


def test_workers_start_at_once_and_are_initialized_though_no_task_comes(tmp_path: Path) -> None:
    own = Pool(2, work.touch_own, (str(tmp_path),))
    assert len(own._pool) == 2
    assert all(process.is_alive() for process in own._pool)
    own.close()
    own.join()
    assert len(list(tmp_path.iterdir())) == 2


def test_close_does_what_there_is_and_takes_no_more() -> None:
    own = Pool(2)
    later = own.map_async(work.echo, range(20_000))
    streamed = own.imap(work.echo, iter(range(2_000)))
    single = own.apply_async(work.sleep_and_return, (0.05, 1))
    with pytest.raises(ValueError, match="still running"):
        own.join()
    own.close()
    own.join()
    assert later.get(0) == list(range(20_000))
    assert list(streamed) == list(range(2_000))
    assert single.get(0) == 1
    for call in (own.map, own.map_async, own.imap, own.imap_unordered, own.starmap, own.apply_async):
        with pytest.raises(ValueError, match="Pool not running"):
            call(work.echo, [1])  # type: ignore[operator]
    own.close()
    own.terminate()


def test_terminate_ends_what_runs_and_holds_up_nobody(tmp_path: Path) -> None:
    with Pool(2) as own:
        running = own.map_async(work.note_and_sleep_long, [str(tmp_path / f"{i}") for i in range(100)])
        streamed = own.imap(work.echo, itertools.count())
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        processes = own._pool
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(ClosedError):
        running.get(DEADLINE)
    with pytest.raises(ClosedError):
        list(streamed)
    with pytest.raises(ValueError, match="Pool not running"), own:
        pass
    own.join()


def test_a_callback_may_terminate_the_pool() -> None:
    own = Pool(2)
    waiting = own.apply_async(work.sleep_and_return, (60,))
    own.apply_async(work.echo, (1,), callback=lambda value: own.terminate())
    with pytest.raises(ClosedError):
        waiting.get(DEADLINE)
    own.join()
    assert own._pool == []


def test_a_pool_may_be_collected_by_a_thread_that_holds_its_lock() -> None:
    own = [Pool(1)]
    tasks = own[0]._tasks
    assert own[0].apply(work.echo, (1,)) == 1

    def collect() -> None:
        with tasks.lock, pytest.warns(ResourceWarning):
            own.pop()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    tasks.join()
    assert tasks.closing


def test_workers_are_replaced_after_so_many_tasks() -> None:
    with Pool(2, maxtasksperchild=5) as own:
        pids = [own.apply(work.pid) for _ in range(20)]
        assert all(pids.count(pid) <= 5 for pid in pids)
        assert len(set(own.imap(work.pid, range(40)))) >= 8


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"processes": 0}, ValueError),
        ({"processes": -1}, ValueError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"maxtasksperchild": 0.5}, ValueError),
        ({"maxtasksperchild": "12"}, ValueError),
        ({"initializer": 1}, TypeError),
        ({"on_crash": "hide"}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Pool(**arguments)


def test_a_pool_that_is_dropped_warns_and_leaves() -> None:
    own = Pool(1)
    pids = [process.pid for process in own._pool]
    gc.collect()
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del own
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))


def test_an_initializer_that_raises_fails_the_tasks() -> None:
    with Pool(1, work.fail, (KeyError("not ready"),)) as own, pytest.raises(Exception, match="not ready"):
        own.apply_async(work.echo, (1,)).get(DEADLINE)
