"""The public API: Fabric. It owns the segment, the workers, the agents' table and all that waits for replies.

Fabric ──▶ Spawner ──▶ Switchboard ──▶ lanes ──▶ workers
   │                      ▲   replies ◀── lanes ◀──┘
   └──▶ Crew (supervisor thread) ── a worker died ──▶ its successor, with the same agents, same lanes
"""

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

from fabric import counters
from fabric.admission import admit_lanes, available_bytes
from fabric.agent import AgentRef, register_messenger
from fabric.agent_spawner import AgentSpawner
from fabric.aside import Aside
from fabric.codec import Codec
from fabric.config import FabricConfig, usable_cpus
from fabric.directory import Directory
from fabric.errors import ClosedError, FabricError, advice
from fabric.messages import COORDINATOR, DeadLetter, index_of
from fabric.meters import Board, Meters
from fabric.payloads import open_arena
from fabric.pending import deadline_of
from fabric.postmortem import count_messages
from fabric.receiver import Receiver
from fabric.replies import Replies
from fabric.sampler import Sampler
from fabric.segment import Segment
from fabric.signals import handle_sigterm, release_sigterm
from fabric.spawning import Spawner
from fabric.statistics import Known, Statistics, take
from fabric.stopwatch import Stopwatch
from fabric.supervisor import Supervisor
from fabric.switchboard import Switchboard
from fabric.tally import Tally
from fabric.unasked import Unasked

_log = logging.getLogger("fabric")
_LEAVE_PATIENCE = 5.0  # seconds that a worker has to leave once it has nothing left to do: on_stop may take time
_DRAIN_NOTICE = 10.0  # seconds from word to word of what close() waits for
_LEAVE_QUICKLY = 1.0  # seconds when the work is dropped anyway: after an exception, after Ctrl-C
_CLOSED = "this fabric is closed: make a new one"
_fabrics: "weakref.WeakSet[Fabric]" = weakref.WeakSet()


