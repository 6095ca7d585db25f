"""Hold what somebody waits for: one entry for each question, or for many that were asked together.

An entry is completed by whichever thread drains the lanes. Its owner may be that thread, or sleep on the
entry's lock until it is done.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from fabric.errors import FabricError
from fabric.messages import INDEX_MASK, ErrorInfo
from fabric.remote_errors import Undecodable, revive

Finish = Callable[[], None]


def deadline_of(timeout: float | None) -> float | None:
    """Return when a timeout that begins now ends, in monotonic seconds.

    Raises:
        ValueError: it is not a number.
    """
    if timeout is None:
        return None
    if timeout != timeout:
        raise ValueError("timeout=nan says nothing: give seconds, or None to wait for ever")
    return time.monotonic() + timeout


def seconds_left(deadline: float | None) -> float | None:
    """Return how many seconds there are until a deadline, 0 when it has passed; None: there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Replied(Protocol):
    """Replies that arrived together, of one entry: a receiver.Received, or one of its records."""

    bodies: list[Any]
    correlation: int  # of the first
    step: int  # from each to the next; 0 when it varies

    def correlations(self) -> list[int]: ...


class Single:
    """One reply of a batch that belongs to several entries."""

    __slots__ = ("bodies", "correlation", "step")

    def __init__(self, correlation: int, body: Any) -> None:
        self.bodies = [body]
        self.correlation = correlation
        self.step = 0

    def correlations(self) -> list[int]:
        """The correlation id, as a list."""
        return [self.correlation]


class Entry:
    """What one thread waits for. `accept` and `fail` run in the draining thread."""

    __slots__ = ("done", "lock", "slots")
    stays = False  # is more to come although it is done? Then whoever owns it says when it is forgotten

    def __init__(self, slots: Sequence[int]) -> None:
        self.done = False
        self.lock: threading.Lock | None = None  # made when its owner sleeps
        self.slots = slots  # workers that owe an answer

    def is_done(self) -> bool:
        """Is nothing owed any more?"""
        return self.done

    def accept(self, replies: Replied) -> Finish | None:
        """Take replies; return what is to be done outside the lanes, if anything."""
        raise NotImplementedError

    def fail(self, slot: int, error: FabricError) -> Finish | None:
        """Give up what this worker owes."""
        raise NotImplementedError

    def complete(self) -> None:
        """Say that nothing more is owed, and wake the owner."""
        self.done = True
        lock = self.lock
        if lock is not None:
            wake(lock)


class One(Entry):
    """One question of a thread that waits for it."""

    __slots__ = ("value",)

    def __init__(self, slot: int) -> None:
        self.done = False  # as Entry does; this is made for each ask, and a call of super() is 100 ns
        self.lock = None
        self.slots = (slot,)
        self.value: Any = None

    def accept(self, replies: Replied) -> None:
        self.value = replies.bodies[0]
        self.done = True  # as `complete` does
        if self.lock is not None:
            wake(self.lock)

    def fail(self, slot: int, error: FabricError) -> None:
        self.value = Failed(error)
        self.complete()


class Many(Entry):
    """Questions asked together: replies by index. `slots[i]` owes reply i."""

    __slots__ = ("_came", "failed", "owed", "replies")

    def __init__(self, slots: Sequence[int]) -> None:
        super().__init__(slots)
        self.replies: list[Any] = [None] * len(slots)
        self.failed = False
        self._came = bytearray(len(slots))  # 1 where a reply came: a dead worker's may come twice
        self.owed = len(slots)

    def accept(self, replies: Replied) -> None:
        first, bodies, step = replies.correlation & INDEX_MASK, replies.bodies, replies.step
        count = len(bodies)
        if count > 1 and 0 < step <= INDEX_MASK:
            if first + (count - 1) * step >= len(self.replies):
                raise IndexError("more replies than there were questions")
            where = slice(first, first + (count - 1) * step + 1, step)
            again = 1 in self._came[where]
        else:
            again = True
        if again:
            self._accept_singly(replies)
        else:
            self.replies[where] = bodies
            self._came[where] = b"\1" * count
        if not self.failed:
            self.failed = not {ErrorInfo, Undecodable}.isdisjoint(map(type, bodies))
        self.owed -= count
        self._complete_if_all_came()

    def _accept_singly(self, replies: Replied) -> None:
        """Take each that is the first: what comes again, from a successor, may be an error where the first was none."""
        indexes = [correlation & INDEX_MASK for correlation in replies.correlations()]
        if max(indexes) >= len(self.replies):
            raise IndexError("a reply to none of the questions")
        for index, body in zip(indexes, replies.bodies, strict=True):
            if not self._came[index]:
                self.replies[index] = body
                self._came[index] = 1

    def fail(self, slot: int, error: FabricError) -> None:
        failed = Failed(error)
        for index, owing in enumerate(self.slots):
            if owing == slot and not self._came[index]:
                self.replies[index] = failed
                self._came[index] = 1
        self.failed = True
        self.owed = 0
        self._complete_if_all_came()

    def _complete_if_all_came(self) -> None:
        if self.owed <= 0:
            self.owed = self._came.count(0)  # the truth; the running count is off when replies came twice
            if self.owed == 0 and not self.done:
                self.complete()


class Promise(Entry):
    """One question whose answer goes to a Future, or to a function."""

    __slots__ = ("_deliver",)

    def __init__(self, slot: int, deliver: Callable[[Any], None]) -> None:
        super().__init__((slot,))
        self._deliver = deliver

    def accept(self, replies: Replied) -> Finish:
        value = replies.bodies[0]
        self.done = True
        return lambda: self._deliver(value)

    def fail(self, slot: int, error: FabricError) -> Finish:
        value = Failed(error)
        self.done = True
        return lambda: self._deliver(value)


class Failed:
    """Stands for a reply that will not come."""

    __slots__ = ("error",)

    def __init__(self, error: FabricError) -> None:
        self.error = error


NO_REPLIES = frozenset({ErrorInfo, Undecodable, Failed})


def error_in(body: Any, allow_pickle: bool = True) -> BaseException | None:
    """Return the error that a reply stands for, None when it is a reply."""
    kind = type(body)
    if kind is ErrorInfo:
        return revive(body, allow_pickle)
    if kind is Undecodable or kind is Failed:
        return body.error  # type: ignore[no-any-return]
    return None


def settle(future: "Future[Any]", body: Any, allow_pickle: bool) -> None:
    """Put a reply into a future, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    error = error_in(body, allow_pickle)
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(body)


def wake(lock: threading.Lock) -> None:
    """Release the lock that a thread sleeps on; it may be awake already."""
    with contextlib.suppress(RuntimeError):
        lock.release()
