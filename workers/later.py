"""Send messages later, for the agents of a worker: that part of WorkerMessenger.

tell_later --> timers (this process)           due_timers --> outbox
    └--------> journal, before the message in hand is committed   └--> GONE in the journal, once it is out
"""

import heapq
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from fabric.agent import AgentRef
from fabric.codec import Codec
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.messages import LENT, ErrorInfo
from fabric.parcel import Data
from fabric.remote_errors import refusal
from fabric.workers.journal import Later
from fabric.workers.keeper import Keeper
from fabric.workers.outbox import Outbox
from fabric.workers.recovery import Recovery

SOON = 0.01  # seconds until another try, where the outbox is full when a message is due


class Due(NamedTuple):
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
    timers: list[tuple[float, int, Due]]  # a heap; the second is the number
    fired: list[int]  # numbers of those that were sent, and a successor is not to send again
    keeper: Keeper | None
    owing: list[Any]  # what is to be written down before the messages in hand are committed

    @abstractmethod
    def is_alive(self, address: int) -> bool: ...
    @abstractmethod
    def require_alive(self, address: int) -> None: ...
    @abstractmethod
    def woken(self) -> None: ...
    @abstractmethod
    def place_behind(self) -> tuple[int, int] | None: ...
    @abstractmethod
    def _next_token(self) -> int: ...
    @abstractmethod
    def _speaker(self) -> int: ...
    @abstractmethod
    def _undeliverable(self, target: int, sender: int, correlation: int) -> None: ...

    def tell_later(self, seconds: float, ref: AgentRef, body: Any) -> None:
        """Remember to send a message; a successor does, if this worker dies before."""
        encoding, data = self.codec.encode(body, ref._json)
        self.require_alive(ref._address)
        due, number = self.clock() + seconds, self._next_token()
        heapq.heappush(self.timers, (due, number, Due(ref._address, self._speaker(), encoding, data)))
        where = self.place_behind()
        if where is not None:  # else on_start or on_stop says so, and would say it again
            whole = data if isinstance(data, bytes) else None
            noted = Later(ref._address, self._speaker(), number, int(due * 1e9), *where, encoding & ~LENT, whole)
            self.owing.append(noted)
        self.woken()

    def resume(self, recovery: Recovery, head_of: Callable[[int], int]) -> None:
        """Take over what a dead predecessor was to send, but for what its agents will say again."""
        assert self.keeper is not None
        over = []
        for later in self.keeper.promised:
            again = later.end > head_of(later.lane) and recovery.comes_again(later.sender, later.lane, later.end)
            if not again and later.body is not None:
                due = Due(later.target, later.sender, later.encoding, later.body)
                heapq.heappush(self.timers, (later.due / 1e9, later.number, due))
                continue
            over.append(later.number)
            if not again:
                self.failures.append((later.target, later.sender, refusal(recovery.lost(later.target, 0))))
        self.keeper.kept_promises(over)

    def forget_fired(self) -> None:
        """Write down that what was due is out."""
        fired, self.fired = self.fired, []
        if self.keeper is not None:
            self.keeper.kept_promises(fired)

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
            _, number, _ = heapq.heappop(self.timers)
            if self.keeper is not None:
                self.fired.append(number)
        return self.timers[0][0] - now if self.timers else None
