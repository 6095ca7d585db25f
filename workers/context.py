"""Say what an agent may do while it handles a message: `self.context`.

There is one Context a worker. Which message it speaks of follows the message in hand: for ordinary agents
the host knows it, in a coroutine a context variable does, since others run in between.
"""

import contextvars
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import Any

from fabric.agent import Agent, AgentRef
from fabric.errors import FabricError
from fabric.loans import Loan
from fabric.messages import COORDINATOR, FORWARDED
from fabric.workers.ledger import Stretch

_ANSWERED = "this message has been answered already"
_NO_STREAM = "what answers a stream is what its handler returns or yields: it cannot be put off or passed on"


class Ticket:
    """A message in hand. `deferred`: what its handler returns is not its reply; `answered`: it has its reply."""

    __slots__ = (
        "answered",
        "behind",
        "body",
        "correlation",
        "deferred",
        "done",
        "owed",
        "sender",
        "stream",
        "stretch",
        "target",
    )

    def __init__(self, target: int, sender: int, correlation: int, body: Any, stretch: Stretch | None) -> None:
        self.target = target
        self.sender = sender
        self.correlation = correlation
        self.body = body
        self.stretch = stretch
        self.deferred = False
        self.answered = False
        self.done = False  # a coroutine has finished it
        self.behind = -1  # counter of its lane behind it, where there is a lane
        self.stream: Any = None  # workers.streams.Outgoing, where its reply is wanted item by item
        self.owed = False  # its reply is to come later, which is written down for a successor


current_ticket: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("current_ticket", default=None)


class ReplyHandle:
    """Answers an ask after its handler has returned. Keep it, and call `reply` or `fail` once."""

    __slots__ = ("_host", "_ticket")

    def __init__(self, host: Any, ticket: Ticket) -> None:
        self._host = host
        self._ticket = ticket

    def reply(self, body: Any) -> None:
        """Give the answer. FabricError when it was given already."""
        if self._ticket.answered:
            raise FabricError(_ANSWERED)
        self._host.answer(self._ticket, body)

    def fail(self, error: BaseException) -> None:
        """Answer with an error: the one who asked gets an AgentError with this as its cause."""
        self.reply(self._host.describe(error, self._ticket.target))

    def __del__(self) -> None:
        if not self._ticket.answered:
            self.fail(FabricError("the agent dropped the handle of reply_later without an answer"))


class Context:
    """What the agent in hand may do; valid in on_start, on_message, on_batch and on_stop.

    In on_batch, the message in hand is the first of the batch.
    """

    __slots__ = ("_host",)

    def __init__(self, host: Any) -> None:
        self._host = host

    @property
    def sender(self) -> AgentRef | None:
        """Who sent the message in hand; None when it was the coordinator."""
        address = self._ticket().sender
        return None if address == COORDINATOR else self._host.ref_to(address)

    @property
    def correlation_id(self) -> int:
        """The question's number, unique with its sender; 0 when the message was told."""
        return self._ticket().correlation

    def tell(self, ref: AgentRef, body: Any) -> None:
        """Send a message to another agent. Never waits.

        Raises:
            BackpressureError: the worker's outbox is full.
            AgentNotFoundError: the agent has stopped.
        """
        ref.tell(body)

    def reply_later(self) -> ReplyHandle:
        """Let this ask be answered later, through the handle; what the handler returns is not sent.

        The message counts as handled when the handler returns. If the worker dies before the answer, the one
        who asked gets a WorkerLostError. It gets an error too when the handler raises after this, before it
        has answered, or when the handle is dropped without an answer.
        """
        ticket = self._defer()
        if (
            ticket.correlation != 0 and not ticket.owed
        ):  # have it written down: a successor tells those who wait in vain
            ticket.owed = True
            self._host.owing.append(ticket)
        return ReplyHandle(self._host, ticket)

    def forward(self, ref: AgentRef, body: Any = ...) -> None:
        """Pass the message in hand (or `body` in its place) to another agent, who answers in our place."""
        host, ticket = self._host, self._in_hand()
        if ticket.answered:
            raise FabricError(_ANSWERED)
        if host.streaming or ticket.stream is not None:
            raise FabricError(_NO_STREAM)
        encoding, data = host.codec.encode(ticket.body if body is ... else body, ref._json)
        host.require_alive(ref._address)
        host.outbox.tell(ref._address, ticket.sender, ticket.correlation, encoding, data, FORWARDED)
        self._defer().answered = True  # not before: had anything of this raised, the one who asked is to know
        host.woken()

    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None:
        """Send a message after so many seconds, unless the fabric closes before.

        If the worker dies meanwhile, its successor sends it: once, or twice if that was just being done. A large one
        (over arena_threshold), or one of too many, is a dead letter then.
        """
        self._host.tell_later(seconds, ref, body)

    def loan(self, shape: Any, dtype: Any = "f8", order: str = "C") -> AbstractContextManager[Any]:
        """Lend an array that lies where receivers will see it, as Fabric.loan; BackpressureError: never waits."""
        return Loan(self._host.arena, shape, dtype, order)

    def spawn_batch(self, kind: type[Agent], count: int, **options: Any) -> Awaitable[Any]:
        """Ask the coordinator for agents, with the options of Fabric.spawn_batch; await the AgentGroup.

        In a handler that is no coroutine the agents are made all the same, and nobody learns their names.
        """
        made: Awaitable[Any] = self._host.requests.spawn(kind, count, options)
        return made

    def _defer(self) -> Ticket:
        """Let the message in hand be answered by other means than what its handler returns."""
        host, ticket = self._host, self._in_hand()
        if host.streaming or ticket.stream is not None:
            raise FabricError(_NO_STREAM)
        if current_ticket.get() is None:
            host.deferred[host.index] = ticket
        ticket.deferred = True
        return ticket

    def _in_hand(self) -> Ticket:
        host, ticket = self._host, current_ticket.get()
        if ticket is None and host._received is not None:
            ticket = host.deferred.get(host.index) or host.ticket_in_hand()
        if ticket is None:
            raise FabricError("no message is in hand: there is nothing to answer or to pass on")
        return ticket

    def _ticket(self) -> Ticket:
        ticket = current_ticket.get() or self._host.ticket_in_hand()
        if ticket is None:
            raise FabricError("no message is in hand: this is known only while one is handled")
        return ticket
