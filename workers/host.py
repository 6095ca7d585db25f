"""Hold the agents of a worker and hand them their messages, contained: what an agent raises is its reply.

No process and no shared memory here. The loop gives a batch (`begin`), has it handled in slices (`handle`),
and takes what is to be sent: `values` (a reply for each message of the slice), `failures`, and the outbox.
"""

import asyncio
import gc
import heapq
import inspect
import pickle
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fabric.agent import Agent, AgentGroup, AgentRef
from fabric.codec import Codec, describe, revive
from fabric.errors import AgentNotFoundError, BackpressureError, EncodingError, FabricError
from fabric.messages import (
    COORDINATOR,
    INDEX_BITS,
    ErrorInfo,
    PrewarmOrder,
    Request,
    SpawnOrder,
    SpawnReport,
    show,
)
from fabric.workers.context import Context, Ticket, current_ticket
from fabric.workers.ledger import Stretch
from fabric.workers.mailbox import Mailbox
from fabric.workers.warm import WarmPool, construct

_NOWHERE = -1  # stands in `targets` for messages whose body cannot be read
_CLOCK_STRIDE = 8  # a clock read is 57 ns, a tenth of a trivial message: while handlers are fast look at each 8th
_SLOW_NS = 10_000  # a handler over this is slow: then the clock is read after each message


class _Refuser:
    """The agent at _NOWHERE: its message could not be decoded."""

    @staticmethod
    def on_message(body: Any) -> None:
        raise body.error


