"""Make the items of streams: run the generators of agents as far as their readers allow.

    question ─▶ host ─▶ on_message ─▶ a generator ─▶ ready ◀──credit── resting
                                                       │ turn                ▲
                                                       └─ items ─▶ outbox ───┘ a window ahead of the reader

Generators take turns, between batches of messages; an asynchronous one is a task of the event loop. So an
agent handles other messages while streams of its own are open, between two `yield`s of theirs, as a coroutine
does between two `await`s.

The question is in hand until its stream is over: its lane is not committed past it (workers.ledger), and a
successor gets it again. While a generator runs, the cursor says so: a message whose generator kills workers is
found out like any other.
"""

import contextvars
import inspect
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from fabric.flow import Outflow
from fabric.messages import (
    COORDINATOR,
    CURSOR_STEP_SHIFT,
    DIRECT,
    INDEX_BITS,
    INDEX_MASK,
    STREAM_END,
    ErrorInfo,
)
from fabric.workers.context import Ticket, current_ticket

_TAKEN = struct.Struct("<Q")
_STEPS = 1 << 63 - CURSOR_STEP_SHIFT
_Key = tuple[int, int]


class Outgoing:
    """A stream that is asked of an agent here."""

    __slots__ = ("context", "flow", "key", "over", "resting", "room", "source", "task", "ticket", "where")

    def __init__(self, ticket: Ticket, where: int) -> None:
        self.ticket = ticket
        self.where = where  # what the cursor says of its question, 0 for nothing
        self.key = ticket.sender, ticket.correlation >> INDEX_BITS
        self.flow = Outflow(ticket.correlation & (DIRECT - 1))
        self.source: Any = None  # an ordinary generator
        self.context: Any = None  # what that runs in
        self.resting = False
        self.task: Any = None  # of an asynchronous one
        self.room: Any = None  # what that awaits, when it rests
        self.over = False

    def correlation(self) -> int:
        """Count a reply; return its correlation id."""
        return self.ticket.correlation & ~INDEX_MASK | self.flow.number()


