"""Take what workers send without being asked: reports of failed messages, and what agents want of us."""

import collections
import functools
import time
from collections.abc import Callable
from typing import Any

from fabric.counters import DEAD_LETTERS
from fabric.errors import FabricError
from fabric.guarded_log import GuardedLogger
from fabric.messages import FAILURE, REQUEST, DeadLetter, ErrorInfo, SpawnRequest
from fabric.receiver import Received
from fabric.remote_errors import revive
from fabric.tally import Tally

_log = GuardedLogger("fabric")
_KEPT = 10_000


class Unasked:
    """Dead letters and requests of one fabric.

    `take` runs in the thread that drains the lanes, so whatever may take its time, and every function of the
    user's, is left to `later`, which runs it in the pump.
    """

    def __init__(
        self,
        allow_pickle: bool,
        on_error: Callable[[DeadLetter], None] | None,
        serve: Callable[[int, int, Any], None],
    ) -> None:
        self._allow_pickle = allow_pickle
        self._on_error = on_error
        self._serve = serve
        self._letters: collections.deque[DeadLetter] = collections.deque(maxlen=_KEPT)
        self.later: Callable[[Callable[[], None]], None] | None = None
        self.aside: Callable[[Callable[[], None]], None] | None = None  # for requests, which may take long
        self._requested: dict[tuple[int, int], tuple[int, int]] = {}  # by (worker, its lane): the last origin there
        self.count = 0
        self.tally = Tally()
        self.dropped_bytes = 0  # of records that no worker of ours sends

    @property
    def letters(self) -> list[DeadLetter]:
        """The last 10,000."""
        return list(self._letters)

    def take(self, received: Received) -> None:
        """Take a batch of records that are no replies. The draining thread only."""
        if received.kind not in (FAILURE, REQUEST):
            self.dropped_bytes += received.bytes
            return
        rows = zip(received.targets(), received.senders(), received.correlations(), received.bodies, strict=True)
        for target, sender, correlation, body in rows:
            if received.kind == FAILURE and isinstance(body, ErrorInfo):
                self.bury(sender, target, revive(body, self._allow_pickle))
            elif received.kind == FAILURE:
                self.dropped_bytes += received.bytes // received.count
            elif not self._came_before(received.lane, body):
                run = self.aside or self.later
                assert run is not None
                run(functools.partial(self._serve, sender, correlation, body))

    def _came_before(self, worker: int, request: Any) -> bool:
        """Did a predecessor of this worker make the same request, and was killed before its message was committed?"""
        origin = request.origin if isinstance(request, SpawnRequest) else None
        if not isinstance(origin, tuple) or len(origin) != 3 or {*map(type, origin)} != {int}:
            return False
        lane, *place = origin
        last, this = self._requested.get((worker, lane)), (place[0], place[1])
        if last is not None and this <= last:
            return True
        self._requested[worker, lane] = this
        return False

    def bury(self, agent: int, sender: int, error: FabricError) -> None:
        """Keep a told message that could not be handled, and tell the user. Any thread."""
        self.put_aside(DeadLetter(agent, sender, error, time.monotonic()), told=True)

    def put_aside(self, letter: DeadLetter, told: bool) -> None:
        """Keep a message; tell the user, unless there is one who asked and is told. Any thread."""
        self._letters.append(letter)
        self.count += 1
        self.tally.add(DEAD_LETTERS)
        if not told:
            return
        if self._on_error is None:
            _log.warning("a told message failed: %s", letter.error)
        else:
            self._defer(self._on_error, letter)

    def _defer(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self.later is not None
        self.later(lambda: function(*arguments))
