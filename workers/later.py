"""Send messages later, for the agents of a worker: that part of WorkerMessenger."""

import heapq
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from fabric.agent import AgentRef
from fabric.codec import Codec, refusal
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.messages import ErrorInfo
from fabric.parcel import Data
from fabric.workers.outbox import Outbox

SOON = 0.01  # seconds until another try, where the outbox is full when a message is due


class Later(NamedTuple):
    """A message that is to be sent later."""

    target: int
    sender: int
    encoding: int
    body: Data


class LaterMessenger:
    """What the context does in a worker about time."""

    codec: Codec
    outbox: Outbox
    failures: list[tuple[int, int, ErrorInfo]]
    clock: Callable[[], float]
    timers: list[tuple[float, int, Later]]

    @abstractmethod
    def is_alive(self, address: int) -> bool: ...
    @abstractmethod
    def require_alive(self, address: int) -> None: ...
    @abstractmethod
    def woken(self) -> None: ...
    @abstractmethod
    def _next_token(self) -> int: ...
    @abstractmethod
    def _speaker(self) -> int: ...
    @abstractmethod
    def _undeliverable(self, target: int, sender: int, correlation: int) -> None: ...

    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None:
        """Remember to send a message."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        send = Later(ref._address, self._speaker(), encoding, data)
        heapq.heappush(self.timers, (self.clock() + seconds, self._next_token(), send))
        self.woken()

    def due_timers(self, now: float) -> float | None:
        """Send what tell_later promised for now; return seconds until the next, None when there is none."""
        while self.timers and self.timers[0][0] <= now:
            send = self.timers[0][2]
            try:
                if self.is_alive(send.target):
                    self.outbox.tell(send.target, send.sender, 0, send.encoding, send.body)
                else:
                    self._undeliverable(send.target, send.sender, 0)
            except BackpressureError:
                return SOON
            except MessageTooLargeError as error:
                self.failures.append((send.target, send.sender, refusal(error)))
            heapq.heappop(self.timers)
        return self.timers[0][0] - now if self.timers else None
