"""The public API: Fabric. It owns the segment, the workers, the agents' table and all that waits for replies.

Fabric ──▶ Spawner ──▶ Switchboard ──▶ lanes ──▶ workers
   │                      ▲   replies ◀── lanes ◀──┘
   └──▶ Crew (supervisor thread) ── a worker died ──▶ its successor, with the same agents, same lanes
"""

import asyncio
import collections
import logging
import os
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Literal

from fabric import counters
from fabric.agent import Agent, AgentGroup, AgentRef, addresses_of, register_messenger
from fabric.channel import Received, Receiver, as_sequence
from fabric.codec import Codec, revive
from fabric.config import FabricConfig, usable_cpus
from fabric.crew import Crew, Death
from fabric.directory import Directory
from fabric.errors import ClosedError, FabricError, WorkerLostError
from fabric.messages import COORDINATOR, FAILURE, REPLY, REQUEST, SHUTDOWN, DeadLetter, ErrorInfo
from fabric.pending import One, Promise, settle
from fabric.replies import Replies
from fabric.restart import GiveUp, RestartPolicy
from fabric.segment import Segment
from fabric.spawning import Spawner
from fabric.statistics import Statistics, worker_statistics
from fabric.switchboard import Switchboard
from fabric.waving import Waves

_log = logging.getLogger("fabric")
_DEAD_LETTERS_KEPT = 10_000
_LEAVE_PATIENCE = 5.0  # seconds that a worker has to leave once it has nothing left to do
_START_PATIENCE = 60.0  # seconds until a worker that has not started is given up; a loaded machine is slow
_CLOSED = "this fabric is closed: make a new one"
_fabrics: "weakref.WeakSet[Fabric]" = weakref.WeakSet()


