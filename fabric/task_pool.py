"""Run functions on the workers of a fabric: what Executor, Pool and the joblib backend stand on.

    submit ──▶ TaskQueue ──▶ Seat of a worker ──▶ lane ──▶ TaskRunner ──▶ lane ──▶ Seat.accept ──▶ TaskFuture
               (waits here)   (has no more ahead than a few ms of work)         (in whichever thread drains)

Tasks wait in the coordinator, by priority, and a worker has no more of them ahead than it does in two milliseconds
(fabric.pace): so they can be cancelled, and none waits behind a long one. There is no thread in between: who
submits sends, who waits for a result drains and sends what that made room for. The steward (fabric.steward)
does so when nobody else does, and all that may take long: starting workers, encoding large tasks, time limits.

Locks: `lock` guards queue and seats; it is held while something is sent, never while a user's code runs.
"""

import os
import pickle
import threading
import time
import weakref
from concurrent.futures._base import PENDING, RUNNING
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fabric.callables import FunctionCache
from fabric.errors import EncodingError, FabricError, MessageTooLargeError, PoisonMessageError, WorkerLostError
from fabric.messages import PICKLE
from fabric.pending import NO_REPLIES, Failed, Finish, Replied, deadline_of
from fabric.pickling import dump_pickle
from fabric.seat import Outcome, Seat
from fabric.steward import Steward
from fabric.task_crew import TaskCrew
from fabric.task_endings import DELIVERED, Endings, Run, run_callbacks
from fabric.task_errors import outcome
from fabric.task_future import TaskFuture, TaskOptions, Waiter
from fabric.task_queue import TaskQueue
from fabric.task_runner import Withdrawn
from fabric.task_settings import PoolSettings

_LOOK_EACH = 32  # submissions: then replies are drained, which makes room for what waits
_BEFORE = 16  # bytes of a task's pickle that come before those of its function
_UNTIL_A_REPLY = 1 << 60  # who delivers that sends
_pools: "weakref.WeakSet[TaskPool]" = weakref.WeakSet()  # for forked children
_UNDONE = frozenset({Withdrawn, Failed})
_SMALL = frozenset({int, float, complex, bool, type(None), slice, range})  # types of arguments that are never large


