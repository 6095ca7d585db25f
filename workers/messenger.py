"""Send for the agents of a worker: what references and the context do in this process.

It knows which message is in hand (the host says so), hence who speaks and who would get a reply. Nothing
here waits: messages go to the outbox, and answers to questions come back to the coroutine that asked.
"""

import time
import weakref
from array import array
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fabric.agent import AgentGroup, AgentRef
from fabric.arena import Arena
from fabric.array_agents import ArrayGroup
from fabric.codec import Codec, stream_hint
from fabric.errors import (
    AgentError,
    AgentNotFoundError,
    BackpressureError,
    EncodingError,
    FabricError,
    MessageTooLargeError,
)
from fabric.messages import COORDINATOR, CURSOR_LANE_SHIFT, ERROR, INDEX_BITS, ErrorInfo, show
from fabric.parcel import Data
from fabric.remote_errors import Undecodable, describe, refusal, revive
from fabric.sender import as_sequence
from fabric.workers.context import Context, Ticket, current_ticket
from fabric.workers.handler_clock import HandlerClock
from fabric.workers.keeper import Keeper
from fabric.workers.later import Due, LaterMessenger
from fabric.workers.ledger import Stretch
from fabric.workers.outbox import Outbox
from fabric.workers.reading import WorkerStream
from fabric.workers.requests import Requests
from fabric.workers.streaming import StreamMessenger
from fabric.workers.streams import Streams

NO_WAITING = (
    "ask() in a handler would stop the whole worker while it waits: make on_message an async def and use "
    "`await ref.ask_async(body)`, or tell() and have the answer told back"
)