class Host:
    """The agents of one worker. Also what references do in this process (fabric.agent.Messenger)."""

    def __init__(self, identity: int, codec: Codec, outbox: Any, table: Sequence[int], publish_after_us: float) -> None:
        self.identity = identity
        self.context = Context(self)
        self.codec = codec
        self.values: list[Any] = []
        self.deferred: set[int] = set()
        self.failures: list[tuple[int, int, ErrorInfo]] = []
        self.finished: list[Ticket] = []
        self.wake: Callable[[], None] | None = None  # ends the loop's sleep among coroutines
        self.index = 0
        self.cursor: Any = [0]
        self.errors = 0
        self.closing = False
        self.warm = WarmPool()
        self.outbox = outbox
        self._table = table
        self._publish_after = int(publish_after_us * 1000)
        self._agents: dict[int, Any] = {_NOWHERE: _Refuser}
        self._batchers: dict[int, Any] = {}
        self.mailboxes: dict[int, Mailbox] = {}
        self.json_choices: dict[int, bool | None] = {}
        self._received: Any = None
        self._targets: list[int] = []
        self.stretch: Stretch | None = None
        self._starting = COORDINATOR
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._token = 0
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self.timers: list[tuple[float, int, AgentRef, Any]] = []

    # What the loop calls.

    def begin(self, received: Any, stretch: Stretch) -> None:
        """Take a batch in hand; its messages count as part of `stretch` of their lane."""
        self._received = received
        self.stretch = stretch
        self._targets = received.targets()
        if received.undecodable:
            for index, body in enumerate(received.bodies):
                if hasattr(body, "error"):
                    self._targets[index] = _NOWHERE

    def handle(self, first: int) -> int:
        """Handle messages from `first` on, to the end of the batch or until replies have waited long enough.

        Returns the index behind the last one handled. `values` holds what the handlers returned; those at
        an index in `deferred` are not replies.
        """
        self.deferred.clear()
        if self._batchers:
            return self._handle_grouped()
        values = self.values = []
        append, agents, cursor, clock = values.append, self._agents, self.cursor, time.perf_counter_ns
        stride = _CLOCK_STRIDE
        index = first
        looked = clock()
        due = looked + self._publish_after
        bodies = self._received.bodies
        pairs = (
            zip(self._targets, bodies, strict=True)
            if first == 0
            else zip(self._targets[first:], bodies[first:], strict=True)
        )
        for target, body in pairs:
            self.index = cursor[0] = index
            try:
                append(agents[target].on_message(body))
            except BaseException as error:
                append(self._failed(index, target, error))
            index += 1
            if index % stride == 0:
                now = clock()
                if now >= due:
                    break
                stride = 1 if now - looked > stride * _SLOW_NS else _CLOCK_STRIDE
                looked = now
        return index

    def spawn(self, order: SpawnOrder) -> SpawnReport:
        """Make the agents of an order; those that fail are reported, the rest live."""
        addresses = array("Q", order.addresses)
        before = _resident_bytes()
        failures: dict[int, ErrorInfo] = {}
        gc.disable()  # each object here is to stay: looking for garbage among them takes longer than making them
        try:
            kind, args, kwargs = pickle.loads(order.recipe)
            warm = self.warm.take(order.recipe, len(addresses)) if order.each is None else []
            for position, address in enumerate(addresses):
                try:
                    agent = warm.pop() if warm else construct(kind, args, self._arguments(order, kwargs, position))
                    self._install(address, agent)
                except BaseException as error:
                    self._agents.pop(address, None)
                    failures[position] = self.describe(error, address)
        except BaseException as error:
            info = describe(error, "agent", frames_to_skip=1)
            failures = dict.fromkeys(
                range(len(addresses)),
                info._replace(message=f"the class cannot be had in the worker: {info.message}"),
            )
        finally:
            gc.enable()
            gc.freeze()
        return SpawnReport(failures, _resident_bytes() - before)

    def stop(self, addresses: Sequence[int]) -> None:
        """Stop these agents; those that are not here are passed over."""
        for address in addresses:
            self._stop_one(address)

    def stop_all(self) -> None:
        """Run on_stop of every agent: the worker is about to leave."""
        self.stop([address for address in self._agents if address != _NOWHERE])

    def prewarm(self, order: PrewarmOrder) -> None:
        """Keep agents of this recipe in store."""
        kind, args, kwargs = pickle.loads(order.recipe)
        self.warm.want(order.recipe, order.share, lambda: construct(kind, args, kwargs))

    def resolve(self, correlation: int, body: Any) -> bool:
        """Give a reply to the coroutine that awaits it. False: nobody does any more."""
        future = self._asked.pop(correlation >> INDEX_BITS, None)
        if future is None or future.done():
            return False
        if isinstance(body, ErrorInfo):
            future.set_exception(revive(body, self.codec.allow_pickle))
        else:
            future.set_result(body)
        return True

    def due_timers(self, now: float) -> float | None:
        """Send what tell_later promised for now; return seconds until the next, None when there is none."""
        while self.timers and self.timers[0][0] <= now:
            _, _, ref, body = heapq.heappop(self.timers)
            try:
                self.tell(ref, body, None, False)
            except FabricError as error:
                self.failures.append((ref.address, COORDINATOR, self.describe(error, ref.address)))
        return self.timers[0][0] - now if self.timers else None

    @property
    def count(self) -> int:
        """How many agents live here."""
        return len(self._agents) - 1

    @property
    def busy_coroutines(self) -> bool:
        """Is a coroutine of some agent in hand?"""
        return any(not mailbox.idle for mailbox in self.mailboxes.values())

    # What the context and mailboxes call.

    def ticket_in_hand(self) -> Ticket | None:
        """Return the message in hand, None when none is."""
        if self._received is None:
            return None
        index = self.index
        return Ticket(
            self._targets[index],
            self._received.senders()[index],
            self._received.correlations()[index],
            self.stretch,
        )

    def defer(self, in_hand: bool = False) -> Ticket:
        """Let the message in hand be answered later; `in_hand`: it is not done before that."""
        ticket = current_ticket.get() or self.ticket_in_hand()
        if ticket is None:
            raise FabricError("no message is in hand: there is nothing to answer later")
        if current_ticket.get() is None:
            self.deferred.add(self.index)
        if in_hand and self.stretch is not None:
            self.stretch.in_hand += 1
        return ticket

    def answer(self, ticket: Ticket, value: Any) -> None:
        """Send the reply of a deferred message."""
        if ticket.correlation == 0:
            return
        encoding, body = self.encode_reply(ticket.target, value)
        self.outbox.reply(ticket.sender, ticket.target, ticket.correlation, encoding, body)

    def finish(self, ticket: Ticket, value: Any) -> None:
        """Send the reply of a coroutine's message; the loop commits it when that is out."""
        if isinstance(value, ErrorInfo):
            self.errors += 1
            if ticket.correlation == 0:
                self.failures.append((ticket.target, ticket.sender, value))
        self.answer(ticket, value)
        self.finished.append(ticket)
        if self.wake is not None:
            self.wake()

    def forward(self, ref: AgentRef, body: Any) -> None:
        """Pass the message in hand on; the receiver answers the one who asked."""
        ticket = self.defer()
        body = self._received.bodies[self.index] if body is ... else body
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref.address)
        self.outbox.tell(ref.address, ticket.sender, ticket.correlation, encoding, data)

    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None:
        """Remember to send a message."""
        self.codec.encode(body, ref._json)  # what cannot be sent is said now, to the one who wrote it
        self._token += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self._token, ref, body))

    def request_spawn(self, kind: type[Agent], count: int, options: dict[str, Any]) -> Awaitable[Any]:
        """Ask the coordinator to spawn."""
        return self._request(Request("spawn", (kind, count, options)))

    def describe(self, error: BaseException, address: int) -> ErrorInfo:
        """Make of an exception in an agent's code what can be sent as its reply."""
        return describe(error, _kind_of(error), address)

    def missing(self, address: int) -> ErrorInfo:
        """What the sender to an agent that is not here gets."""
        return ErrorInfo("not_found", f"{show(address)} has stopped, or never was", "", address, None)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of this worker; made when the first coroutine needs it."""
        if self._event_loop is None:
            self._event_loop = asyncio.new_event_loop()
        return self._event_loop

    def ref_to(self, address: int) -> AgentRef:
        """Return a reference to this agent."""
        return AgentRef(self, address, self.json_choices.get(address))

    # What references do in a worker (Messenger).

    def is_alive(self, address: int) -> bool:
        """Read the shared table."""
        return self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32) <= 0xFFFF

    def require_alive(self, address: int) -> None:
        """Raise AgentNotFoundError when nobody is at this address."""
        if not self.is_alive(address):
            raise AgentNotFoundError(f"{show(address)} has stopped, or never was")

    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None:
        """Queue a message; see AgentRef.tell."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        self.outbox.tell(ref._address, self._speaker(), 0, encoding, data)

    def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Awaitable[Any]:
        """Queue a question; await the answer. Only in a coroutine."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        future, correlation = self._expect()
        self.outbox.tell(ref._address, self._speaker(), correlation, encoding, data)
        return future if timeout is None else asyncio.wait_for(future, timeout)

    def ask(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """Refuse: a handler that waits stops all agents of its worker, maybe the one it waits for."""
        raise FabricError(
            "ask() in a handler would stop the whole worker while it waits: make on_message an async def and use "
            "`await ref.ask_async(body)`, or tell() and have the answer told back"
        )

    def submit(self, ref: AgentRef, body: Any, wait: bool) -> "Future[Any]":
        """Refuse, as `ask`."""
        return self.ask(ref, body, None)  # type: ignore[no-any-return]

    def tell_group(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> None:
        """Queue a message to each."""
        if same:
            bodies = [bodies] * len(group)
        for ref, body in zip(group, bodies, strict=True):
            self.tell(ref, body, timeout, False)

    def ask_group(
        self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        """Refuse, as `ask`."""
        return self.ask(group[0], bodies, timeout)  # type: ignore[no-any-return]

    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None:
        """Ask the coordinator to stop agents; does not wait for it."""
        self._request(Request("stop", (addresses,)))

    # The rest is private.

    def _handle_grouped(self) -> int:
        """Handle a whole batch where some agents take theirs together."""
        received = self._received
        bodies = received.bodies
        values = self.values = [None] * received.count
        groups: dict[int, list[int]] = {}
        for index, target in enumerate(self._targets):
            groups.setdefault(target if target in self._batchers else ~index, []).append(index)
        for key, indexes in groups.items():
            self.index = self.cursor[0] = indexes[0]
            target = self._targets[indexes[0]]
            try:
                if key >= 0:
                    replies = self._run_batch(self._batchers[target], [bodies[i] for i in indexes])
                else:
                    replies = [self._agents[target].on_message(bodies[indexes[0]])]
            except BaseException as error:
                replies = [self._failed(index, target, error) for index in indexes]
            for index, value in zip(indexes, replies, strict=True):
                values[index] = value
        return int(received.count)

    def _run_batch(self, agent: Any, bodies: list[Any]) -> list[Any]:
        replies = agent.on_batch(bodies)
        if replies is None:
            replies = [None] * len(bodies)
        replies = list(replies)
        if len(replies) != len(bodies):
            raise ValueError(
                f"{type(agent).__name__}.on_batch was given {len(bodies)} messages and returned {len(replies)} "
                "replies: return one for each, in order (or None for no replies at all)"
            )
        return replies

    def _failed(self, index: int, target: int, error: BaseException) -> Any:
        """Make the reply of a message whose handling raised."""
        self.errors += 1
        if target not in self._agents:
            address = self._targets[index]
            info = self.missing(address)
        else:
            info = self.describe(error, target if target != _NOWHERE else self._received.targets()[index])
        if self._received.correlations()[index] == 0:
            self.failures.append((info.agent, self._received.senders()[index], info))
        return info

    def _arguments(self, order: SpawnOrder, kwargs: dict[str, Any], position: int) -> dict[str, Any]:
        if order.each is None:
            return kwargs
        return {**kwargs, **{name: values[position] for name, values in order.each.items()}}

    def _install(self, address: int, agent: Agent) -> None:
        agent._host = self
        agent._address = address
        if agent.encoding is not None:
            self.json_choices[address] = agent.encoding == "json"
        receiver: Any = agent
        if hasattr(agent, "on_batch"):
            self._batchers[address] = agent
        elif inspect.iscoroutinefunction(agent.on_message):
            receiver = self.mailboxes[address] = Mailbox(self, agent)
        self._agents[address] = receiver
        if type(agent).on_start is not Agent.on_start:
            self._starting = address
            agent.on_start()

    def _stop_one(self, address: int) -> None:
        receiver = self._agents.pop(address, None)
        if receiver is None:
            return
        self._batchers.pop(address, None)
        self.json_choices.pop(address, None)
        mailbox = self.mailboxes.pop(address, None)
        agent = receiver if mailbox is None else mailbox.agent
        if mailbox is not None:
            mailbox.cancel()
        self._starting = address
        try:
            agent.on_stop()
        except BaseException as error:
            self.errors += 1
            self.failures.append((address, COORDINATOR, self.describe(error, address)))

    def _speaker(self) -> int:
        ticket = current_ticket.get()
        if ticket is not None:
            return ticket.target
        return self._starting if self._received is None else self._targets[self.index]

    def end(self) -> None:
        """Put the batch out of hand."""
        self._received = None
        self.stretch = None

    def _expect(self) -> "tuple[asyncio.Future[Any], int]":
        self._token += 1
        future = self._asked[self._token] = self.loop().create_future()
        return future, self._token << INDEX_BITS

    def _request(self, request: Request) -> "asyncio.Future[Any]":
        future, correlation = self._expect()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need await it
        encoding, data = self.codec.encode(request, json=False)
        self.outbox.request(self._speaker(), correlation, encoding, data)
        return future

    def encode_reply(self, address: int, value: Any) -> tuple[int, bytes]:
        try:
            return self.codec.encode(value, self.json_choices.get(address))
        except EncodingError as error:
            return self.codec.encode(ErrorInfo("encoding", f"the reply cannot be sent: {error}", "", address, None))


def _kind_of(error: BaseException) -> str:
    if isinstance(error, BackpressureError):
        return "backpressure"
    return "encoding" if isinstance(error, EncodingError) else "agent"


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
