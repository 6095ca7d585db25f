"""Send for the agents of a worker: what references and the context do in this process.

It knows which message is in hand (the host says so), hence who speaks and who would get a reply. Nothing
here waits: messages go to the outbox, and answers to questions come back to the coroutine that asked.
"""

import heapq
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fabric.agent import Agent, AgentGroup, AgentRef
from fabric.codec import Codec, describe, refusal, revive
from fabric.errors import AgentNotFoundError, EncodingError, FabricError
from fabric.messages import COORDINATOR, INDEX_BITS, ErrorInfo, Request, show
from fabric.workers.context import Context, Ticket, current_ticket
from fabric.workers.ledger import Stretch
from fabric.workers.outbox import Outbox


class WorkerMessenger:
    """What a worker's agents send and answer; a fabric.agent.Messenger."""

    def __init__(self, identity: int, codec: Codec, outbox: Outbox, table: Sequence[int]) -> None:
        self.identity = identity
        self.codec = codec
        self.outbox = outbox
        self.context = Context(self)
        self.deferred: set[int] = set()  # indexes in the batch in hand whose reply comes later
        self.failures: list[tuple[int, int, ErrorInfo]] = []  # (agent, sender, why) of told messages
        self.finished: list[Ticket] = []  # of coroutines; the loop commits them when their replies are out
        self.wake: Callable[[], None] | None = None  # ends the loop's sleep among coroutines
        self.errors = 0
        self.timers: list[tuple[float, int, AgentRef, Any]] = []
        self.json_choices: dict[int, bool | None] = {}  # by address, of agents whose class has one
        self.index = 0
        self.stretch: Stretch | None = None
        self._table = table
        self._received: Any = None
        self._targets: list[int] = []
        self._starting = COORDINATOR  # the agent whose on_start or on_stop runs
        self._asked: dict[int, Any] = {}  # futures of coroutines, by token
        self._token = 0
        self._event_loop: Any = None

    # The message in hand.

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

    def end(self) -> None:
        """Put the batch out of hand."""
        self._received = None
        self.stretch = None

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

    # What comes later.

    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None:
        """Remember to send a message."""
        self.codec.encode(body, ref._json)  # what cannot be sent is said now, to the one who wrote it
        self._token += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self._token, ref, body))

    def due_timers(self, now: float) -> float | None:
        """Send what tell_later promised for now; return seconds until the next, None when there is none."""
        while self.timers and self.timers[0][0] <= now:
            _, _, ref, body = heapq.heappop(self.timers)
            try:
                self.tell(ref, body, None, False)
            except FabricError as error:
                self.failures.append((ref.address, COORDINATOR, self.describe(error, ref.address)))
        return self.timers[0][0] - now if self.timers else None

    def request_spawn(self, kind: type[Agent], count: int, options: dict[str, Any]) -> Awaitable[Any]:
        """Ask the coordinator to spawn."""
        made: Awaitable[Any] = self._request(Request("spawn", (kind, count, options)))
        return made

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

    # For the host and the mailboxes.

    def describe(self, error: BaseException, address: int) -> ErrorInfo:
        """Make of an exception in an agent's code what can be sent as its reply."""
        return describe(error, "agent", address)

    def missing(self, address: int) -> ErrorInfo:
        """What the sender to an agent that is not here gets."""
        return refusal(AgentNotFoundError(f"{show(address)} has stopped, or never was"))

    def encode_reply(self, address: int, value: Any) -> tuple[int, bytes]:
        try:
            return self.codec.encode(value, self.json_choices.get(address))
        except EncodingError as error:
            return self.codec.encode(refusal(EncodingError(f"the reply cannot be sent: {error}")))

    def loop(self) -> Any:
        """Return the event loop of this worker; made when the first coroutine needs it."""
        if self._event_loop is None:
            import asyncio  # 16 ms, and most workers never need it

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
        if timeout is None:
            return future  # type: ignore[no-any-return]
        import asyncio

        return asyncio.wait_for(future, timeout)

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

    def _speaker(self) -> int:
        ticket = current_ticket.get()
        if ticket is not None:
            return ticket.target
        return self._starting if self._received is None else self._targets[self.index]

    def _expect(self) -> tuple[Any, int]:
        self._token += 1
        future = self._asked[self._token] = self.loop().create_future()
        return future, self._token << INDEX_BITS

    def _request(self, request: Request) -> Any:
        future, correlation = self._expect()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need await it
        encoding, data = self.codec.encode(request, json=False)
        self.outbox.request(self._speaker(), correlation, encoding, data)
        return future
