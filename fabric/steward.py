"""Look after a task pool when nobody else does, in a thread of its own: it exists from the first task to the last.

    chores                what may take long or has its time: starting workers, encoding large tasks, time limits,
                          recycling, leaving
    draining              only while nobody else drains: tasks whose caller does something else go on all the same

Whoever waits for a result drains itself, without a hop between threads. So this thread keeps out of the way: it
looks every few milliseconds whether anybody has drained since, and begins to do so if not; or at once, if somebody
waits in another way (`concurrent.futures.wait`, a callback, an event loop). It lets go when somebody wants to.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from fabric.errors import BackpressureError, FabricError
from fabric.guarded_log import GuardedLogger
from fabric.task_crew import why_not_started
from fabric.task_future import TaskFuture

_log = GuardedLogger("fabric")
_LAZY = 0.004  # seconds between two looks whether somebody drains
_LINGER = 0.25  # seconds without a task until the thread sleeps for as long as there is none
_STEP = 0.002  # seconds from try to try to stop a task, or to find room for a large one
_STUCK = 0.005  # seconds without an answer: what is behind the task in hand is better done by others
_PATIENCE = 0.02  # seconds that a large task waits for room in the arena while others run


class Steward:
    """The thread of one pool."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._bell = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._attended = False  # does somebody wait who does not drain?
        self._resting = False
        self._leading = False
        self._drains = 0
        self._limits: dict[TaskFuture, float | None] = {}  # when tasks are to be stopped; None: not begun yet
        self._over: dict[TaskFuture, str] = {}  # tasks that are to be stopped: why
        self._refused: list[tuple[TaskFuture, FabricError]] = []
        self._feeders: dict[Callable[[], None], None] = {}
        self._active = 0.0  # when there were tasks last
        self.done = False

    # Called by others.

    def call(self) -> None:
        """Have the chores done, now; start the thread if there is none.

        Raises:
            RuntimeError: no thread can be started.
        """
        if self._thread is None:
            with self._guard:
                if self._thread is None and not self.done:
                    thread = threading.Thread(target=self._run, name="fabric-steward", daemon=True)
                    thread.start()
                    self._thread = thread
        self._ring()

    def notice(self) -> None:
        """Take note that there are tasks; cheap, for it is called with each."""
        if self._resting:
            self._bell.set()

    def attend(self) -> None:
        """Drain from now on, until there is nothing to do."""
        if not self._attended:
            self._attended = True
            self._ring()

    def watch(self, task: TaskFuture) -> None:
        """Stop this task when its time is up; it was just sent. With the pool's lock held."""
        self._limits[task] = None
        self._ring()

    def feed(self, feeder: Callable[[], None]) -> None:
        """Have a map make more tasks: who iterates over it does something else."""
        self._feeders[feeder] = None
        self._ring()

    def stop(self, task: TaskFuture, why: str) -> None:
        """Have the process that runs this task killed. With the pool's lock held."""
        self._over[task] = why
        self._ring()

    def refuse(self, task: TaskFuture, error: FabricError) -> None:
        """Fail a task that cannot be sent. With the pool's lock held."""
        self._refused.append((task, error))
        self._ring()

    def join(self) -> None:
        """Wait until the thread has ended."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, None before the first task."""
        return self._thread

    def _ring(self) -> None:
        self._bell.set()
        if self._leading:
            self._pool.crew.fabric._replies.wake_leader()

    # The thread.

    def _run(self) -> None:
        try:
            while not self.done:
                self._turn()
        except BaseException as error:  # ours to explain: nobody is to wait for ever for what this thread would do
            self._pool.fail("its steward failed", error)
            self._pool.crew.close(at_once=True)
            self.done = True
            _log.exception("the steward of a task pool ended after")

    def _turn(self) -> None:
        pool = self._pool
        self._bell.clear()
        due = self._chores()
        if self.done:
            return
        now = time.monotonic()
        if pool.unfinished:
            self._active = now
            self._drain_or_wait(now, due)
            return
        self._attended = False
        self._resting = now - self._active > _LINGER
        if not pool.unfinished:  # else it came before it could see that we rest
            self._bell.wait(due if self._resting else _LAZY)
        self._resting = False

    def _drain_or_wait(self, now: float, due: float | None) -> None:
        fabric = self._pool.crew.fabric
        if fabric is None:
            self._bell.wait(due)
            return
        replies = fabric._replies
        idle, self._drains = replies.drains == self._drains, replies.drains
        if self._attended or idle:
            self._leading = True
            try:
                led = replies.lead_if_free(self._is_wanted, None if due is None else now + due)
            finally:
                self._leading = False
            self._drains = replies.drains
            if led and (self._bell.is_set() or not self._pool.unfinished):
                return
        self._bell.wait(_LAZY if due is None else min(due, _LAZY))

    def _is_wanted(self) -> bool:
        return self._bell.is_set() or not self._pool.unfinished

    def _chores(self) -> float | None:
        """Do what is due; return the seconds until something else is, None for nothing."""
        pool, crew = self._pool, self._pool.crew
        dues: list[float | None] = []
        if crew.may_grow and not pool.broken:
            self._grow()
        while self._refused:
            pool.settle_one(*self._refused.pop())
        while self._feeders:
            self._feed_one()
        if pool.broken is None and self._encode():
            dues.append(_STEP)
        if self._over or self._limits:
            dues.append(self._enforce_limits())
        if pool.unfinished and crew.seats:
            dues.append(self._unblock())
        if crew.ages and crew.seats and not pool.broken:
            dues.append(crew.renew(time.monotonic()))
        if pool.broken is not None or (pool.closing and not pool.unfinished):
            crew.close(at_once=pool.broken is not None)
            self.done = True
        return min((due for due in dues if due is not None), default=None)

    def _feed_one(self) -> None:
        feeder, _ = self._feeders.popitem()
        with contextlib.suppress(Exception):  # who iterates finds out, when it comes to that
            feeder()

    def _grow(self) -> None:
        """Start the workers that are wanted."""
        try:
            self._pool.crew.grow()
        except Exception as error:
            if self._pool.crew.seats and isinstance(error, FabricError):
                self._pool.crew.make_do(error)
            else:
                self._pool.fail(*why_not_started(error))

    def _unblock(self) -> float | None:
        """Have idle workers take what waits behind a long task, and hear of what was done before it.

        Returns the seconds until the next look.
        """
        pool, now = self._pool, time.monotonic()
        with pool.lock:
            seats = list(pool.crew.seats.values())
            blocked = [seat for seat in seats if len(seat.in_flight) > 1]
            idle = not pool.queue.count and any(not seat.in_flight and seat.room() > 0 for seat in seats)
        for seat in blocked:
            if now - seat.heard >= _STUCK:
                if seat.hurried != seat.heard:
                    pool.crew.hurry(seat)
                if idle:
                    pool.crew.withdraw(seat)
        return _STUCK if blocked else None

    # Large tasks.

    def _encode(self) -> bool:
        """Encode the large tasks whose turn it is; True: one waits for room in the arena."""
        pool = self._pool
        while True:
            with pool.lock:
                task = pool.queue.peek()
                if task is None or task.call is None:
                    pool.dispatch()
                    return False
                if pool.best_seat(task) is None:
                    return False
                pool.queue.pop()
                alone = not any(seat.in_flight for seat in pool.crew.seats.values())
            try:
                self._encode_one(task, alone)
            except (BackpressureError, TimeoutError) as error:
                if not alone:
                    with pool.lock:
                        pool.queue.put_back([task])
                    return True
                pool.settle_one(task, error)
            except Exception as error:
                pool.settle_one(task, error.__cause__ or error)

    def _encode_one(self, task: TaskFuture, alone: bool) -> None:
        pool = self._pool
        switchboard = pool.crew.fabric._switchboard
        patience = pool.settings.config.arena_timeout if alone else _PATIENCE
        task.encoding, task.data = switchboard._encode(task.call, None, patience)
        task.sent_call, task.call = task.call, None
        with pool.lock:
            if pool.broken is None:
                pool.queue.put_back([task])
                pool.dispatch()
                return
        pool.settle_one(task, pool.lost())  # it was in nobody's hands when the pool broke

    # Tasks that are stopped.

    def _enforce_limits(self) -> float | None:
        """Stop tasks whose time is up, and those cancelled while they ran; return the seconds until the next look."""
        crew, now = self._pool.crew, time.monotonic()
        waiting = [task for task, end in list(self._limits.items()) if end is None]
        begun = {task for task in waiting if crew.has_begun(task)}  # its worker may be starting: that is not its time
        with self._pool.lock:
            for task, end in list(self._limits.items()):
                limit = task.options.timeout or 0.0
                if task.claimed:
                    del self._limits[task]
                elif task in begun:
                    self._limits[task] = now + limit
                elif end is not None and now >= end:
                    del self._limits[task]
                    self._over[task] = f"over its time limit of {limit:g} s"
            over = [(task, why) for task, why in self._over.items() if crew.holds(task)]
            self._over = dict(over)
        for task, why in over:
            if crew.end(task, why):
                del self._over[task]
                if not task.claimed:
                    self._pool.settle_one(task, TimeoutError(f"the task {self._pool.name_of(task)} was {why}"))
        ends = list(self._limits.values())
        if self._over or None in ends:
            return _STEP
        return max(0.0, min(end for end in ends if end is not None) - now) if ends else None