class Streams:
    """The streams of one host."""

    def __init__(self, host: Any, nanoseconds: int) -> None:
        """`nanoseconds` is how long a turn takes, at least an item."""
        self._host = host
        self._nanoseconds = nanoseconds
        self._open: dict[_Key, Outgoing] = {}
        self._ready: deque[Outgoing] = deque()
        self._steps = 0
        self.plain = 0  # streams of ordinary generators: they need no event loop
        self.first_token_of: Callable[[int], int] = lambda slot: 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def ready(self) -> bool:
        """Is there one that may go on?"""
        return bool(self._ready) and not self._host.outbox.backed_up

    def expect(self, ticket: Ticket, where: int) -> None:
        """Take note of a question; its stream begins with what the handler returns."""
        ticket.stream = Outgoing(ticket, where)
        self._open[ticket.stream.key] = ticket.stream

    def begin(self, ticket: Ticket, value: Any) -> None:
        """Begin a stream with what the handler returned."""
        out: Outgoing = ticket.stream
        if inspect.isasyncgen(value):
            out.task = self._host.loop().create_task(self._run(out, value))
            out.task.add_done_callback(lambda task: self._end(out))
        else:
            out.source = value if inspect.isgenerator(value) else iter((value,))
            out.context = contextvars.copy_context()
            out.context.run(current_ticket.set, ticket)
            self.plain += 1
            self._ready.append(out)
        if out.over:  # cancelled before it began
            self._close(out)
        self._host.woken()

    def refuse(self, ticket: Ticket) -> None:
        """Forget a question whose handler raised: that is its answer."""
        self._open.pop(ticket.stream.key, None)
        ticket.stream = None

    # What readers say.

    def credit(self, sender: int, correlation: int, body: Any) -> None:
        """Take in how many items a reader has taken."""
        out = self._open.get((sender, correlation >> INDEX_BITS))
        if out is None or type(body) is not bytes or len(body) != _TAKEN.size:
            return
        out.flow.grant(*_TAKEN.unpack(body))
        if out.resting and out.flow.open:
            out.resting = False
            self._ready.append(out)
        if out.room is not None and not out.room.done():
            out.room.set_result(None)

    def cancel(self, sender: int, correlation: int) -> None:
        """Close a stream that nobody reads."""
        out = self._open.get((sender, correlation >> INDEX_BITS))
        if out is not None:
            self._close(out)

    def stop(self, address: int) -> None:
        """Close the streams of an agent that is being stopped; their readers are told."""
        for out in [out for out in self._open.values() if out.ticket.target == address]:
            if out.source is not None or out.task is not None:  # else its mailbox answers
                ticket = out.ticket
                self._host.send_reply(ticket.sender, address, ticket.correlation, self._host.missing(address))
                self._close(out)

    def drop_orphans(self) -> None:
        """Close those that were asked for by agents that are gone, or by a worker that has a successor."""
        for out in list(self._open.values()):
            sender, token = out.key
            if sender == COORDINATOR:
                continue
            slot = self._host.slot_of(sender)
            if slot is None or token < self.first_token_of(slot):
                self._close(out)

    # Ordinary generators.

    def turn(self) -> None:
        """Have those that are ready make items, each in turn, for as long as handlers may take in one go."""
        clock = time.perf_counter_ns
        due = clock() + self._nanoseconds
        while self.ready:
            out = self._ready.popleft()
            while out.flow.open and not out.over:
                self._make_one(out)
                if clock() >= due:
                    break
            if out.flow.open and not out.over:
                self._ready.append(out)
            else:
                out.resting = True
            if clock() >= due:
                return

    def _make_one(self, out: Outgoing) -> None:
        host, ticket = self._host, out.ticket
        self._point_at(out)
        try:
            value = out.context.run(next, out.source)
        except StopIteration:
            value = ErrorInfo(STREAM_END, "", "", ticket.target, None)
        except BaseException as error:
            value = self._failed(out, error)
        went = host.send_reply(ticket.sender, ticket.target, out.correlation(), value)
        if not went:  # it is over, or this item cannot be sent
            self._close(out)
        host.cursor[0] = 0

    def _point_at(self, out: Outgoing) -> None:
        """Say in the cursor which message is in hand, and that it is not in hand since the last look."""
        if out.where and not out.ticket.owed:  # else it is committed, and could not be found
            self._steps = (self._steps + 1) % _STEPS
            self._host.cursor[1] = out.where
            self._host.cursor[0] = 1 | self._steps << CURSOR_STEP_SHIFT

    # Asynchronous ones.

    async def _run(self, out: Outgoing, source: Any) -> None:
        import asyncio  # it is there: this is a coroutine

        host, ticket = self._host, out.ticket
        current_ticket.set(ticket)
        went = True
        try:
            while went:
                while not out.flow.open:
                    out.room = host.loop().create_future()
                    await out.room
                try:
                    value = await anext(source)
                except StopAsyncIteration:
                    value = ErrorInfo(STREAM_END, "", "", ticket.target, None)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    value = self._failed(out, error)
                went = host.send_reply(ticket.sender, ticket.target, out.correlation(), value)
                host.woken()
        except asyncio.CancelledError:  # whoever cancelled it has said so
            pass
        try:
            await source.aclose()
        except BaseException as error:
            self._report(out, error)

    # The end.

    def _close(self, out: Outgoing) -> None:
        """Have a generator run its `finally`, and be done with the stream."""
        out.over = True
        if out.task is not None:
            out.task.cancel()
        elif out.source is not None:
            try:
                if inspect.isgenerator(out.source):
                    self._point_at(out)
                    out.context.run(out.source.close)
            except BaseException as error:
                self._report(out, error)
            self.plain -= 1
            out.source = None
            self._end(out)
            self._host.cursor[0] = 0

    def _end(self, out: Outgoing) -> None:
        """Be done with the question too."""
        self._open.pop(out.key, None)
        out.over = True
        ticket = out.ticket
        ticket.stream, ticket.answered = None, True
        self._host.finish(ticket, None)

    def _failed(self, out: Outgoing, error: BaseException) -> ErrorInfo:
        """Make of what a generator raised the reply with which its stream ends."""
        self._host.errors += 1
        info: ErrorInfo = self._host.describe(error, out.ticket.target)
        return info

    def _report(self, out: Outgoing, error: BaseException) -> None:
        """Report what a generator raised while it was closed: its reader is gone."""
        target, sender = out.ticket.target, out.ticket.sender
        self._host.failures.append((target, sender, self._failed(out, error)))
