"""Be what the coordinator knows of one worker that runs tasks: what it has in hand, how much more it may have.

Tasks of a seat are numbered in the index of their correlation ids, whose token is the seat's: a batch of replies
is then taken by one entry in one go. A worker takes its tasks in order, so numbers come round long after their
tasks are done; a reply that comes twice, after a crash, finds its number gone.
"""

import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures._base import RUNNING
from typing import Any

from fabric.agent import AgentRef
from fabric.encoded import joined
from fabric.errors import FabricError
from fabric.messages import INDEX_MASK, MESSAGE, PICKLE
from fabric.pace import Pace
from fabric.pending import Entry, Failed, Finish, Replied
from fabric.recycling import Service
from fabric.sender import Sender, make_batch
from fabric.task_future import TaskFuture

_TOGETHER = 32  # tasks that are worth a message of their own to a worker that has others to do
_FOR_EVER = 1 << 60
_BYTES_AHEAD = 1 << 20  # of tasks in a lane: it never fills

Outcome = tuple[TaskFuture, Any]


class Seat(Entry):
    """One worker slot. All but `accept` and `fail` is called with the pool's lock held."""

    __slots__ = (
        "_deliver",
        "_next",
        "_senders",
        "bytes_ahead",
        "first_token",
        "heard",
        "hurried",
        "in_flight",
        "most",
        "pace",
        "runners",
        "service",
        "slot",
        "solo",
        "taken",
        "used",
        "waited",
        "withdrawn",
    )
    stays = True  # replies come as long as there is a worker

    def __init__(
        self,
        slot: int,
        sender: Sender,
        target: float,
        deliver: Callable[["Seat", Replied], Finish | None],
        most: float,
        waited: Sequence[int],
    ) -> None:
        """`most` is how many tasks a worker runs in its life, `waited` a word that says how long it waited, in ns."""
        super().__init__((slot,))
        self.slot = slot
        self.runners: dict[bool, AgentRef] = {}  # by TaskOptions.once
        self.first_token = 0  # correlation id of number 0
        self.in_flight: dict[int, TaskFuture] = {}
        self.bytes_ahead = 0
        self.pace = Pace(target)
        self.most = most
        self.waited = waited
        self.solo = False  # it has a task that may be stopped: nothing may be behind it
        self.heard = 0.0  # when it last answered, or was given something having had nothing
        self.hurried = 0.0  # `heard`, when it was last asked for what it has done
        self.withdrawn: set[int] = set()  # numbers of tasks that were taken back, until the worker has come to them
        self.taken = 0  # tasks that this worker was given in its life
        self.service: Service | None = None  # how long it has served, where that counts
        self.used = 0  # tasks that this seat was given, of all workers
        self._senders = sender
        self._next = 0
        self._deliver = deliver

    def accept(self, replies: Replied) -> Finish | None:
        """Take replies: see Entry."""
        return self._deliver(self, replies)

    def fail(self, slot: int, error: FabricError) -> Finish | None:
        """Give up what this worker owes: it has no successor, or its lane to us was garbled."""
        self.withdrawn.clear()
        return self._deliver(self, _Lost(self.first_token, list(self.in_flight), error))

    def room(self) -> int:
        """Return how many more tasks it may have."""
        if self.solo or self.withdrawn or self.bytes_ahead >= _BYTES_AHEAD:
            return 0
        return int(min(self.pace.limit - len(self.in_flight), self.most - self.taken))

    @property
    def patience(self) -> int:
        """How many tasks are to wait until they are sent together: some, while it has others to do."""
        if self.solo or self.withdrawn:
            return _FOR_EVER
        return min(_TOGETHER, self.pace.limit // 8) if self.in_flight else 0

    def bytes_left(self) -> int:
        """Return how many bytes of tasks it may still have."""
        return _BYTES_AHEAD - self.bytes_ahead

    def send(self, tasks: list[TaskFuture]) -> int:
        """Send tasks that are treated alike; return how many found room.

        Their numbers are given before anything is sent: whatever interrupts, none is given twice, and what was sent
        and not noted down is answered in vain.
        """
        now = time.monotonic()
        if not self.in_flight:
            self.pace.begin(now, self.waited[0] * 1e-9)
            self.heard = now
        tasks = tasks[: INDEX_MASK + 1 - self._next]  # numbers in a row
        first = self._next
        self._next = first + len(tasks) & INDEX_MASK
        sent = int(self._send_one(tasks[0], first)) if len(tasks) == 1 else self._send_batch(tasks, first)
        for index, task in enumerate(tasks[:sent], first):
            task.slot, task.index, task.sent_at = self.slot, index, now
            task.sent_bytes = len(task.data)
            task._state = RUNNING
            self.in_flight[index] = task
            self.bytes_ahead += task.sent_bytes
        self.taken += sent
        self.used += sent
        return sent

    def take(self, correlations: list[int], bodies: list[Any], found: list[Outcome]) -> None:
        """Put the tasks that these replies answer into `found`; those that answer none are left out.

        A task is there before it is no more in flight: after an interrupt the same replies come again.
        """
        in_flight = self.in_flight
        for correlation, body in zip(correlations, bodies, strict=True):
            number = correlation & INDEX_MASK
            task = in_flight.get(number)
            if task is not None:
                found.append((task, body))
                del in_flight[number]
                self.bytes_ahead -= task.sent_bytes
            elif self.withdrawn:
                self.withdrawn.discard(number)
        self.heard = now = time.monotonic()
        if found:
            self.pace.observe(len(found), now, self.waited[0] * 1e-9)
            self.solo = False

    def withdraw(self, correlation: int) -> list[TaskFuture]:
        """Take back the tasks behind that which the worker has in hand. It stands; what it has answered is not here."""
        numbers = list(self.in_flight)
        if correlation & ~INDEX_MASK != self.first_token or correlation & INDEX_MASK not in self.in_flight:
            return []
        behind = numbers[numbers.index(correlation & INDEX_MASK) + 1 :]
        tasks = [self.in_flight.pop(number) for number in behind]
        self.bytes_ahead -= sum(task.sent_bytes for task in tasks)
        self.withdrawn.update(behind)
        return tasks

    def forget_worker(self, with_tasks: bool) -> None:
        """Take note that another process takes over; `with_tasks`: what is in flight is its own to do."""
        self.taken = len(self.in_flight) if with_tasks else 0
        self.service = None
        self.pace.forget()

    def _send_one(self, task: TaskFuture, number: int) -> bool:
        address = self.runners[task.options.once].address
        meta = MESSAGE | task.encoding << 16
        return self._senders.send_one(meta, address, self.first_token | number, task.data)

    def _send_batch(self, tasks: list[TaskFuture], first: int) -> int:
        address = self.runners[tasks[0].options.once].address
        encoded = joined(PICKLE, None, [task.data for task in tasks])  # type: ignore[misc]  # none is a Parcel
        batch = make_batch(MESSAGE, encoded, address, len(tasks)).numbered_from(self.first_token | first)
        self._senders.put(batch)
        return batch.done


class _Lost:
    """Replies that will not come, as if they had."""

    step = 0

    def __init__(self, first: int, indexes: list[int], error: FabricError) -> None:
        self.correlation = first
        self.bodies: list[Any] = [Failed(error)] * len(indexes)
        self._correlations = array("Q", [first | index for index in indexes])

    def correlations(self) -> list[int]:
        """The correlation id of each."""
        return list(self._correlations)
