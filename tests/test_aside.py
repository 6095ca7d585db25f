"""What is run beside: by a few threads, which end."""

import logging
import threading

import pytest

from fabric.aside import Aside

PATIENCE = 30  # seconds until a wait is taken to hang


def test_a_few_threads_run_all_of_it_and_end():
    aside, gate, done, used = Aside(_nobody, most=3), threading.Event(), threading.Semaphore(0), set()

    def job():
        used.add(threading.current_thread())
        gate.wait(PATIENCE)
        done.release()

    for _ in range(100):
        aside.run(job)
    assert len(_ours()) == 3
    gate.set()
    for _ in range(100):
        assert done.acquire(timeout=PATIENCE)
    for thread in used:
        thread.join(PATIENCE)
    assert len(used) <= 3
    assert _ours() == []
    aside.run(job)
    assert done.acquire(timeout=PATIENCE), "another thread is started when there is something again"
    for thread in used:
        thread.join(PATIENCE)


def test_a_job_that_fails_keeps_nobody_from_the_next(caplog):
    aside, done = Aside(_nobody, most=1), threading.Event()
    aside.run(lambda: 1 // 0)
    aside.run(done.set)
    assert done.wait(PATIENCE)
    assert "a request of an agent failed" in caplog.text
    _join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_neither_a_job_that_ends_its_thread_nor_a_handler_that_raises_takes_a_place_for_good(monkeypatch):
    aside, done = Aside(_nobody, most=1), threading.Event()

    def leave():
        raise SystemExit

    def refuse(record):
        raise OSError("this handler's disk is full")

    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", refuse)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logging.getLogger("fabric"), "handlers", [handler])
    for job in (leave, lambda: 1 // 0, leave):
        aside.run(job)
        _join()
    aside.run(done.set)
    assert done.wait(PATIENCE)
    _join()


def test_where_no_thread_can_be_had_others_run_it(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    instead, done = [], []
    aside = Aside(instead.append, most=1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    aside.run(lambda: done.append(1))
    aside.run(lambda: done.append(2))
    assert done == []
    (job,) = instead
    job()
    assert done == [1, 2]


def _nobody(job):
    raise AssertionError("threads are to be had")


def _ours():
    return [thread for thread in threading.enumerate() if thread.name == "fabric-request"]


def _join():
    for thread in _ours():
        thread.join(PATIENCE)
