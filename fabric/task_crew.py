"""Keep the workers of a task pool: a fabric, and a seat for each of its workers.

wanted     how many workers there should be; who submits counts it up
grow       the steward starts what is missing, all at once, and makes a runner in each: then they have seats
changed    the supervisor thread says whose worker died, was recycled, or is given up
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import psutil

from fabric.coordinator import Fabric
from fabric.counters import WAITED_NS
from fabric.errors import FabricError, SpawnError, WorkerLostError
from fabric.inheriting import dumps
from fabric.messages import COORDINATOR
from fabric.pending import Entry, Finish, Replied
from fabric.recycling import RecyclePolicy, Service
from fabric.seat import Seat
from fabric.task_future import TaskFuture, TaskOptions
from fabric.task_runner import Setup
from fabric.task_settings import PoolSettings, authkey

_log = logging.getLogger("fabric")
ABRUPTLY = "A child process terminated abruptly, the process pool is not usable anymore"
_LOOK = 1.0  # seconds from look to look at how old workers are, and how large
_TARGET = 0.002  # seconds of work that a worker has ahead: a wake-up is a fortieth of that


class Pool(Protocol):
    """The part of fabric.task_pool.TaskPool that its crew needs."""

    lock: threading.Lock

    def dispatch(self) -> None: ...
    def take_back(self, tasks: list[TaskFuture]) -> None: ...
    def deliver(self, seat: Seat, replies: Replied) -> Finish | None: ...
    def fail(self, text: str, cause: BaseException | None = None) -> None: ...
    def call(self) -> None: ...


class TaskCrew:
    """The workers of one pool. `grow` and `close` are the steward's; the rest may be called by any thread."""

    def __init__(self, settings: PoolSettings, pool: Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._grown = threading.Condition()
        self._policy = RecyclePolicy(max_seconds=settings.max_seconds, max_growth_bytes=settings.max_growth)
        self._modes = {settings.once}  # the ways of treating a crash that tasks asked for
        self.fabric: Fabric | None = None
        self.wanted = 0
        self.seats: dict[int, Seat] = {}
        self.closed = False

    def want(self, workers: int) -> None:
        """Have so many workers from soon on, if there are not more already."""
        with self._pool.lock:
            self.wanted = max(self.wanted, min(workers, self._settings.max_workers))
        self._pool.call()

    def want_one_more(self) -> None:
        """Have one more worker soon."""
        self.want(self._settings.max_workers if self._settings.all_at_once else self.wanted + 1)

    def need(self, once: bool) -> None:
        """Have a runner in each worker for tasks that are treated so."""
        if once not in self._modes:
            self._modes.add(once)
            self._pool.call()

    def ready(self, options: TaskOptions) -> Iterable[Seat]:
        """Return the seats that can take such a task. With the lock held."""
        seats = self.seats.values()
        return seats if len(self._modes) == 1 else [seat for seat in seats if options.once in seat.runners]

    def wait(self, entry: Entry, deadline: float | None) -> None:
        """Wait for an entry: drain, or wait until there is something to drain."""
        with self._grown:
            fabric = self.fabric
            while fabric is None and not entry.done:
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._grown.wait(left):
                    return
                fabric = self.fabric
        if fabric is not None:
            fabric._replies.wait(entry, deadline)

    def drain(self) -> None:
        """Take what has come, unless another thread does already."""
        fabric = self.fabric
        if fabric is not None:
            fabric._replies.drain_if_free()

    def wake(self) -> None:
        """Have whoever sleeps over the lanes look whether it still has to."""
        fabric = self.fabric
        if fabric is not None:
            fabric._replies.wake_leader()

    def run_later(self, job: Callable[[], None]) -> None:
        """Run a user's function in the pump; here, where there is none any more."""
        fabric = self.fabric
        if fabric is None:
            job()
        else:
            fabric._replies.run_later(job)
            fabric._replies.run_left()

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until there are as many workers as are wanted, or there will not be."""
        with self._grown:
            self._grown.wait_for(lambda: self.closed or len(self.seats) >= self.wanted, timeout)

    def settled_pids(self) -> dict[int, int]:
        """Return the processes of all workers that are wanted by now; waits until they have started."""
        self.settle()
        return self.pids()

    def pids(self) -> dict[int, int]:
        """Return the processes of the workers: pid by slot."""
        fabric = self.fabric
        if fabric is None or self.closed:
            return {}
        return {slot: worker.pid for slot, worker in fabric._supervisor.crew.workers.items()}

    # The steward's.

    @property
    def may_grow(self) -> bool:
        """Is there something for `grow` to do?"""
        modes = len(self._modes)
        return len(self.seats) < self.wanted or any(len(seat.runners) < modes for seat in self.seats.values())

    def grow(self) -> None:
        """Start the workers that are wanted, and give them seats.

        Raises:
            FabricError: they cannot be started, or their initializer raised (SpawnError).
        """
        try:
            if self.fabric is None:
                self._open(self.wanted)
            assert self.fabric is not None
            slots = self.fabric._supervisor.slots
            if len(slots) < self.wanted:
                self.fabric.resize(self.wanted)
                slots = self.fabric._supervisor.slots
            for once in sorted(self._modes, key=lambda mode: mode != self._settings.once):
                self._make_runners([slot for slot in slots if not self._has(slot, once)], once)
        finally:
            with self._grown:
                self._grown.notify_all()

    def _has(self, slot: int, once: bool) -> bool:
        return slot in self.seats and once in self.seats[slot].runners

    def _open(self, workers: int) -> None:
        fabric = Fabric(workers, config=self._settings.config)
        fabric._tells_dropped = False  # of a task that is not run its future tells, or it was cancelled
        fabric._supervisor.watchers.append(self._changed)
        with self._grown:
            self.fabric = fabric
            self._grown.notify_all()

    def _make_runners(self, slots: list[int], once: bool) -> None:
        """Make a runner in each of these workers, which have one less than the others: there they are placed."""
        if not slots:
            return
        fabric, settings = self.fabric, self._settings
        assert fabric is not None
        first = once == settings.once  # of a worker; the initializer runs once
        setup = Setup(settings.initializer, settings.initargs, authkey()) if first else Setup()
        runners = fabric.spawn_batch(
            settings.runner, len(slots), args=(dumps(setup),), placement="least_loaded", on_crash=_crash(once)
        )
        slot_of = fabric._switchboard.slot_of
        with self._pool.lock:
            for runner in runners:
                seat = self._seat(slot_of(runner.address))
                seat.runners[once] = runner
            self._pool.dispatch()

    def _seat(self, slot: int) -> Seat:
        seat = self.seats.get(slot)
        if seat is None:
            assert self.fabric is not None
            switchboard = self.fabric._switchboard
            most = self._settings.max_tasks or math.inf
            waited = self.fabric._segment.counters_of(slot)[WAITED_NS : WAITED_NS + 1]
            seat = Seat(slot, switchboard._senders[slot], _TARGET, self._pool.deliver, most, waited)
            seat.first_token = switchboard.replies.expect(seat)
            self.seats[slot] = seat
        return seat

    def _changed(self, slot: int, error: WorkerLostError | None, given_up: bool) -> None:
        """Hear that a worker is gone: it died of this error, or was recycled. In the supervisor thread."""
        with self._pool.lock:
            seat = self.seats.get(slot)
            if seat is not None:
                seat.forget_worker()
            if given_up:
                self.seats.pop(slot, None)
                self.wanted -= 1
        if error is not None and self._settings.strict:
            self._pool.fail(ABRUPTLY, error)
        elif given_up and not self.seats:
            self._pool.fail(f"{ABRUPTLY}: {error}", error)
        self._pool.call()

    # Stopping and replacing.

    def holds(self, task: TaskFuture) -> bool:
        """Has the worker that a task was sent to not answered it yet?"""
        seat = self.seats.get(task.slot)
        return seat is not None and seat.in_flight.get(task.index) is task

    def end(self, task: TaskFuture, why: str) -> bool:
        """Kill the process that runs a task, if it does now; the task is not run again."""
        seat = self.seats.get(task.slot)
        if seat is None or self.fabric is None:
            return False
        return self.fabric._supervisor.end_question(task.slot, {seat.first_token | task.index}, why)

    def withdraw(self, seat: Seat) -> None:
        """Take back what a worker has behind the task in hand, for others to run. The steward's."""
        fabric, pool = self.fabric, self._pool
        assert fabric is not None
        segment = fabric._segment

        def take_back(correlation: int) -> None:
            with pool.lock:
                tasks = seat.withdraw(correlation)
                if tasks:
                    segment.withdrawals()[seat.slot] = segment.tail_of(COORDINATOR, seat.slot)
                    pool.take_back(tasks)

        if fabric._supervisor.interrupt(seat.slot, take_back):
            with pool.lock:
                seat.heard = time.monotonic()  # not again at once
                pool.dispatch()

    def forget_withdrawal(self, seat: Seat) -> None:
        """Have a worker look no more for what was taken back, when it has come to all of it. With the lock held."""
        if not seat.withdrawn and self.fabric is not None:
            self.fabric._segment.withdrawals()[seat.slot] = 0

    def recycle(self, seat: Seat, reason: str) -> None:
        """Have a worker replaced when it has done what it was sent. Waits for nothing; with the lock held."""
        assert self.fabric is not None
        seat.forget_worker()
        self.fabric._supervisor.recycle(seat.slot, reason)

    @property
    def ages(self) -> bool:
        """Is it to be looked now and then whether workers are old, or have grown?"""
        return self._settings.max_seconds is not None or self._settings.max_growth is not None

    def renew(self, now: float) -> float:
        """Have those workers replaced that are old, or have grown; return the seconds until the next look."""
        pids, due = self.pids(), now + _LOOK
        with self._pool.lock:
            for seat in self.seats.values():
                service = seat.service = seat.service or Service(self._policy, now)
                reason = service.finished(0, now)
                if reason is None and seat.taken > len(seat.in_flight):
                    reason = service.measured(_resident_bytes(pids.get(seat.slot, 0)))
                if reason is not None:
                    self.recycle(seat, reason)
                due = min(due, service.due or due)
        return max(0.01, due - now)

    def make_do(self, error: FabricError) -> None:
        """Take note that no more workers can be started; those there are go on."""
        _log.warning("the pool goes on with %d workers: %s", len(self.seats), error)
        with self._pool.lock:
            self.wanted = len(self.seats)

    def close(self) -> None:
        """Have the workers leave, and wait until they have. What they have in hand is dropped."""
        fabric = self.fabric
        try:
            if fabric is not None:
                fabric.close(drain=False)
        finally:
            for seat in self.seats.values():
                seat.waited = (0,)  # the memory goes with the fabric
            with self._grown:
                self.closed = True
                self._grown.notify_all()


def _crash(once: bool) -> Any:
    return "fail" if once else "retry"


def why_not_started(error: BaseException) -> tuple[str, BaseException]:
    """Return what to tell those whose tasks cannot be run, and the error behind it."""
    if isinstance(error, SpawnError) and error.failures:
        cause = next(iter(error.failures.values()))
        if isinstance(cause, BaseException):
            return f"the initializer of a worker raised {type(cause).__name__}: {cause}", cause
        return f"the initializer of a worker failed: {cause}", error
    return f"the workers cannot be started: {error}", error


def _resident_bytes(pid: int) -> int:
    """Return the memory that a process has; 0 for one that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