class TaskPool(Endings):
    """Tasks, and the workers that run them. Any thread may call any method."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.queue = TaskQueue()
        self.crew = TaskCrew(settings, self)
        self.steward = Steward(self)
        self.functions = FunctionCache()
        self.runs: dict[Run, None] = {}  # those that still make tasks
        self.unfinished = 0  # tasks that are neither done nor cancelled, and runs
        self.closing = False  # no more tasks are taken
        self.broken: str | None = None
        self._closed_by = "shutdown"
        self._idle = 0  # workers that had nothing to do when it was last looked, less tasks since
        self._since_look = 0
        self._torn: list[Outcome] = []  # what is being settled, until it is
        self._patience = 0  # more tasks than that have to wait before it is worth while to send some
        self._large_from = settings.config.arena_threshold
        _pools.add(self)

    def submit(self, options: TaskOptions, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskFuture:
        """Take a task. What cannot be pickled is told by its future."""
        self.check_open()
        future = TaskFuture(self, options)
        future.function = function
        self._expect_worker()
        try:
            data = self.functions.dump(function)
            call = (function if data is None else data, args, kwargs)
            if self._is_large(args, kwargs):
                future.call = call
            else:
                self._pickle(future, call, data)
        except EncodingError as error:
            future.forget_call()
            future.settle(None, error.__cause__ or error)
            return future
        self._enter(future)
        return future

    def submit_call(
        self, options: TaskOptions, call: tuple[Any, ...], function: Any, large: bool = False
    ) -> TaskFuture:
        """Take a task in the form that the runner knows, though the pool be closing: its call was taken before.

        `large`: there are large arrays in it; then its future tells what cannot be pickled.

        Raises:
            EncodingError: it cannot be pickled. BrokenProcessPool: the pool is broken.
        """
        future = TaskFuture(self, options)
        future.function = function
        self._expect_worker()
        if large:
            future.call = call
        else:
            self._pickle(future, call, call[0])
        self._enter(future)
        return future

    def _pickle(self, future: TaskFuture, call: tuple[Any, ...], function: Any) -> None:
        """Pickle a task, whose function may be pickled already; a large one anew, when a worker has room for it."""
        if type(function) is bytes:
            try:
                data = pickle.dumps(call, 5)
                # The function may be of `__main__`, and is by value then; the rest goes on as dump_pickle has it.
                if data.find(b"__main__", len(function) + _BEFORE) >= 0:
                    data = dump_pickle(call)
            except Exception:
                data = dump_pickle(call)
        else:
            data = dump_pickle(call)
        future.size = len(data)
        if future.size >= self._large_from:
            future.call = call
        else:
            future.data, future.encoding = data, PICKLE

    def check_open(self) -> None:
        """Raise what a task gets that comes too late: RuntimeError, BrokenProcessPool."""
        if self.broken is not None:
            raise BrokenProcessPool(self.broken)
        if self.closing:
            raise RuntimeError(f"cannot schedule new futures after {self._closed_by}")

    def _is_large(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """May this have so many bytes that it goes through the arena, and waits until there is room?"""
        most = self._large_from
        for value in (*args, *kwargs.values()) if kwargs else args:
            if type(value) not in _SMALL:
                size = len(value) if type(value) in (bytes, str, bytearray) else getattr(value, "nbytes", 0)
                if type(size) is int and size >= most:
                    return True
        return False

    def _expect_worker(self) -> None:
        """Have a worker started for the task that comes, if none is idle and there may be more."""
        if self._idle > 0:
            self._idle -= 1
        elif self.crew.wanted < self.settings.max_workers:
            self.crew.want_one_more()

    def _enter(self, future: TaskFuture) -> None:
        with self.lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self.closing and not self.unfinished:  # the steward may have left: it would stay here for ever
                self.check_open()
            self.unfinished += 1
            self.queue.add(future)
            if self.queue.count > self._patience:
                self.dispatch()
        if future.call is not None:  # large: it is encoded when a worker has room for it
            self.steward.call()
        self.steward.notice()
        self._since_look += 1
        if self._since_look >= _LOOK_EACH:
            self.look()

    # Sending.

    def dispatch(self) -> None:
        """Send what workers have room for. With the lock held."""
        queue = self.queue
        while queue.count:
            task = queue.peek()
            assert task is not None
            if task.call is not None or (seat := self.best_seat(task)) is None:
                break
            if task.options.timeout is not None:
                tasks = [queue.pop()]
            else:
                share = -(-queue.count // len(self.crew.seats))
                tasks = queue.take(min(seat.room(), max(1, share)), seat.bytes_left())
            if not self._send(seat, tasks):
                break
        seats = self.crew.seats.values()
        self._patience = min((seat.patience for seat in seats), default=0)
        if queue.count and all(seat.room() <= 0 for seat in seats):
            self._patience = _UNTIL_A_REPLY

    def take_back(self, tasks: list[TaskFuture]) -> None:
        """Have tasks wait again that were sent and not begun. With the lock held."""
        waiting = [task for task in tasks if not task.claimed]
        for task in waiting:
            task._state = PENDING
            if task.sent_call is not None:
                task.call, task.sent_call, task.data = task.sent_call, None, b""
                self.steward.call()
        self.queue.put_back(waiting)

    def _send(self, seat: Seat, tasks: list[TaskFuture]) -> bool:
        try:
            seat.send(tasks)
        except MessageTooLargeError as error:
            self.steward.refuse(tasks.pop(0), error)
            return True
        except FabricError:  # its worker is given up, or the fabric closed: those who know of it settle the rest
            return False
        finally:  # after Ctrl-C too: what may have been sent, and was not noted down, is sent again
            unsent = [task for task in tasks if not self.crew.holds(task)]
            self.queue.put_back(unsent)
        if tasks[0].options.timeout is not None and not unsent:
            seat.solo = True
            self.steward.watch(tasks[0])
        if seat.taken >= seat.most:
            self.crew.recycle(seat, f"after {seat.taken:,} tasks")
        return len(unsent) < len(tasks)

    def best_seat(self, task: TaskFuture) -> Seat | None:
        """Return the worker with the least to do that has room; of idle ones the last that was given something."""
        best = None
        for seat in self.crew.seats.values():
            if seat.room() <= 0 or (task.options.timeout is not None and seat.in_flight):
                continue
            if best is None or (len(seat.in_flight), -seat.used) < (len(best.in_flight), -best.used):
                best = seat
        return best

    # What comes back.

    def deliver(self, seat: Seat, replies: Replied) -> Finish | None:
        """Take replies of one worker, in the thread that drains; what they make room for is sent first."""
        # Had Ctrl-C come here, replies would come again whose tasks are in flight no more.
        torn = self._finish(self._torn) if self._torn else []
        found = self._torn = []
        with self.lock:
            seat.take(replies.correlations(), replies.bodies, found)
            if len(found) < len(replies.bodies):
                self.crew.forget_withdrawal(seat)
        called = torn + self._finish(found)
        self._torn = []
        return (lambda: run_callbacks(called)) if called else None

    def _finish(self, found: list[Outcome]) -> list[TaskFuture]:
        """Settle tasks that were answered, unless that was done; return those with callbacks."""
        with self.lock:
            found = [row for row in found if row[0]._state == RUNNING]
            if not _UNDONE.isdisjoint([type(body) for _, body in found]):
                found = self._without_undone(found)
            found = [row for row in found if row[0].claimed is DELIVERED or self.claim(row[0], DELIVERED)]
            self._patience = 0
            if self.queue.count:
                self.dispatch()
            else:
                self._idle = sum(not other.in_flight for other in self.crew.seats.values())
        rows = [
            (task, body, None) if type(body) not in NO_REPLIES else (task, *outcome(body, self.name_of(task)))
            for task, body in found
        ]
        return self.settle(rows)

    def _without_undone(self, found: list[Outcome]) -> list[Outcome]:
        """Have tasks run again that came back undone. With the lock held.

        Withdrawn: what is taken back lies behind the task in hand. If its worker dies of that one, the successor
        comes to it with no way to tell it from those behind it. Failed: the worker was killed when it was to leave.
        """
        kept: list[Outcome] = []
        for task, body in found:
            if type(body) is Withdrawn or (type(body) is Failed and self._may_be_retried(task, body.error)):
                task.returned += 1
                if task.returned < self.settings.config.max_attempts:
                    self.take_back([task])
                    continue
                if type(body) is Withdrawn:
                    body = Failed(PoisonMessageError("it", task.returned))
            kept.append((task, body))
        return kept

    def _may_be_retried(self, task: TaskFuture, error: FabricError) -> bool:
        return isinstance(error, WorkerLostError) and not task.options.once and not self.settings.strict

    # Waiting.

    def wait(self, future: TaskFuture, timeout: float | None) -> None:
        """Wait until a future is done, or the time is up, draining meanwhile."""
        deadline = deadline_of(timeout)
        waiter = Waiter()
        future._awaited.append(waiter)
        try:
            if not future.done():
                self.crew.wait(waiter, deadline)
        finally:
            future._awaited.remove(waiter)

    def wait_for(self, waiter: Waiter, deadline: float | None) -> bool:
        """Wait until somebody completes this, draining meanwhile. False: the time is up."""
        self.crew.wait(waiter, deadline)
        return waiter.done or deadline is None or time.monotonic() < deadline

    def look(self) -> None:
        """Take what has come, unless another thread does already."""
        self._since_look = 0
        self.crew.drain()

    def attend(self) -> None:
        """Have the steward drain: somebody waits who does not."""
        self.steward.attend()

    # Leaving.

    def leave(self, at_exit: bool = False) -> None:
        """Take no more tasks; the workers leave when those there are have been done. Returns at once."""
        with self.lock:
            if at_exit:
                self._closed_by = "interpreter shutdown"
            self.closing = True
        for run in list(self.runs):
            run.release()
        if self.steward.thread is not None:
            self.steward.attend()
            self.steward.call()

    def join(self) -> None:
        """Wait until the workers have left; in a callback, which runs in a thread that has to end before, do not."""
        if not self.crew.is_our_thread():
            self.steward.join()

    def call(self) -> None:
        """Have the steward do its chores."""
        try:
            self.steward.call()
        except RuntimeError as error:  # "can't start new thread"
            self.fail("its thread cannot be started", error)

    def forget_after_fork(self) -> None:
        """Be unusable in a forked child, which has neither the workers nor the steward; no lock can be relied on."""
        self.lock = threading.Lock()
        self.steward = Steward(self)
        self.closing = True
        self.broken = f"this pool belongs to process {os.getppid()}: a forked child makes one of its own"
        self.steward.done = True


def _after_fork() -> None:
    for pool in list(_pools):
        pool.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
