"""Keep the workers of a task pool: a fabric, and a seat for each of its workers.

wanted     how many workers there should be; who submits counts it up
grow       the steward starts what is missing, all at once, and makes a runner in each: then they have seats
changed    the supervisor thread says whose worker died, was recycled, or is given up
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil

from fabric.agent import AgentGroup
from fabric.coordinator import Fabric
from fabric.counters import WAITED_NS
from fabric.errors import FabricError, SpawnError, WorkerLostError
from fabric.guarded_log import GuardedLogger
from fabric.inheriting import dumps
from fabric.messages import COORDINATOR, DeadLetter
from fabric.pending import Entry, Finish, Replied
from fabric.recycling import RecyclePolicy, Service
from fabric.seat import Seat
from fabric.task_future import TaskFuture
from fabric.task_runner import Setup
from fabric.task_settings import PoolSettings, authkey

_log = GuardedLogger("fabric")
ABRUPTLY = "A child process terminated abruptly, the process pool is not usable anymore"
_LOOK = 1.0  # seconds from look to look at how old workers are, and how large
_TARGET = 0.002  # seconds of work that a worker has ahead: a wake-up is a fortieth of that


class Pool(Protocol):
    """The part of fabric.task_pool.TaskPool that its crew needs."""

    lock: threading.Lock
    settings: PoolSettings

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
        self.fabric: Fabric | None = None
        self.wanted = 0
        self.seats: dict[int, Seat] = {}
        self._addresses: set[int] = set()  # of all runners
        self._leaving: dict[int, int] = {}  # by slot: the process that was told to leave
        self.closed = False

    def want(self, workers: int) -> None:
        """Have so many workers from soon on, if there are not more already."""
        with self._pool.lock:
            self.wanted = max(self.wanted, min(workers, self._settings.max_workers))
        self._pool.call()

    def want_one_more(self) -> None:
        """Have one more worker soon."""
        self.want(self._settings.max_workers if self._settings.all_at_once else self.wanted + 1)

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
        return len(self.seats) < self.wanted

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
            self._make_seats([slot for slot in slots if slot not in self.seats])
        finally:
            with self._grown:
                self._grown.notify_all()

    def _open(self, workers: int) -> None:
        fabric = Fabric(workers, config=self._settings.config, on_error=self._hear)
        fabric._tells_dropped = False  # of a task that is not run its future tells, or it was cancelled
        fabric._supervisor.watchers.append(self._changed)
        with self._grown:
            self.fabric = fabric
            self._grown.notify_all()

    def _make_seats(self, slots: list[int]) -> None:
        """Make the runners of these workers, while they have nothing to do, and give them tasks."""
        fabric, settings = self.fabric, self._settings
        assert fabric is not None
        setup = Setup(settings.initializer, settings.initargs, authkey())
        made: dict[bool, AgentGroup] = {}
        for once in (
            settings.once,
            not settings.once,
        ):  # these workers have one less than the others: there it is placed
            made[once] = fabric.spawn_batch(
                settings.runner, len(slots), args=(dumps(setup),), placement="least_loaded", on_crash=_crash(once)
            )
            setup = Setup()  # the initializer runs once in a worker
        slot_of = fabric._switchboard.slot_of
        with self._pool.lock:
            alive = fabric._supervisor.slots
            for once, runners in made.items():
                for runner in runners:
                    self._addresses.add(runner.address)
                    slot = slot_of(runner.address)
                    if slot in alive:  # else it was given up meanwhile
                        self._seat(slot).runners[once] = runner
            self._pool.dispatch()

    def _hear(self, letter: DeadLetter) -> None:
        """Hear that a successor could not make its runner: without a message, since nobody tells one anything."""
        if letter.agent in self._addresses and letter.body is None:
            self._pool.fail(*why_not_started(SpawnError("", {0: letter.error.__cause__ or letter.error})))

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
                seat.forget_worker(with_tasks=True)
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
        return self.fabric._supervisor.end_question(task.slot, _Awaited(seat, task.index), why)

    def has_begun(self, task: TaskFuture) -> bool:
        """Has the worker that a task was sent to got it in hand? It may be about to start."""
        seat = self.seats.get(task.slot)
        if seat is None or self.fabric is None:
            return False
        return self.fabric._supervisor.has_in_hand(task.slot, seat.first_token | task.index)

    def is_our_thread(self) -> bool:
        """Is this one of the threads that end with the fabric?"""
        fabric, current = self.fabric, threading.current_thread()
        return fabric is not None and current in (fabric._replies.pump, fabric._supervisor.crew.watcher)

    def withdraw(self, seat: Seat) -> None:
        """Take back what a worker has behind the task in hand, for others to run. The steward's."""
        fabric, pool = self.fabric, self._pool
        assert fabric is not None
        segment = fabric._segment
        taken = 0

        def take_back(correlation: int) -> None:
            nonlocal taken
            with pool.lock:
                tasks = seat.withdraw(correlation)
                taken = len(tasks)
                if tasks:
                    segment.withdrawals()[seat.slot] = segment.tail_of(COORDINATOR, seat.slot)
                    pool.take_back(tasks)

        if fabric._supervisor.interrupt(seat.slot, take_back):
            with pool.lock:
                seat.heard = time.monotonic() + (0 if taken else _LOOK)  # not again at once
                pool.dispatch()

    def hurry(self, seat: Seat) -> None:
        """Have a worker send the replies of what it has done before the task in hand. The steward's."""
        assert self.fabric is not None
        seat.hurried = seat.heard
        self.fabric._supervisor.hurry(seat.slot)

    def forget_withdrawal(self, seat: Seat) -> None:
        """Have a worker look no more for what was taken back, when it has come to all of it. With the lock held."""
        if not seat.withdrawn and self.fabric is not None:
            self.fabric._segment.withdrawals()[seat.slot] = 0

    def recycle(self, seat: Seat, reason: str) -> None:
        """Have a worker replaced when it has done what it was sent. Waits for nothing; with the lock held."""
        assert self.fabric is not None
        seat.forget_worker(with_tasks=False)
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
                if pids.get(seat.slot) == self._leaving.get(seat.slot, -1):
                    continue  # it is told already, and has something in hand
                service = seat.service = seat.service or Service(self._policy, now)
                reason = service.finished(0, now)
                if reason is None and seat.taken > len(seat.in_flight):
                    resident = _resident_bytes(pids.get(seat.slot, 0))
                    reason = service.measured(resident) if resident else None
                if reason is not None:
                    self._leaving[seat.slot] = pids.get(seat.slot, 0)
                    self.recycle(seat, reason)
                due = min(due, service.due or due)
        return max(0.01, due - now)

    def make_do(self, error: FabricError) -> None:
        """Take note that no more workers can be started; those there are go on."""
        _log.warning("the pool goes on with %d workers: %s", len(self.seats), error)
        with self._pool.lock:
            self.wanted = len(self.seats)
        with self._grown:
            self._grown.notify_all()

    def close(self, at_once: bool = False) -> None:
        """Have the workers leave, and wait until they have; `at_once`: kill them in what they have in hand."""
        fabric = self.fabric
        try:
            if fabric is not None:
                if at_once:
                    fabric._supervisor.kill_all()
                fabric.close(drain=False)
        finally:
            for seat in self.seats.values():
                seat.waited = (0,)  # the memory goes with the fabric
            self._settings = self._pool.settings = dataclasses.replace(self._settings, initializer=None, initargs=())
            with self._grown:
                self.closed = True
                self._grown.notify_all()


class _Awaited:
    """Holds the correlation id of a task for as long as its worker has not answered it."""

    def __init__(self, seat: Seat, index: int) -> None:
        self._seat = seat
        self._index = index

    def __contains__(self, correlation: object) -> bool:
        return correlation == self._seat.first_token | self._index and self._index in self._seat.in_flight


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
