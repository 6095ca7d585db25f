"""End tasks, each once: with its outcome, by cancelling it, or because the pool is broken.

Many may want to end a task: the thread that drains, who cancels it, the steward when its time is up, whoever breaks
the pool. One of them claims it, under the pool's lock; the others find it claimed.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from fabric.steward import Steward
from fabric.task_crew import ABRUPTLY, TaskCrew
from fabric.task_future import TaskFuture
from fabric.task_queue import TaskQueue
from fabric.task_settings import PoolSettings

DELIVERED = "its reply"  # TaskFuture.claimed, where that is what settles it
_NONE = object()
_PENDING = "A process in the process pool was terminated abruptly while the future was running or pending."


class Run(Protocol):
    """What makes tasks as others are done: fabric.runs.Run."""

    def abort(self, error: BaseException) -> None: ...
    def release(self) -> None: ...


class Endings:
    """The part of a TaskPool that ends tasks."""

    settings: PoolSettings
    lock: threading.Lock
    queue: TaskQueue
    crew: TaskCrew
    steward: Steward
    runs: dict[Run, None]
    unfinished: int
    closing: bool
    broken: str | None

    def claim(self, task: TaskFuture, by: str = "somebody") -> bool:
        """Be the one who settles a task. False: somebody else is. With the lock held."""
        if task.claimed:
            return False
        task.claimed = by
        self.unfinished -= 1
        return True

    def name_of(self, task: TaskFuture) -> str:
        """Return what a task is called in errors: its function."""
        return self.name_of_function(task.function)

    @staticmethod
    def name_of_function(function: Any) -> str:
        """Return what a function is called in errors."""
        return getattr(function, "__qualname__", None) or repr(function)

    def settle_one(self, task: TaskFuture, error: BaseException) -> None:
        """Fail a task, unless it is settled already. The steward only."""
        with self.lock:
            if not self.claim(task):
                return
        self._call_back(self.settle([(task, None, error)]))
        self.wake()

    def settle(self, rows: Iterable[tuple[TaskFuture, Any, BaseException | None]]) -> list[TaskFuture]:
        """Complete tasks that were claimed; return those with callbacks."""
        called = []
        for task, value, error in rows:
            task.forget_call()
            if task.settle(value, error):
                called.append(task)
            follower = task.take_follower()
            if follower is not None:
                follower(task)
        if self.closing and not self.unfinished:
            self.steward.call()
        return called

    # Before their time.

    def cancel(self, task: TaskFuture) -> bool:
        """Cancel a task, where it waits or (unless `strict`) where it runs. False: it is done, or goes on."""
        with self.lock:
            if self.crew.holds(task) and not self.settings.strict:
                if not self.claim(task):
                    return False
                self.steward.stop(task, "cancelled")
            elif not self.queue.discard(task) or not self.claim(task):
                return False
        self._drop([task])
        return True

    def cancel_waiting(self, task: TaskFuture) -> None:
        """Cancel a task, unless a worker has it."""
        with self.lock:
            if not self.queue.discard(task) or not self.claim(task):
                return
        self._drop([task])

    def cancel_pending(self) -> None:
        """Cancel all tasks that no worker has, and what would become tasks."""
        for run in list(self.runs):
            run.abort(CancelledError())
        with self.lock:
            tasks = [task for task in self.queue.clear() if self.claim(task)]
        self._drop(tasks)

    def _drop(self, tasks: list[TaskFuture]) -> None:
        for task in tasks:
            task.forget_call()
            task.set_cancelled()
            follower = task.take_follower()
            if follower is not None:
                follower(task)
        self.wake()
        if self.closing and not self.unfinished:
            self.steward.call()

    def fail(self, text: str, cause: BaseException | None = None) -> None:
        """Break the pool: all tasks are lost, and none is taken any more."""
        with self.lock:
            if self.broken is not None:
                return
            self.broken = text
            tasks = self.queue.clear()
            for seat in self.crew.seats.values():
                tasks += seat.in_flight.values()
                seat.in_flight.clear()
            tasks = [task for task in tasks if self.claim(task)]
        rows = [(task, None, self.lost(cause)) for task in tasks]
        called = self.settle(rows)
        for run in list(self.runs):
            run.abort(self.lost(cause))
        self.wake()
        self._call_back(called)
        if self.steward.thread is not None:
            self.steward.call()

    def _call_back(self, tasks: list[TaskFuture]) -> None:
        """Run callbacks where they hold up nobody: this may be the steward, or the supervisor thread."""
        if tasks:
            self.run_later(lambda: run_callbacks(tasks))

    def run_later(self, job: Callable[[], None]) -> None:
        """Run a user's function in a thread that may be held up."""
        self.crew.run_later(job)

    def lost(self, cause: BaseException | None = None) -> BaseException:
        """Return what tasks raise that are lost because the pool is broken."""
        error = BrokenProcessPool(_PENDING if self.broken == ABRUPTLY else f"the task is lost: {self.broken}")
        error.__cause__ = cause
        return error

    def begin_run(self, run: "Run") -> None:
        """Stay open until the end of this run: some of its items are no tasks yet."""
        with self.lock:
            self.check_open()
            self.runs[run] = None
            self.unfinished += 1

    def end_run(self, run: "Run") -> None:
        """Take note that no more tasks of a run come."""
        with self.lock:
            if self.runs.pop(run, _NONE) is _NONE:
                return
            self.unfinished -= 1
        if self.closing and not self.unfinished:
            self.steward.call()

    def wake(self) -> None:
        """Have those who wait look again: one of them may sleep over the lanes, and nothing may come."""
        self.crew.wake()

    def check_open(self) -> None:
        """Raise what a task gets that comes too late: RuntimeError, BrokenProcessPool."""
        raise NotImplementedError


def run_callbacks(tasks: list[TaskFuture]) -> None:
    """Run what users want to be run when these are done."""
    for task in tasks:
        task.run_callbacks()