class Fabric:
    """Agents on a pool of worker processes. Use it as a context manager.

    `workers` is the number of worker processes, by default the CPUs this process may use. Further settings
    by name or as a FabricConfig. `on_error` is called with a DeadLetter for each told message that failed.

    Raises:
        ValueError, TypeError: a setting is out of range.
        FabricError: the machine refuses what is needed (anonymous memory, processes).

    Example:
        >>> with Fabric(workers=2) as fab:
        ...     counters = fab.spawn_batch(Counter, 1_000, start=10)
        ...     counters[0].ask(5)
        15
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        config: FabricConfig | None = None,
        on_error: Callable[[DeadLetter], None] | None = None,
        **settings: Any,
    ) -> None:
        if workers is not None:
            settings["workers"] = workers
        self.config = (config or FabricConfig()).replace(**settings)
        cores = usable_cpus()
        count, max_workers = self.config.worker_counts(cores)
        self._closed = False
        self._closing = threading.Lock()
        self._on_error = on_error
        self._dead_letters: collections.deque[DeadLetter] = collections.deque(maxlen=_DEAD_LETTERS_KEPT)
        self._dead_letter_count = 0
        self._restarts = 0
        self._policies: dict[int, RestartPolicy] = {}
        self._progress: dict[int, int] = {}
        self._segment = Segment.create(self.config, max_workers)
        self.identity = self._segment.layout.identity
        self._peer = self._segment.peer()
        self._peer.configure(cores, self.config.spin_us)
        codec = Codec(self.config.encoding, self.config.allow_pickle)
        self._replies = Replies(self._peer, Receiver(self._segment, self._peer, codec), self._take_record)
        self._switchboard = Switchboard(self._peer, codec, self._replies, self.config.target_queueing)
        self._directory = Directory(self._peer, self.config.max_agents)
        self._spawner = Spawner(self._switchboard, self._directory, self)
        self._crew = Crew(self.config, self._segment, cores, self._worker_died, self._replies.wake_and_drain)
        for process, bell in enumerate(self._crew.bells):
            self._peer.set_bell(process, bell)
        register_messenger(self)
        _fabrics.add(self)
        for slot in range(1, count + 1):
            self._start_worker(slot)
        slots = list(range(1, count + 1))
        self._spawner.slots = tuple(slots)
        try:
            self._crew.wait_started(slots, _START_PATIENCE)
        except BaseException:
            self._shut_down()
            raise

    # Spawning.

    def spawn_batch(
        self,
        kind: type[Agent],
        count: int,
        *,
        each: Mapping[str, Iterable[Any]] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        placement: Literal["round_robin", "least_loaded", "hash"] | int = "round_robin",
        keys: Iterable[Any] | None = None,
        **init: Any,
    ) -> AgentGroup:
        """Make `count` agents of a class, in parallel on the workers, and return the group.

        Further keyword arguments go to the constructor; those whose names collide with ours go into
        `kwargs`. `each` maps a constructor argument to one value an agent. With `name="clerk"` the agents
        are called clerk-0, clerk-1, ... `placement="hash"` places by `keys`, one an agent.

        Raises:
            SpawnError: no room for so many (nothing was started), or some could not be made (the others
                were stopped again); `failures` says which and why.
            TypeError, ValueError: the arguments are wrong.
        """
        recipe = self._spawner.recipe(kind, count, each, args, {**(kwargs or {}), **init}, placement, keys)
        self._switchboard.check_open()
        return self._spawner.spawn(recipe, count, name)

    def spawn_waves(
        self,
        kind: type[Agent],
        count: int,
        *,
        wave_size: int,
        interval: float = 0.0,
        on_failure: Literal["continue", "stop", "rollback"] = "continue",
        progress: bool = False,
        each: Mapping[str, Iterable[Any]] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        placement: Literal["round_robin", "least_loaded", "hash"] | int = "round_robin",
        keys: Iterable[Any] | None = None,
        **init: Any,
    ) -> Iterator[Any]:
        """Make agents in waves of `wave_size`, one Wave at a time; iterate over it.

        A wave is acknowledged before the next begins. `interval` is in seconds from the start of one wave
        to the start of the next. After a failure, "continue" goes on, "stop" ends with what there is,
        "rollback" stops all agents spawned so far. `progress=True` shows a bar (needs tqdm).

        Raises:
            TypeError, ValueError, SpawnError: as spawn_batch; raised here, before the first wave, where
                it concerns the arguments.
        """
        recipe = self._spawner.recipe(kind, count, each, args, {**(kwargs or {}), **init}, placement, keys)
        self._switchboard.check_open()
        return iter(Waves(self._spawner, recipe, count, wave_size, interval, on_failure, progress))

    def prewarm(self, kind: type[Agent], count: int, *args: Any, **kwargs: Any) -> None:
        """Keep `count` agents of this class and these arguments constructed in advance.

        A spawn_batch with equal arguments takes them and constructs nothing; they are made anew in the
        background. 0 gives the store up.
        """
        recipe = self._spawner.recipe(kind, count, None, args, kwargs)
        self._switchboard.check_open()
        self._spawner.prewarm(recipe, count)

    def find(self, name: str) -> AgentRef | None:
        """Return the living agent of this name, or None."""
        address = self._directory.find(name)
        return None if address is None else AgentRef(self, address, None, name)

    # Many messages.

    def ask_many(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Send body i to agent i, all at once; return the replies in order.

        Raises:
            ValueError: unequal lengths, or a reference of another fabric.
            AgentError: an agent raised (the first, in order), unless `return_exceptions` puts the errors
                among the replies.
            TimeoutError: not all replies came in time.
        """
        addresses, sequence = self._matched(refs, bodies)
        return self._collect(addresses, sequence, timeout, return_exceptions, _json_of(refs))

    def tell_many(self, refs: Iterable[AgentRef], bodies: Iterable[Any], timeout: float | None = None) -> None:
        """Send body i to agent i; wait only for room."""
        addresses, sequence = self._matched(refs, bodies)
        self._switchboard.tell_many(addresses, sequence, timeout, _json_of(refs))

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all that was told has been handled, and all that followed from it.

        Raises:
            TimeoutError: messages are still in flight after `timeout` seconds.
        """
        self._switchboard.check_open()
        if not self._switchboard.wait_quiet(_deadline(timeout)):
            raise TimeoutError(f"messages are still in flight after {timeout} s")
        self._switchboard.check_open()

    async def ask_many_async(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Do as ask_many, without blocking the event loop."""
        addresses, sequence = self._matched(refs, bodies)
        json = _json_of(refs)
        return await asyncio.to_thread(self._collect, addresses, sequence, timeout, return_exceptions, json)

    def _matched(self, refs: Iterable[AgentRef], bodies: Iterable[Any]) -> "tuple[array[int], Any]":
        addresses, sequence = addresses_of(refs, self), as_sequence(bodies)
        if len(addresses) != len(sequence):
            raise ValueError(f"{len(addresses):,} agents and {len(sequence):,} bodies: give one body for each")
        return addresses, sequence

    def _collect(
        self,
        addresses: "array[int]",
        bodies: Any,
        timeout: float | None,
        return_exceptions: bool,
        json: bool | None,
    ) -> list[Any]:
        replies, failed = self._switchboard.ask_many(addresses, bodies, timeout, json)
        if failed and not return_exceptions:
            raise next(reply for reply in replies if isinstance(reply, FabricError))
        return replies

    # What references do here (fabric.agent.Messenger).

    def is_alive(self, address: int) -> bool:
        """Read the shared table."""
        return self._switchboard.is_alive(address)

    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None:
        """See AgentRef.tell."""
        self._switchboard.tell(ref, body, timeout, wait)

    def ask(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """See AgentRef.ask."""
        return self._switchboard.ask(ref, body, timeout)

    def submit(self, ref: AgentRef, body: Any, wait: bool) -> "Future[Any]":
        """See AgentRef.submit."""
        future: Future[Any] = Future()
        allow = self.config.allow_pickle
        entry = Promise(0, lambda value: settle(future, value, allow))
        self._switchboard.promise(ref, body, wait, entry)
        self._replies.wake_pump()
        return future

    async def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """See AgentRef.ask_async."""
        future = asyncio.wrap_future(self.submit(ref, body, True))
        return await (future if timeout is None else asyncio.wait_for(future, timeout))

    def tell_group(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> None:
        """See AgentGroup.tell_all and tell_each."""
        sequence = self._bodies_for(group, bodies, same)
        self._switchboard.tell_many(group.addresses, sequence, timeout, group._json)

    def ask_group(
        self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        """See AgentGroup.ask_all and ask_each."""
        sequence = self._bodies_for(group, bodies, same)
        return self._collect(group.addresses, sequence, timeout, return_exceptions, group._json)

    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None:
        """See AgentRef.stop."""
        self._switchboard.check_open()
        self._spawner.stop(addresses, _deadline(timeout))

    def _bodies_for(self, group: AgentGroup, bodies: Any, same: bool) -> Any:
        if same:
            return self._switchboard.same(bodies, len(group), group._json)
        return self._matched(group, bodies)[1]

    # Watching.

    def dead_letters(self) -> list[DeadLetter]:
        """Return the told messages that could not be handled, the last 10,000."""
        return list(self._dead_letters)

    def statistics(self) -> Statistics:
        """Return a frozen snapshot of what the processes count. Costs them nothing."""
        running = self._crew.workers
        workers = tuple(
            worker_statistics(
                slot,
                slot in running,
                self._directory.count(slot),
                self._segment.counters_of(slot),
                self._peer.backlog(slot)[0],
                self._peer.sent(slot),
            )
            for slot in self._spawner.slots
        )
        own_alarms = self._segment.counters_of(COORDINATOR)[counters.ALARMS]
        return Statistics(
            workers=workers,
            agents=self._directory.total,
            outstanding=self._replies.outstanding,
            late_replies=self._replies.late,
            dead_letters=self._dead_letter_count,
            restarts=self._restarts,
            alarms=own_alarms + sum(worker.alarms for worker in workers),
        )

    def resize(self, workers: int) -> None:
        """Change the number of workers. New ones get agents from the next spawn on.

        Raises:
            ValueError: over max_workers, under 1, or a worker that would go still has agents.
        """
        self._switchboard.check_open()
        limit = self._peer.processes - 1
        if not 1 <= workers <= limit:
            raise ValueError(f"workers={workers} must be from 1 to max_workers={limit}")
        now = len(self._spawner.slots)
        going = [slot for slot in range(workers + 1, now + 1) if self._directory.count(slot)]
        if going:
            raise ValueError(f"workers in slots {going} still have agents: stop those first, their state is there")
        for slot in range(now + 1, workers + 1):
            self._start_worker(slot)
        self._spawner.slots = tuple(range(1, workers + 1))
        self._send_away(range(workers + 1, now + 1), "drain")

    # Workers.

    def _start_worker(self, slot: int) -> None:
        self._policies[slot] = RestartPolicy(self.config.max_restarts, self.config.restart_window)
        self._progress[slot] = self._peer.progress(slot)
        self._crew.start(slot, [])

    def _send_away(self, slots: Iterable[int], how: str) -> None:
        for slot in slots:
            self._policies.pop(slot, None)
            self._switchboard.order(slot, SHUTDOWN, how, One(slot), control=True)

    def _worker_died(self, death: Death) -> None:
        """Replace a worker that died, in the supervisor thread; its successor goes on from its lanes."""
        for process in range(self._peer.processes):
            self._peer.ring(process)  # the death bell: it may have died between publishing and ringing
        policy = self._policies.get(death.slot)
        if policy is None or self._closed:
            return
        progress = self._peer.progress(death.slot)
        decision = policy.died(time.monotonic(), progress != self._progress[death.slot])
        self._progress[death.slot] = progress
        error = WorkerLostError(death.slot, death.pid, death.exitcode)
        if isinstance(decision, GiveUp):
            self._give_up(death.slot, error, decision.reason)
            return
        _log.warning("%s; a successor takes over its %d agents", error, self._directory.count(death.slot))
        self._restarts += 1
        if decision.delay:
            threading.Timer(decision.delay, self._succeed, (death.slot,)).start()
        else:
            self._succeed(death.slot)

    def _succeed(self, slot: int) -> None:
        if not self._closed and slot in self._policies:
            self._crew.start(slot, self._spawner.orders_of(slot))

    def _give_up(self, slot: int, error: WorkerLostError, reason: str) -> None:
        self._policies.pop(slot, None)
        lost = self._directory.lose(slot)
        self._spawner.slots = tuple(other for other in self._spawner.slots if other != slot)
        _log.error("%s; given up (%s): its %d agents are lost", error, reason, lost)
        error.add_note(f"given up: {reason}")
        self._replies.fail_all(slot, error)

    def _take_record(self, received: Received) -> None:
        """Take what workers send unasked. In the draining thread: users' functions go to the pump."""
        rows = zip(received.targets(), received.senders(), received.correlations(), received.bodies, strict=True)
        for target, sender, correlation, body in rows:
            if received.kind == FAILURE and isinstance(body, ErrorInfo):
                self._bury(DeadLetter(sender, target, revive(body, self.config.allow_pickle), time.monotonic()))
            elif received.kind == REQUEST:
                self._replies.run_later(lambda s=sender, c=correlation, b=body: self._serve(s, c, b))  # type: ignore[misc]

    def _bury(self, letter: DeadLetter) -> None:
        self._dead_letters.append(letter)
        self._dead_letter_count += 1
        _log.warning("a told message failed: %s", letter.error)
        if self._on_error is not None:
            callback = self._on_error
            self._replies.run_later(lambda: callback(letter))

    def _serve(self, sender: int, correlation: int, request: Any) -> None:
        """Do what an agent asked for, in the pump."""
        try:
            answer: Any = None
            if request.what == "stop":
                self.stop_agents(request.arguments[0], None)
            else:
                kind, count, options = request.arguments
                answer = self.spawn_batch(kind, count, **options)
        except Exception as error:
            answer = ErrorInfo("agent", f"{type(error).__name__}: {error}", "", 0, None)
        if self.is_alive(sender):
            self._switchboard.answer(sender, correlation, REPLY, answer)

    # The end.

    def close(self, drain: bool | None = None) -> None:
        """Stop all agents and workers. Safe to call twice, and from any thread.

        `drain` (by default as configured): first wait until all that was told has been handled.
        """
        with self._closing:
            if self._closed:
                return
            drain = self.config.drain if drain is None else drain
            try:
                if drain and self._crew.workers:
                    self._switchboard.wait_quiet(None)
            finally:
                self._shut_down()

    def _shut_down(self) -> None:
        self._closed = True
        try:
            self._send_away(list(self._crew.workers), "now")
            self._replies.wait_for(lambda: not self._crew.workers, 0, time.monotonic() + _LEAVE_PATIENCE)
        finally:
            self._switchboard.closed = _CLOSED
            self._crew.close()
            self._replies.close(ClosedError(_CLOSED))
            self._segment.close()

    def _forget_after_fork(self) -> None:
        """Make this copy of the fabric unusable in a forked child, and let go of its descriptors."""
        self._closed = True
        self._switchboard.closed = f"this fabric belongs to process {os.getppid()}: a forked child cannot use it"
        self._crew.close_descriptors()
        self._segment.close()

    def __enter__(self) -> "Fabric":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(drain=False if kind is not None else None)

    async def __aenter__(self) -> "Fabric":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        await asyncio.to_thread(self.close, False if kind is not None else None)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            import warnings

            warnings.warn(f"unclosed {self!r}: use it in a with statement", ResourceWarning, source=self, stacklevel=1)
            self.close(drain=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._spawner.slots)} workers, {self._directory.total:,} agents"
        return f"<Fabric: {state}>"


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _json_of(refs: Any) -> bool | None:
    """What the receivers' classes say of the encoding; references of several minds get the fabric's choice."""
    if isinstance(refs, AgentGroup):
        return refs._json
    choices = {ref._json for ref in refs} if isinstance(refs, (list, tuple)) else {None}
    return choices.pop() if len(choices) == 1 else None


def _after_fork() -> None:
    for fabric in list(_fabrics):
        fabric._forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
