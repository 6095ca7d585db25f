"""Run agents in this process, one batch after the other: for unit tests of agents, and for pdb.

InlineFabric is a Fabric whose moving parts are replaced: the lanes, those who wait, the workers (fabric.inline).
The rest is the real thing: placement, waves, the agent table, the codec, hosts and mailboxes. So what cannot be
sent fails here too, and nobody sees what another does to a body after it was sent.
"""

import asyncio
import os
import secrets
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

from fabric.agent import AgentRef, register_messenger
from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.coordinator import Fabric
from fabric.directory import Directory
from fabric.errors import ClosedError, EncodingError, FabricError
from fabric.inline import Turns
from fabric.inline_arena import InlineArena
from fabric.inline_lanes import Lanes
from fabric.large import Large
from fabric.layout import COUNTERS
from fabric.measured import Traffic
from fabric.messages import MESSAGE, RECORDS, DeadLetter
from fabric.meters import NOTHING_MEASURED, Measures
from fabric.parcel import Data, Parcel
from fabric.pending import Promise, settle
from fabric.ring import HEADER_BYTES
from fabric.same import Same
from fabric.spawning import Spawner
from fabric.switchboard import Letter, Switchboard
from fabric.tally import Tally
from fabric.unasked import Unasked

_CPUS = 2  # what workers=None goes by: the same on every machine


class InlineFabric(Fabric):
    """A Fabric without processes, threads and shared memory: deterministic, and a debugger can follow.

    `tell` puts a message in a queue. It is handled, in this thread and after those before it, as soon as somebody
    waits for anything: an ask, `drain`, a future's `result`, a spawn, a stop, `close`, a tell that finds the queue
    full; where an event loop runs, also in its next pass. `submit` handles what is queued at once. `step` handles
    one batch. Workers take turns.

    Time, for `tell_later` and the interval between waves, stands still. `advance` moves it; so do waves, and a
    wait that nothing else can end, up to the next message that is due. Coroutines of agents run while somebody
    waits, or in the running event loop where there is one; what they await outside the fabric takes real time.

    Ctrl-C in a handler, and leaving the debugger, end the call that waits.

    Example:
        >>> with InlineFabric(workers=2) as fab:
        ...     fab.spawn_batch(Counter, 1_000, start=10)[0].ask(5)
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
        started, max_workers = self.config.worker_counts(_CPUS)
        self.identity = secrets.randbits(64)
        self._closed = False
        self._final = None
        self._closing, self._resizing = threading.Lock(), threading.Lock()
        codec = Codec(self.config.encoding, self.config.allow_pickle)
        lanes = Lanes(self.config, max_workers + 1)
        self._unasked = Unasked(self.config.allow_pickle, on_error, self._serve)
        self._turns = Turns(lanes, codec, self._unasked, self.config.batch_size)
        self._unasked.later = self._turns.run_later
        self._peer, self._replies = cast(Any, lanes), cast(Any, self._turns)
        self._tally = Tally()
        self._segment = self._supervisor = self._meters = self._board = cast(
            Any, _Slots(self._turns, self.identity, self.config)
        )
        self._switchboard = _InlineSwitchboard(
            self._peer, codec, self._replies, self.config.target_queueing, lambda slot: 0
        )
        if self.config.arena_bytes:
            self._lend_from_an_arena(lanes, codec)
        self._directory = Directory(self._peer, self.config.max_agents)
        self._spawner = Spawner(self._switchboard, self._directory, self)
        self._spawner.now, self._spawner.sleep = lambda: self._turns.now, self._turns.advance
        register_messenger(self)
        self._supervisor.start(self._spawner, range(1, started + 1))

    def _lend_from_an_arena(self, lanes: Lanes, codec: Codec) -> None:
        """Have large bodies go through an arena, as with workers."""
        arena = self._arena = lanes.arena = InlineArena(self.config.arena_bytes, self.config.arena_timeout)
        threshold, limit = self.config.arena_threshold, min(self.config.peer_lane_bytes, self.config.lane_bytes) // 2
        codec.lend(Large(arena, threshold, limit - HEADER_BYTES), threshold)
        self._switchboard.lend_from(arena)
        arena.wait = self._turns.wait_for_returns

    def step(self) -> bool:
        """Handle one batch of messages, or let coroutines run until each awaits something. False: nothing to do."""
        self._switchboard.check_open()
        return self._turns.step()

    def advance(self, seconds: float) -> None:
        """Let time pass for tell_later: send what falls due, in order, and handle what follows from it."""
        self._switchboard.check_open()
        self._turns.advance(seconds)

    def submit(self, ref: AgentRef, body: Any, wait: bool) -> "Future[Any]":
        """See AgentRef.submit."""
        future = _Future(self._turns)
        allow = self.config.allow_pickle
        self._switchboard.promise(ref, body, wait, Promise(0, lambda value: settle(future, value, allow)))
        self._turns.wake_pump()
        return future

    async def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """See AgentRef.ask_async."""
        future = asyncio.wrap_future(self.submit(ref, body, True))
        await asyncio.sleep(0)  # others may be about to send what the reply depends on
        while not future.done() and self._turns.idle and self._turns.fire_next():
            self._turns.settle()
            await asyncio.sleep(0)
        return await (future if timeout is None else asyncio.wait_for(future, timeout))

    async def ask_many_async(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Do as ask_many, without blocking the event loop."""
        refs = refs if isinstance(refs, Sequence) else list(refs)
        _, sequence = self._matched(refs, bodies)
        asks = [self.ask_async(ref, body, None) for ref, body in zip(refs, sequence, strict=True)]
        replies = await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), timeout)
        errors = [reply for reply in replies if isinstance(reply, FabricError)]
        if errors and not return_exceptions:
            raise errors[0]
        return replies

    def _say_what_is_dropped(self) -> None:
        """Nothing: a test that closes without draining means it."""

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self.config.drain:
            self._switchboard.cancel_streams(ClosedError("this fabric is closed"))
            await self._turns.wait_quiet()
        self.close(drain=False)
        await asyncio.sleep(0)  # coroutines that were cancelled end here