class WorkerMessenger(LaterMessenger, StreamMessenger):
    """What a worker's agents send and answer; a fabric.agent.Messenger."""

    def __init__(
        self,
        identity: int,
        codec: Codec,
        outbox: Outbox,
        table: Sequence[int],
        publish_after_us: float,
        first_token: int = 0,
    ) -> None:
        """`first_token` is higher for a successor: replies to what its predecessor asked are not for it."""
        self.identity = identity
        self.codec = codec
        self.outbox = outbox
        outbox.undeliverable = self._undeliverable
        self.context = Context(self)
        self.deferred: dict[int, Ticket] = {}  # by index in the batch in hand, what is answered by other means
        self.failures: list[tuple[int, int, ErrorInfo]] = []  # (agent, sender, why) of told messages
        self.owing: list[Any] = []  # of the slice in hand: a Ticket that is answered later, a Later that is sent
        self.finished: list[Ticket] = []  # of coroutines; the loop commits them when their replies are out
        self.wake: Callable[[], None] | None = None  # ends the loop's sleep among coroutines
        self.errors = 0
        self.new_selector: Callable[[], Any] | None = None  # what the event loop waits with
        self.handler_clock = HandlerClock()
        self.barred: dict[int, FabricError] = {}  # agents that are not to be made: that has killed workers
        self.keeper: Keeper | None = None  # of snapshots; there is none without a segment
        self.arena: Arena | None = None  # likewise
        self.wait_for_returns: Callable[[Callable[[], bool], float], bool] | None = None  # for replies, which may wait
        self.requests = Requests(self)
        self.streams = Streams(self, int(publish_after_us * 1000))
        self.reading: weakref.WeakSet[WorkerStream] = weakref.WeakSet()  # what coroutines here read
        self.streaming = False  # is the message in hand a question for a stream?
        self.in_hand = 0  # messages that coroutines and streams have not finished
        self.clock = time.monotonic  # what tell_later goes by
        self.timers: list[tuple[float, int, Due]] = []
        self.fired: list[int] = []
        self.json_choices: dict[int, bool | None] = {}  # by address, of agents whose class has one
        # Which message is in hand, for the supervisor too: index in the batch plus 1, or 0; where the batch begins.
        self.cursor: Any = [0, 0]
        self.withdrawn: Any = (0,)  # one word: how far the coordinator took back what was sent to runners of tasks
        self.stretch: Stretch | None = None  # of the slice in hand; made when a coroutine takes a message
        self._table = table
        self._received: Any = None
        self._targets: list[int] = []
        self._starting = COORDINATOR  # the agent whose on_start or on_stop runs
        self._asked: dict[int, Any] = {}  # futures of coroutines, or weak references to their streams, by token
        self._token = first_token
        self._event_loop: Any = None

    # The message in hand.

    @property
    def index(self) -> int:
        """Its index in the batch."""
        return int(self.cursor[0]) - 1

    @property
    def is_withdrawn(self) -> bool:
        """Was the message in hand taken back before it was begun? Whoever sent it has it done elsewhere."""
        received = self._received
        return received.lane == COORDINATOR and bool(received.end_of(self.index + 1) <= self.withdrawn[0])

    def ticket_in_hand(self) -> Ticket | None:
        """Return the message in hand, None when none is."""
        if self._received is None:
            return None
        index = self.index
        return Ticket(
            self._targets[index],
            self._received.senders()[index],
            self._received.correlations()[index],
            self._received.bodies[index],
            self.stretch,
        )

    def end(self) -> None:
        """Put the batch out of hand, and let go of its bodies: what was lent goes back though nothing more comes."""
        self._received = None
        self.deferred.clear()

    def take_in_hand(self) -> Ticket:
        """Take the message in hand over for a coroutine: it is done and answered when that is."""
        if self.stretch is None:
            self.stretch = Stretch(self._received.lane, begin=self._received.end - self._received.bytes)
        ticket = self.ticket_in_hand()
        assert ticket is not None
        if self.keeper is not None:
            ticket.behind = self._received.end_of(self.index + 1)
        self.deferred[self.index] = ticket
        self.stretch.in_hand += 1
        self.stretch.tickets.append(ticket)
        self.in_hand += 1
        if self.streaming:
            self.streams.expect(ticket, self._place_in_hand())
        return ticket

    def answer(self, ticket: Ticket, value: Any) -> None:
        """Send the reply of a deferred message."""
        if ticket.correlation != 0:
            self.send_reply(ticket.sender, ticket.target, ticket.correlation, value)
        self.release(ticket)
        self.woken()

    def release(self, ticket: Ticket) -> None:
        """Note that a message has its reply."""
        ticket.answered = True
        if ticket.owed and self.keeper is not None:
            self.keeper.paid(ticket)

    def finish(self, ticket: Ticket, value: Any) -> None:
        """Send the reply of a coroutine's message, or begin its stream; the loop commits it when that is out."""
        if ticket.stream is not None:
            if not isinstance(value, ErrorInfo):
                self.streams.begin(ticket, value)
                return
            self.streams.refuse(ticket)
        if self.keeper is not None:
            self.keeper.capture(ticket.target)
        if isinstance(value, ErrorInfo):
            self.errors += 1
            self.handler_clock.blame(ticket.target, self.errors)
            if ticket.correlation == 0 or ticket.answered:  # nobody else would learn of it
                self.failures.append((ticket.target, ticket.sender, value))
        if not ticket.answered and (not ticket.deferred or isinstance(value, ErrorInfo)):
            self.answer(ticket, value)
        ticket.done = True
        if ticket.owed and self.keeper is not None and not (ticket.deferred and not ticket.answered):
            self.keeper.paid(ticket)
        self.finished.append(ticket)
        self.in_hand -= 1
        self.woken()

    def _place_in_hand(self) -> int:
        """Return what the cursor would say of the message in hand, if it were a batch of its own."""
        if self.keeper is None:  # there is no lane
            return 0
        received, index = self._received, self.index
        begin: int = received.end_of(index) if index else received.end - received.bytes
        return int(received.lane) << CURSOR_LANE_SHIFT | begin

    def place_behind(self) -> tuple[int, int] | None:
        """Return the lane of the message in hand and its counter behind it; None where there is none, or no lane."""
        ticket = current_ticket.get()
        if ticket is not None:
            return None if ticket.stretch is None or ticket.behind < 0 else (ticket.stretch.lane, ticket.behind)
        if self._received is None or self.keeper is None or self.index < 0:
            return None
        return int(self._received.lane), int(self._received.end_of(self.index + 1))

    def woken(self) -> None:
        """A coroutine has something to send: end the sleep in the event loop."""
        if self.wake is not None:
            self.wake()

    def resolve(self, correlation: int, body: Any) -> bool:
        """Give a reply to the coroutine that awaits it. False: nobody does any more."""
        token = correlation >> INDEX_BITS
        future = self._asked.get(token)
        if isinstance(future, weakref.ref):
            stream = future()
            return stream is not None and stream.accept(correlation, body)
        self._asked.pop(token, None)
        if future is None or future.done():
            return False
        if isinstance(body, ErrorInfo):
            error = revive(body, self.codec.allow_pickle)
            if isinstance(error, AgentError) and body.agent == COORDINATOR and error.__cause__ is not None:
                future.set_exception(error.__cause__)  # a SpawnError, say
            else:
                future.set_exception(error)
        elif isinstance(body, Undecodable):
            future.set_exception(body.error)
        else:
            future.set_result(body)
        return True

    # For the host and the mailboxes.

    def describe(self, error: BaseException, address: int) -> ErrorInfo:
        """Make of an exception in an agent's code what can be sent as its reply."""
        return describe(error, "agent", address)

    def missing(self, address: int) -> ErrorInfo:
        """What the sender to an agent that is not here gets."""
        barred = self.barred.get(address)
        return refusal(barred or AgentNotFoundError(f"{show(address)} has stopped, or never was"))

    def send_reply(self, to: int, address: int, correlation: int, value: Any) -> bool:
        """Queue the reply of the agent at `address`; one that is too large goes as an error. False: an error goes."""
        encoding, body = self.encode_reply(address, value)
        try:
            self.outbox.reply(to, address, correlation, encoding, body)
        except (MessageTooLargeError, BackpressureError) as error:
            self.outbox.reply(to, address, correlation, *self.codec.encode(refusal(error)))
            return False
        return encoding != ERROR

    def encode_reply(self, address: int, value: Any) -> tuple[int, Data]:
        """Encode a reply; one that cannot be encoded becomes an error."""
        try:
            return self.codec.encode(value, self.json_choices.get(address))
        except BackpressureError:  # unlike a send inside a handler a reply may wait for room: for a while
            pass  # and below: the exception keeps what the parts before it have taken
        except EncodingError as error:
            text = f"the reply cannot be sent: {error}{stream_hint(value)}"
            return self.codec.encode(refusal(EncodingError(text), error.__cause__))
        return self._encode_patiently(value, self.json_choices.get(address))

    def _encode_patiently(self, value: Any, json: bool | None) -> tuple[int, Data]:
        assert self.arena is not None
        self.arena.wait = self.wait_for_returns
        try:
            return self.codec.encode(value, json)
        except (EncodingError, BackpressureError) as error:
            return self.codec.encode(refusal(EncodingError(f"the reply cannot be sent: {error}"), error.__cause__))
        finally:
            self.arena.wait = None

    def loop(self) -> Any:
        """Return the event loop of this worker; made when the first coroutine needs it."""
        if self._event_loop is None:
            import asyncio  # 16 ms, and most workers never need it

            selector = None if self.new_selector is None else self.new_selector()
            self._event_loop = asyncio.SelectorEventLoop(selector)
        return self._event_loop

    def ref_to(self, address: int) -> AgentRef:
        """Return a reference to this agent."""
        return AgentRef(self, address, self.json_choices.get(address))

    # What references do in a worker (Messenger).

    def is_alive(self, address: int) -> bool:
        """Read the shared table."""
        return self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32) <= 0xFFFF

    def slot_of(self, address: int) -> int | None:
        """Return the slot of an agent, None when it is not alive."""
        slot = self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32)
        return slot if slot <= 0xFFFF else None

    def require_alive(self, address: int) -> None:
        """Raise AgentNotFoundError when nobody is at this address."""
        if self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32) > 0xFFFF:  # as is_alive: each send asks
            raise AgentNotFoundError(f"{show(address)} has stopped, or never was")

    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None:
        """Queue a message; see AgentRef.tell."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        self.outbox.tell(ref._address, self._speaker(), 0, encoding, data)
        if self.wake is not None:
            self.wake()

    def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Awaitable[Any]:
        """Queue a question; await the answer. Only in a coroutine."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        future, correlation = self._expect()
        self.outbox.tell(ref._address, self._speaker(), correlation, encoding, data)
        self.woken()
        if timeout is None:
            return future  # type: ignore[no-any-return]
        import asyncio

        return asyncio.wait_for(future, timeout)

    def ask(self, ref: AgentRef, body: Any, timeout: float | None, expire: bool = False) -> Any:
        """Refuse: a handler that waits stops all agents of its worker, maybe the one it waits for."""
        raise FabricError(NO_WAITING)

    def submit(self, ref: AgentRef, body: Any, wait: bool) -> "Future[Any]":
        """Refuse, as `ask`."""
        raise FabricError(NO_WAITING)

    def tell_group(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> None:
        """Queue a message to each."""
        bodies = [bodies] * len(group) if same else as_sequence(bodies)
        if len(bodies) != len(group):
            raise ValueError(f"{len(group):,} agents and {len(bodies):,} bodies: give one body for each")
        for ref, body in zip(group, bodies, strict=True):
            self.tell(ref, body, timeout, False)

    def ask_group(
        self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        """Refuse, as `ask`."""
        raise FabricError(NO_WAITING)

    def tell_records(self, group: ArrayGroup, ids: Any, records: Any, timeout: float | None) -> None:
        """Queue records, all or none of them; see ArrayGroup.tell_records."""
        from fabric.workers.ranges import queue_records  # brings numpy

        for address in group.where.addresses:
            self.require_alive(address)
        queue_records(self.outbox, self._speaker(), group, ids, records)
        self.woken()

    def ask_records(self, group: ArrayGroup, ids: Any, records: Any, timeout: float | None) -> Any:
        """Refuse, as `ask`."""
        raise FabricError(NO_WAITING)

    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None:
        """Ask the coordinator to stop agents; does not wait for it."""
        self.requests.stop(addresses)

    def _undeliverable(self, target: int, sender: int, correlation: int) -> None:
        """Say that a message of one of our agents found nobody: to whoever asked, else to the coordinator."""
        if correlation != 0:
            self.send_reply(sender, target, correlation, self.missing(target))
        else:
            self.errors += 1
            self.failures.append((target, sender, self.missing(target)))

    def _speaker(self) -> int:
        ticket = current_ticket.get()
        if ticket is not None:
            return ticket.target
        return self._starting if self._received is None else self._targets[self.index]

    def _next_token(self) -> int:
        self._token += 1
        return self._token

    def _expect(self) -> tuple[Any, int]:
        token = self._next_token()
        future = self._asked[token] = self.loop().create_future()
        return future, token << INDEX_BITS