class Fabric(AgentSpawner):
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

    _terminable = False  # do we handle SIGTERM?

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
        self._closed = True  # until all of it stands
        self._tells_dropped = True  # log what was not handled, when this is closed
        self._final: Statistics | None = None
        self._closing = threading.Lock()
        admit_lanes(count, self.config.lane_bytes)
        self._segment = Segment.create(self.config, max_workers)
        try:
            self._build(cores, on_error)
            self._supervisor.start(self._spawner, range(1, count + 1))
        except BaseException as error:
            self._discard()
            if isinstance(error, OSError):
                raise FabricError(f"the fabric cannot be started: {error.strerror}{advice(error)}") from error
            raise
        self._closed = False
        self._terminable = handle_sigterm()
        _fabrics.add(self)

    def _build(self, cores: int, on_error: Callable[[DeadLetter], None] | None) -> None:
        """Put the parts together; each knows those below it."""
        self.identity = self._segment.layout.identity
        self._peer = self._segment.peer()
        self._peer.configure(cores, self.config.spin_us)
        self._meters, self._board = Meters(self._segment), Board(self._segment)
        self._board.measure(self.config.metrics)
        tally = self._tally = Tally(self._segment.counters())
        codec = Codec(self.config.encoding, self.config.allow_pickle)
        serve = weakref.WeakMethod(self._serve)  # threads hold what follows, and must not keep an unused fabric
        self._unasked = Unasked(self.config.allow_pickle, on_error, lambda *request: _call(serve, *request))
        receiver = self._receiver = Receiver(self._segment, self._peer, codec)
        self._arena = open_arena(self._segment, self._peer, codec, receiver, self.config, available_bytes)
        receiver.watch = Stopwatch(functools.partial(tally.add, counters.DECODE_NS))
        self._replies = Replies(self._peer, receiver, self._unasked.take)
        self._unasked.later = self._replies.run_later
        self._unasked.aside = Aside(self._replies.run_later).run
        handled_of = functools.partial(self._segment.handled_of, lane=COORDINATOR)
        self._switchboard = Switchboard(self._peer, codec, self._replies, self.config.target_queueing, handled_of)
        self._switchboard.watch = Stopwatch(functools.partial(tally.add, counters.ENCODE_NS))
        self._unasked.tally = self._replies.tally = self._switchboard.tally = tally
        if self._arena is not None:
            self._switchboard.lend_from(self._arena)
        self._directory = Directory(self._peer, self.config.max_agents)
        self._supervisor = Supervisor(self.config, self._segment, self._switchboard, self._directory, self._unasked)
        self._supervisor.crew.post, self._supervisor.post = self._board.post, self._board.use
        self._spawner = Spawner(self._switchboard, self._directory, self)
        self._spawner.classify = self._board.classify
        register_messenger(self)

    def _discard(self) -> None:
        """Take down a fabric that could not be finished."""
        if hasattr(self, "_spawner"):
            self._shut_down(_LEAVE_QUICKLY)
            return
        for name in ("_receiver", "_arena", "_tally", "_board", "_meters", "_peer"):
            part = getattr(self, name, None)
            if part is not None:
                part.close()
        self._segment.close()

    # Watching.

    def dead_letters(self) -> list[DeadLetter]:
        """Return the told messages that could not be handled, the last 10,000."""
        return self._unasked.letters

    def statistics(self) -> Statistics:
        """Return a frozen snapshot of what the processes count; the last one, after close. Costs them nothing."""
        try:
            return self._final or self._take_statistics()
        except Exception:
            if self._final is None:
                raise
            return self._final  # closed meanwhile, which took away what was being read

    def _take_statistics(self) -> Statistics:
        running, unasked, supervisor = self._supervisor.crew.workers, self._unasked, self._supervisor
        facts = {
            "agents": self._directory.total,
            "outstanding": self._replies.outstanding,
            "late_replies": self._replies.late,
            "dead_letters": unasked.count,
            "restarts": supervisor.restarts,
            "redelivered": supervisor.redelivered,
            "dropped_bytes": self._peer.dropped_bytes() + unasked.dropped_bytes,
            "dropped_logs": supervisor.dropped_logs,
        }
        slots = supervisor.slots
        known = Known(
            slots=slots,
            former=[slot for slot in self._meters.used() if slot not in slots],
            agents=self._directory.count,
            lane=self._lane_facts,
            pids=lambda slot: running[slot].pid if slot in running and slot in slots else 0,
            facts=facts,
        )
        return take(self._meters, known)

    def _lane_facts(self, slot: int) -> tuple[int, int, int]:
        return self._peer.backlog(slot)[0], self.config.lane_bytes, self._peer.sent(slot)

    @property
    def metrics(self) -> bool:
        """Are counters and histograms kept? Set it to turn them off, or on again, in all processes."""
        return self._meters.measuring

    @metrics.setter
    def metrics(self, on: bool) -> None:
        self._switchboard.check_open()
        self._board.measure(bool(on))

    def last_use(self, ref: AgentRef) -> float | None:
        """When an agent was last handed a message, in monotonic seconds within 17 ms; None: never, by its worker.

        Raises:
            AgentNotFoundError: it has stopped, or never was.
        """
        return self._meters.last_use(self._switchboard.slot_of(ref._address), index_of(ref._address))

    @property
    def sampler(self) -> Sampler:
        """Samples of this fabric: rates, recent latencies, CPU and memory of its processes; alerts. No thread of its
        own before `sampler.start()` or `sampler.when(...)`; each `metrics_interval` from then on.
        """
        made = Sampler(functools.partial(_statistics_of, weakref.ref(self)), self.config.metrics_interval)
        found: Sampler = self.__dict__.setdefault("_sampler", made)
        if found is made and self._closed:  # whoever closed it has seen none
            found.close()
        return found

    def resize(self, workers: int) -> None:
        """Change the number of workers. New ones get agents from the next spawn on.

        Any thread; waits until the new ones run, and those that go are gone.

        Raises:
            ValueError: over max_workers, under 1, or a worker that would go still has agents.
            ClosedError: the fabric is closed, maybe meanwhile.
        """
        self._switchboard.check_open()
        limit = self._peer.processes - 1
        if not 1 <= workers <= limit:
            raise ValueError(f"workers={workers} must be from 1 to max_workers={limit}")
        with self._spawner.resizing:
            self._switchboard.check_open()
            slots = self._supervisor.slots
            going = slots[workers:]
            occupied = self._spawner.retire(going, self._supervisor.release)
            if occupied:
                raise ValueError(
                    f"workers in slots {occupied} still have agents: stop those first, their state is there"
                )
            free = [slot for slot in range(1, limit + 1) if slot not in slots]
            self._supervisor.start(self._spawner, free[: max(0, workers - len(slots))])
            self._supervisor.send_away(going)

    # The end.

    def close(self, drain: bool | None = None, timeout: float | None = None) -> None:
        """Stop all agents and workers. Safe to call twice, and from any thread.

        `drain` (by default as configured): first wait until all that was told has been handled, and what
        followed from it; `timeout` bounds that, in seconds. What is dropped is said in the log.
        """
        with self._closing:
            if self._closed:
                return
            drain = self.config.drain if drain is None else drain
            try:
                if drain and self._supervisor.crew.workers:
                    self._switchboard.cancel_streams(ClosedError(_CLOSED))  # one that nobody reads would never end
                    self._finish_work(deadline_of(timeout))
            finally:
                self._shut_down(_LEAVE_PATIENCE if drain else _LEAVE_QUICKLY)
                if self._terminable:
                    release_sigterm()

    def _finish_work(self, deadline: float | None) -> None:
        """Wait until nothing is in flight; now and then say what is waited for."""
        while True:
            now = time.monotonic()
            step = now + _DRAIN_NOTICE
            if self._switchboard.wait_quiet(step if deadline is None else min(step, deadline)):
                return
            if deadline is not None and time.monotonic() >= deadline:
                return
            busy = [f"worker {w.slot} (pid {w.pid})" for w in self.statistics().workers if w.alive]
            _log.warning(
                "close() waits for messages in flight to %s: close(timeout=...), close(drain=False), Ctrl-C drop them",
                ", ".join(busy),
            )

    def _shut_down(self, patience: float) -> None:
        self._closed = True
        sampler = self.__dict__.get("_sampler")
        if sampler is not None:
            sampler.close()
        try:
            self._supervisor.dismiss()
            self._replies.wait_for(self._supervisor.crew.empty, 0, time.monotonic() + patience)
        finally:
            self._final = self._take_statistics()
            self._supervisor.crew.close()
            self._say_what_is_dropped()
            self._switchboard.close(_CLOSED)
            self._replies.close(ClosedError(_CLOSED))
            if self._arena is not None:
                self._arena.close()
            self._peer.close()
            self._tally.close()
            self._board.close()
            self._meters.close()
            self._supervisor.crew.close_descriptors()  # not before: their numbers are soon somebody else's
            self._segment.close()

    def _say_what_is_dropped(self) -> None:
        """Log how many messages lie in the lanes of the workers, which are gone."""
        if not self._tells_dropped or self._peer.quiet():
            return
        dropped = sum(count_messages(self._segment, slot) for slot in range(1, self._peer.processes))
        if dropped:
            _log.warning("%s messages were dropped: they were not handled when the fabric was closed", f"{dropped:,}")

    def _forget_after_fork(self) -> None:
        """Make this copy of the fabric unusable in a forked child, and let go of its descriptors."""
        self._closed = True
        why = f"this fabric belongs to process {os.getppid()}: a forked child cannot use it"
        self._switchboard.close(why, in_child=True)
        self._supervisor.crew.close_descriptors()
        self._segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.close(drain=False if kind is not None else None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as own:  # the loop's own threads may all be waiting for replies of ours
            await asyncio.get_running_loop().run_in_executor(own, self.close, False if kind is not None else None)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            import warnings

            text = f"unclosed {self!r}: use it in a with statement"
            try:
                warnings.warn(text, ResourceWarning, source=self, stacklevel=1)
            finally:
                self.close(drain=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._supervisor.slots)} workers, {self._directory.total:,} agents"
        return f"<Fabric: {state}>"


def _statistics_of(fabric: "weakref.ref[Fabric]") -> Statistics:
    found = fabric()
    if found is None or found._closed:
        raise ClosedError(_CLOSED)
    return found.statistics()


def _call(method: "weakref.WeakMethod[Any]", *arguments: Any) -> None:
    found = method()
    if found is not None:
        found(*arguments)


def _at_exit() -> None:
    """Close what was left open while the supervisor threads still run: after that nobody sees a worker go."""
    for fabric in list(_fabrics):
        fabric.__del__()


def _after_fork() -> None:
    for fabric in list(_fabrics):
        fabric._forget_after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
