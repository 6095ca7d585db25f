"""Be the Future of a task, light: what only some callers need is made when they first ask for it.

    Future (the standard library's)     2.6 us: it makes a Condition and two lists, whoever waits or not
    TaskFuture                          0.4 us; `result()` drains the lanes itself, with no Condition at all

`concurrent.futures.wait`, `as_completed` and asyncio use `_condition`, `_waiters` and `_done_callbacks`, which
come into being then. No lock joins the two sides. Who finishes: 1. stores the state, 2. looks for a condition.
Who waits: 1. makes the condition, 2. looks at the state. So at least one of them sees the other (there is
one order of all stores and loads under the GIL).
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import Any, Protocol

from fabric.parcel import Data
from fabric.pending import Entry


class TaskOptions:
    """How a task is treated: shared by all tasks of one view of an executor."""

    __slots__ = ("once", "priority", "timeout")

    def __init__(self, timeout: float | None = None, priority: int = 0, once: bool = False) -> None:
        self.timeout = timeout  # seconds that it may run
        self.priority = priority  # higher goes first
        self.once = once  # on_crash="fail"


class Owner(Protocol):
    """The part of fabric.task_pool.TaskPool that its futures need."""

    def attend(self) -> None: ...
    def look(self) -> None: ...
    def wait(self, future: "TaskFuture", timeout: float | None) -> None: ...
    def cancel(self, future: "TaskFuture") -> bool: ...
    def cancel_waiting(self, task: "TaskFuture") -> None: ...


class Waiter(Entry):
    """One thread's waiting for one future."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(())


class _Lazy:
    """An attribute of a future that is made when it is first looked at; then it is an ordinary one."""

    def __init__(self, make: Any, attends: bool = False) -> None:
        self._make = make
        self._attends = attends

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: Any, owner: type) -> Any:
        if future is None:
            return self
        future._watched = True  # before anything is made: who finishes looks at this after it has stored the state
        value = future.__dict__.setdefault(self._name, self._make())  # one of two threads wins
        if self._attends:
            future._owner.attend()
        return value


class TaskFuture(Future[Any]):
    """The Future of one task, and the task itself while it waits to be sent."""

    _state = PENDING
    _watched = False  # was anything of what follows made?
    _result: Any = None
    _exception: BaseException | None = None
    _condition = _Lazy(threading.Condition, attends=True)
    _waiters = _Lazy(list)
    _done_callbacks = _Lazy(list)
    _awaited = _Lazy(list)  # Waiters of threads in result()

    slot = 0  # of the worker that it was sent to
    index = 0  # of its correlation id
    sent_at = 0.0
    claimed = ""  # by whom it is settled, or about to be. Guarded by the owner's lock
    call: Any = None  # what is to be encoded when it is sent, because it is large; None: `data` is it
    sent_call: Any = None  # of a large one, when it is encoded: what lies in the arena is for one worker, once
    data: Data = b""
    sent_bytes = 0  # of `data`, which is let go of before its worker has answered, if it is stopped
    encoding = 0
    size = 0  # bytes of a chunk's pickle
    returned = 0  # times that it came back undone
    function: Any = None  # what it calls: for errors, that they can name it
    follower: Callable[["TaskFuture"], None] | None = None  # told in the draining thread when it is done

    def __init__(self, owner: Owner, options: TaskOptions) -> None:
        # Not the base class's: it makes what is made lazily here.
        self._owner = owner
        self.options = options

    def done(self) -> bool:
        """Is there a result, an exception, or was it cancelled? Looks whether a reply has come."""
        if self._state in (PENDING, RUNNING):
            self._owner.look()
        return self._state not in (PENDING, RUNNING)

    def running(self) -> bool:
        """Was it handed to a worker, and is not done?"""
        if self._state == RUNNING:
            self._owner.look()
        return self._state == RUNNING

    def result(self, timeout: float | None = None) -> Any:
        """Return what the task returned; raise what it raised. Waits `timeout` seconds at the most."""
        if self._state != FINISHED:
            self._wait(timeout)
        error = self._exception
        if error is None:
            return self._result
        try:
            raise error
        finally:
            error = self = None  # type: ignore[assignment]  # the traceback would keep both in a cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, None for nothing."""
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    def _wait(self, timeout: float | None) -> None:
        if self._state in (PENDING, RUNNING):
            self._owner.wait(self, timeout)
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            raise CancelledError
        if self._state != FINISHED:
            raise TimeoutError

    def cancel(self) -> bool:
        """Cancel the task: one that runs is stopped, and its worker replaced. False: it is done already."""
        if self._state in (PENDING, RUNNING):
            return self._owner.cancel(self)
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def forget_call(self) -> None:
        """Let go of the function and its arguments."""
        self.call = self.sent_call = self.function = None
        self.data = b""

    def take_follower(self) -> Callable[["TaskFuture"], None] | None:
        """Return who is to be told that the task is done: to one caller only, and None to all others."""
        follower: Callable[[TaskFuture], None] | None = self.__dict__.pop("follower", None)
        return follower

    def follow(self, follower: Callable[["TaskFuture"], None]) -> None:
        """Have this called when the task is done: ours, and quick. Now, if it is done already.

        Who settles the task stores its state and then takes the follower; this stores the follower and then looks at
        the state. So one of them takes it.
        """
        self.follower = follower
        if self._state not in (PENDING, RUNNING) and self.take_follower() is not None:
            follower(self)

    def cancel_waiting(self) -> None:
        """Cancel the task, unless a worker has it."""
        self._owner.cancel_waiting(self)

    def set_cancelled(self) -> None:
        """Be cancelled, and tell all who wait. The pool only, for a task that it has let go of."""
        self._state = PENDING  # what the base class cancels
        super().cancel()
        self.set_running_or_notify_cancel()
        self._wake()

    def settle(self, value: Any, error: BaseException | None) -> bool:
        """Take the outcome, and wake those who wait. True: there are callbacks, and `run_callbacks` is to be called.

        The pool only. Unlike set_result it runs no function of the user's.
        """
        self._exception = error
        self._result = value
        self._state = FINISHED
        if not self._watched:
            return False
        made = self.__dict__
        if "_awaited" in made:
            self._wake()
        condition = made.get("_condition")
        if condition is None:
            return False
        with condition:
            condition.notify_all()
            for waiter in self._waiters:
                if error is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            return bool(self._done_callbacks)

    def run_callbacks(self) -> None:
        """Call those who asked for it; what they raise is logged."""
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def _wake(self) -> None:
        for waiter in list(self._awaited):
            waiter.complete()