class _InlineSwitchboard(Switchboard):
    """A switchboard over fabric.inline.Lanes, which take one record at a time."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._control = self._senders  # a worker has one queue

    def _send_chunks(
        self,
        addresses: "array[int]",
        slots: "array[int]",
        bodies: Sequence[Any],
        correlation: int | None,
        deadline: float | None,
        json: bool | None,
    ) -> None:
        encoded = iter(self._encoded(bodies, json))
        for index in range(len(addresses)):
            with self._hurry(deadline):
                encoding, data = next(encoded)
            asked = 0 if correlation is None else correlation + index
            left = None if deadline is None else deadline - time.monotonic()
            sender = self._senders[slots[index]]
            self._send_one(sender, MESSAGE | encoding << 16, addresses[index], asked, data, left, True)

    def send_chunks(self, chunks: Sequence[Letter], deadline: float | None) -> None:
        for slot, target, correlation, body in chunks:
            left = None if deadline is None else deadline - time.monotonic()
            meta = MESSAGE | RECORDS << 16
            self._send_one(self._senders[slot], meta, target, correlation, bytes(body), left, True)

    def _encoded(self, bodies: Sequence[Any], json: bool | None) -> Iterable[tuple[int, Data]]:
        if isinstance(bodies, Same):
            data = bodies.data
            return ((bodies.encoding, data.again() if isinstance(data, Parcel) else data) for _ in bodies)
        encoded = self._encoded_each(bodies, json)
        large = any(self.codec.large_bytes(body) for body in bodies)
        return encoded if large else list(encoded)  # large ones would fill the arena before the first is sent

    def _encoded_each(self, bodies: Sequence[Any], json: bool | None) -> Iterable[tuple[int, Data]]:
        for index, body in enumerate(bodies):
            try:
                yield self.codec.encode(body, json)
            except EncodingError as error:
                raise EncodingError(f"body {index}: {error}") from error.__cause__


class _Slots:
    """The pretended workers, in the place of Supervisor, Crew and what Segment tells of counters."""

    restarts = 0
    redelivered = 0
    dropped_logs = 0
    measuring = False  # there are no processes to be measured

    def __init__(self, turns: Turns, identity: int, config: FabricConfig) -> None:
        self._turns = turns
        self._identity = identity
        self._config = config
        self._spawner: Spawner | None = None
        self.crew = self

    @property
    def slots(self) -> tuple[int, ...]:
        return tuple(sorted(self._turns.hosts))

    @property
    def workers(self) -> Mapping[int, Any]:
        return self._turns.hosts

    def start(self, spawner: Spawner, slots: Iterable[int]) -> None:
        self._spawner = spawner
        for slot in slots:
            self._turns.hire(slot, self._identity, self._config)
        spawner.slots = self.slots

    def release(self, slots: Iterable[int]) -> None:
        pass  # nobody spawns before send_away

    def send_away(self, slots: Iterable[int]) -> None:
        self._turns.settle()
        for slot in slots:
            self._turns.dismiss(slot)
        if self._spawner is not None:
            self._spawner.slots = self.slots

    def dismiss(self) -> None:
        for slot in self.slots:
            self._turns.dismiss(slot)

    def pids(self) -> Sequence[int]:
        return [os.getpid(), *(0 for _ in self.slots)]

    def used(self) -> Sequence[int]:
        return self.slots

    def class_names(self) -> Sequence[str]:
        return []

    def traffic(self) -> Sequence[Traffic]:
        return []

    def measures(self, process: int, classes: int) -> Measures:
        return NOTHING_MEASURED

    def measure(self, on: bool) -> None:
        pass  # see `measuring`

    def counters_of(self, process: int) -> memoryview:
        host = self._turns.hosts.get(process)
        return memoryview(bytearray(8 * COUNTERS)).cast("Q") if host is None else host.counters

    def empty(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def close_descriptors(self) -> None:
        pass


class _Future(Future[Any]):
    """A future that has the fabric work while somebody waits for it."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns

    def result(self, timeout: float | None = None) -> Any:
        self._work(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._work(timeout)
        return super().exception(0)

    def _work(self, timeout: float | None) -> None:
        if not self.done():
            self._turns.until(self.done, None if timeout is None else time.monotonic() + timeout)
