"""Handle messages where they are sent, for fabric.testing: no process, no thread, no shared memory.

Turns stands in the place of fabric.replies and of workers.loop: whoever waits gives batches to the hosts until
it has what it waits for.

    until(reached) ──▶ step: the next worker, or the coordinator, handles a batch ──▶ callbacks
                        │ nobody has one: coroutines run until each awaits something
                        │ none can: agents are made for the warm pool
                        ▼ nothing to do
                       the next message of tell_later, or what coroutines await outside: whichever is first
"""

import asyncio
import contextvars
import itertools
import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from fabric import counters as count
from fabric.agent import stand_in
from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.errors import FabricError
from fabric.inline_host import InlineHost
from fabric.inline_lanes import Batch, Lanes, Record
from fabric.inline_loop import SteppedLoop, running_loop
from fabric.messages import (
    CANCEL,
    COORDINATOR,
    CREDIT,
    FAILURE,
    INDEX_BITS,
    MESSAGE,
    REPLY,
    STREAM,
    PrewarmOrder,
    SpawnOrder,
    SpawnReport,
    StopOrder,
)
from fabric.pending import Entry, Single
from fabric.ring import HEADER_BYTES, QUIET
from fabric.unasked import Unasked
from fabric.workers.context import current_ticket
from fabric.workers.messenger import NO_WAITING

_log = logging.getLogger("fabric")
_LOOK = 1.0  # seconds to wait at a time for what coroutines await outside the fabric
_STUCK = "this wait would never end: no message is queued, and nothing is left that could bring about what it waits for"
_BLOCKED = (
    "this call blocks the event loop in which the agents' coroutines run: await ask_async() or ask_many_async() there"
)


