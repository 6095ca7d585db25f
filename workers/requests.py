"""Ask the coordinator, for the agents of a worker, for what only it does: to make agents and to stop them.

    request, with who asks and which message was in hand --> outbox --> lane to the coordinator --> answer

When a message is handled again after a crash, what it asked for comes again, by the same origin: see SpawnRequest.
"""

from array import array
from collections.abc import Awaitable
from typing import Any

from fabric.agent import Agent
from fabric.messages import SpawnRequest
from fabric.workers.context import current_ticket


class Requests:
    """What one worker asks of the coordinator."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._last_origin: tuple[tuple[int, int], int] = (-1, -1), 0

    def spawn(self, kind: type[Agent], count: int, options: dict[str, Any]) -> Awaitable[Any]:
        """Ask for agents; await their AgentGroup."""
        made: Awaitable[Any] = self._send(SpawnRequest(kind, count, options, self._origin()))
        return made

    def stop(self, addresses: "array[int]") -> None:
        """Ask to stop agents; nobody waits for it."""
        self._send(addresses.tobytes())

    def _origin(self) -> tuple[int, int, int] | None:
        where = None if current_ticket.get() is not None else self._host.place_behind()
        if where is None:
            return None
        last, count = self._last_origin
        self._last_origin = where, count + 1 if where == last else 0
        return (*where, self._last_origin[1])

    def _send(self, request: SpawnRequest | bytes) -> Any:
        future, correlation = self._host._expect()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need await it
        encoding, data = self._host.codec.encode(request, json=False)
        self._host.outbox.request(self._host._speaker(), correlation, encoding, data)
        self._host.woken()
        return future
