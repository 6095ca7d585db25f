"""Host an agent whose `on_message` is a coroutine: its messages wait here while it awaits.

    lane -> host -> Mailbox.on_message -> waiting -> task (at most max_concurrency at once)
                                                       \\-> host.answer when it is done

Messages start in the order in which they came. With max_concurrency = 1 (the default) the agent handles one
at a time, as every agent does; a coroutine that asks its own agent then waits for ever, as it says.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from fabric.agent import Agent
from fabric.workers.context import Ticket, current_ticket


class Mailbox:
    """Stands in the host where an ordinary agent would, and takes its messages."""

    __slots__ = ("_host", "_on_idle", "_running", "_tasks", "_waiting", "agent")

    def __init__(self, host: Any, agent: Agent) -> None:
        self.agent = agent
        self._host = host
        self._on_idle: Callable[[], None] | None = None
        self._running = 0
        self._waiting: deque[tuple[Ticket, Any]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_message(self, body: Any) -> None:
        """Take a message; its reply comes later."""
        self._waiting.append((self._host.take_in_hand(), body))
        self._start_some()

    def cancel(self, on_idle: Callable[[], None]) -> None:
        """End the coroutines, and answer what waits: the agent is being stopped. Call back when all is done."""
        self._on_idle = on_idle
        for task in self._tasks:
            task.cancel()
        while self._waiting:
            ticket, _ = self._waiting.popleft()
            self._host.finish(ticket, self._host.missing(ticket.target))
        if self.idle:
            on_idle()

    @property
    def idle(self) -> bool:
        """Is nothing in hand and nothing waiting?"""
        return not self._tasks and not self._waiting

    def _start_some(self) -> None:
        while self._waiting and self._running < self.agent.max_concurrency:
            ticket, body = self._waiting.popleft()
            self._running += 1
            task = self._host.loop().create_task(self._run(ticket, body))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._on_idle is not None and self.idle:
            self._on_idle()

    async def _run(self, ticket: Ticket, body: Any) -> None:
        current_ticket.set(ticket)
        try:
            value = await self.agent.on_message(body)
        except asyncio.CancelledError:
            self._end(ticket, self._host.missing(ticket.target))
        except BaseException as error:  # it is still alive here, and with it a handle of reply_later
            self._end(ticket, self._host.describe(error, ticket.target))
        else:
            self._end(ticket, value)

    def _end(self, ticket: Ticket, value: Any) -> None:
        self._running -= 1
        self._host.finish(ticket, value)
        self._start_some()