class Turns:
    """Who waits, and the work that is done meanwhile. One thread."""

    def __init__(self, lanes: Lanes, codec: Codec, unasked: Unasked, batch_size: int) -> None:
        self.lanes = lanes
        lanes.busy, lanes.wake = self._in_hand, self.wake
        self.codec = codec
        self.hosts: dict[int, InlineHost] = {}
        self.own_loop = SteppedLoop()  # for coroutines, while none of the user's runs
        self.now = 0.0
        self.late = 0
        self.on_stray: Any = None  # no worker dies here
        self._unasked = unasked
        self._batch_size = batch_size
        self._pending: dict[int, Entry] = {}
        self._tokens = itertools.count(1)
        self._jobs: deque[Callable[[], None]] = deque()
        self._next = COORDINATOR
        self._handling = False
        self._settling = False  # a settle is on its way through the running event loop
        self._bell: asyncio.Future[None] | None = None

    # In the place of Replies.

    def expect(self, entry: Entry) -> int:
        """Register an entry; return the correlation id of its first question."""
        token = next(self._tokens)
        self._pending[token] = entry
        return token << INDEX_BITS

    def forget(self, correlation: int) -> None:
        """Wait no longer."""
        self._pending.pop(correlation >> INDEX_BITS, None)

    def wait(self, entry: Entry, deadline: float | None) -> bool:
        """Wait for an entry. False: nothing more happens, or the deadline has passed."""
        return self.until(entry.is_done, deadline)

    def wait_for(self, reached: Callable[[], bool], reason: int, deadline: float | None) -> bool:
        """Wait for a condition of the lanes (room, quiet). False as for `wait`."""
        came = self.until(reached, deadline)
        while reason == QUIET and any(host.warm.refill_one() for host in self.hosts.values()):
            pass
        return came

    def wait_for_returns(self, reached: Callable[[], bool], deadline: float) -> bool:
        """Wait for room in the arena; a handler does not."""
        return not self._inside and self.until(reached, deadline)

    def wake_pump(self) -> None:
        """Handle what is queued, unless a handler is in hand."""
        if not self._inside:
            self.settle()

    def run_later(self, job: Callable[[], None]) -> None:
        """Run a user's function when the batch in hand is handled."""
        self._jobs.append(job)

    def wake_and_drain(self) -> None:
        """Do as wake_pump."""
        self.wake_pump()

    def attend(self, correlation: int) -> None:
        """Handle what is queued: an event loop waits for what comes of it."""
        self.wake_pump()

    @property
    def outstanding(self) -> int:
        """How many entries are open."""
        return len(self._pending)

    def close(self, error: FabricError) -> None:
        """Fail what is still open, and close the event loop."""
        while self.lanes.queues[COORDINATOR]:
            self._receive(replies=False)
        for entry in list(self._pending.values()):
            for slot in set(entry.slots):
                finish = entry.fail(slot, error)
                if finish is not None:
                    self._jobs.append(finish)
        self._pending.clear()
        self._run_jobs()
        self.own_loop.close()

    # Turns.

    def until(self, reached: Callable[[], bool], deadline: float | None) -> bool:
        """Do all that there is to do until `reached`. False: it is not, and the deadline has passed or will.

        Raises:
            FabricError: called in a handler; or there is no deadline, and the wait would never end.
        """
        if self._inside:
            raise FabricError(NO_WAITING)
        while not reached():
            if not self.step() and not self._wait_outside(deadline):
                if deadline is None:
                    raise FabricError(_BLOCKED if self._busy() and running_loop() else _STUCK)
                return reached()
        return True

    def settle(self) -> None:
        """Do all that there is to do."""
        while self.step():
            pass

    def step(self) -> bool:
        """Have the next process handle a batch. False: there is nothing to do."""
        if self._inside:
            raise FabricError(NO_WAITING)
        for host in self.hosts.values():
            self._publish(host)
        for _ in range(self.lanes.processes):
            process = self._next
            self._next = (process + 1) % self.lanes.processes
            if process in self.hosts and self.hosts[process].streams.ready:
                with self._in(self.hosts[process]):
                    self.hosts[process].streams.turn()
                return True
            if self.lanes.queues[process]:
                if process == COORDINATOR:
                    self._receive()
                else:
                    self._work(self.hosts[process], process)
                self._run_jobs()
                return True
        if self._jobs:
            self._run_jobs()
            return True
        if self._busy() and running_loop() is None:
            return self._turn_coroutines(0.0)
        return any(host.warm.refill_one() for host in self.hosts.values())

    def fire_next(self, latest: float | None = None) -> bool:
        """Move the clock to the next message of tell_later, and send it. False: there is none, up to `latest`."""
        due = self._due()
        if due is None or (latest is not None and due > latest):
            return False
        self.now = max(self.now, due)
        for host in self.hosts.values():
            host.due_timers(self.now)
        return True

    def advance(self, seconds: float) -> None:
        """Move the clock, and do what falls due."""
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds!r} must be 0 or more: time does not go back")
        latest = self.now + seconds
        self.settle()
        while self.fire_next(latest):
            self.settle()
        self.now = latest

    def wake(self) -> None:
        """Take note that something was sent: where an event loop runs, it is handled in its next pass."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)
        loop = running_loop()
        if loop is not None and loop is not self.own_loop and not self._handling and not self._settling:
            self._settling = True
            loop.call_soon(self._settle_soon, context=contextvars.Context())

    @property
    def idle(self) -> bool:
        """Is nothing queued, and no coroutine in hand?"""
        return self.lanes.quiet()

    async def wait_quiet(self) -> None:
        """Wait until all is handled, with the coroutines that run in this event loop."""
        self.settle()
        while self._busy():
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell
            await asyncio.sleep(0)  # the task that woke us ends in this pass
            self.settle()

    # Workers.

    def hire(self, slot: int, identity: int, config: FabricConfig) -> None:
        """Pretend that a worker runs in this slot."""
        self.hosts[slot] = InlineHost(self, identity, config)

    def dismiss(self, slot: int) -> None:
        """Stop the agents of a worker, and forget it."""
        host = self.hosts[slot]
        with self._in(host):
            host.residents.stop_all()
        while host.busy_coroutines and running_loop() is None and self._turn_coroutines(0.0):
            pass
        self._publish(host)
        del self.hosts[slot]

    # The rest is private.

    @property
    def _inside(self) -> bool:
        return self._handling or current_ticket.get() is not None

    @contextmanager
    def _in(self, host: InlineHost) -> Iterator[None]:
        """Be in the process of a worker: references that arrive are its own."""
        self._handling = True
        stand_in(host)
        try:
            yield
        finally:
            host.end()
            host.stretch = None
            self._handling = False
            stand_in(None)
            self._publish(host)

    def _work(self, host: InlineHost, slot: int) -> None:
        records = self.lanes.take(slot, self._batch_size)
        with self._in(host):
            batch = Batch(records, self.codec, self.lanes.arena)
            host.counters[count.RECEIVED] += batch.count
            host.counters[count.BATCHES] += 1
            host.counters[count.BYTES_IN] += sum(len(record.body) + HEADER_BYTES for record in records)
            if batch.kind in (MESSAGE, STREAM):
                self._handle(host, batch)
            elif batch.kind in (CREDIT, CANCEL):
                for record, body in zip(batch.records, batch.bodies, strict=True):
                    if batch.kind == CREDIT:
                        host.streams.credit(record.sender, record.correlation, body)
                    else:
                        host.streams.cancel(record.sender, record.correlation)
            elif batch.kind == REPLY:
                for correlation, body in zip(batch.correlations(), batch.bodies, strict=True):
                    host.counters[count.LATE_REPLIES] += not host.resolve(correlation, body)
            else:
                self._obey(host, batch)

    def _handle(self, host: InlineHost, batch: Batch) -> None:
        host.begin(batch)
        first = 0
        while first < batch.count:
            behind = host.handle_stream(first) if batch.kind == STREAM else host.handle(first)
            for index in range(first, behind):
                record = batch.records[index]
                if record.correlation != 0 and index not in host.deferred:
                    host.send_reply(record.sender, record.target, record.correlation, host.values[index - first])
            first = behind

    def _obey(self, host: InlineHost, batch: Batch) -> None:
        for record, order in zip(batch.records, batch.bodies, strict=True):
            answer: Any = None
            try:
                if isinstance(order, SpawnOrder):
                    answer = SpawnReport(host.residents.spawn(order), 0).plain(self.codec.allow_pickle)
                elif isinstance(order, StopOrder):
                    host.residents.stop(array("Q", order.addresses))
                elif isinstance(order, PrewarmOrder):
                    host.residents.prewarm(order)
                else:
                    raise order.error  # codec.Undecodable
            except Exception as error:
                answer = host.describe(error, COORDINATOR)
            reply = self.codec.encode_inline(answer, not self.codec.allow_pickle)
            self._to_coordinator(REPLY, COORDINATOR, COORDINATOR, record.correlation, reply)

    def _publish(self, host: InlineHost) -> None:
        failures, host.failures = host.failures, []
        for address, sender, info in failures:
            self._to_coordinator(FAILURE, sender, address, 0, self.codec.encode_inline(info))
        host.finished.clear()
        host.counters[count.ERRORS] = host.errors

    def _to_coordinator(self, kind: int, target: int, sender: int, correlation: int, body: tuple[int, bytes]) -> None:
        self.lanes.queues[COORDINATOR].append(Record(kind, body[0], target, sender, correlation, body[1]))

    def _receive(self, replies: bool = True) -> None:
        batch = Batch(self.lanes.take(COORDINATOR, self._batch_size), self.codec, self.lanes.arena)
        if batch.kind != REPLY:
            self._unasked.take(cast(Any, batch))
            return
        if not replies:
            return
        for correlation, body in zip(batch.correlations(), batch.bodies, strict=True):
            entry = self._pending.get(correlation >> INDEX_BITS)
            if entry is None:
                self.late += 1
                continue
            try:
                finish = entry.accept(Single(correlation, body))
            except ValueError:
                self.late += 1
                continue
            if finish is not None:
                self._jobs.append(finish)
            if entry.done and not entry.stays:
                del self._pending[correlation >> INDEX_BITS]

    def _run_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                job()
            except Exception:
                _log.exception("a callback raised")

    # Time, and coroutines.

    def _due(self) -> float | None:
        return min((host.timers[0][0] for host in self.hosts.values() if host.timers), default=None)

    def _wait_outside(self, deadline: float | None) -> bool:
        """Let something happen where all is done: a message of tell_later falls due, or what coroutines await.

        Whichever is first. False: there is nothing of the kind, or not before the deadline.
        """
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        outside = self._busy() and running_loop() is None
        sleep = self.own_loop.sleep if outside else None
        due = self._due()
        if due is not None and (sleep is None or due - self.now <= sleep) and (left is None or due - self.now <= left):
            return self.fire_next()
        if not outside or (sleep is None and self.own_loop.stuck):
            return False
        return self._turn_coroutines(_LOOK if left is None else min(_LOOK, left))

    def _busy(self) -> bool:
        return any(host.busy_coroutines for host in self.hosts.values())

    def _in_hand(self) -> bool:
        return any(host.in_hand for host in self.hosts.values())

    def _settle_soon(self) -> None:
        self._settling = False
        self.settle()

    def _turn_coroutines(self, patience: float) -> bool:
        """Let coroutines run until each awaits something; wait for that if need be. False: nothing happened."""
        progress = self.own_loop.run_pass(patience)
        for host in self.hosts.values():
            self._publish(host)
        return progress
