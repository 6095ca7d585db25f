"""Host the agents of a pretended worker, for fabric.inline: the real host, over queues of this process."""

import bdb
import os
from typing import Any, Protocol, cast

from fabric import counters as count
from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.errors import EncodingError
from fabric.inline_lanes import Lanes, Outbox
from fabric.inline_loop import SteppedLoop, running_loop
from fabric.layout import COUNTERS
from fabric.parcel import Data
from fabric.remote_errors import refusal
from fabric.workers.host import Host

_NEVER = 1e12  # microseconds: no reply is published before its batch ends


class Turns(Protocol):
    """The part of fabric.inline.Turns that hosts need."""

    lanes: Lanes
    codec: Codec
    now: float
    own_loop: SteppedLoop

    def wake(self) -> None: ...


class InlineHost(Host):
    """The agents of a pretended worker."""

    def __init__(self, turns: Turns, identity: int, config: FabricConfig) -> None:
        outbox = cast(Any, Outbox(turns.lanes, config))
        super().__init__(identity, turns.codec, outbox, turns.lanes.table, _NEVER)
        self._turns = turns
        self.arena = turns.lanes.arena
        self.pid = os.getpid()
        self.clock = lambda: turns.now
        self.wake = turns.wake
        self.counters = memoryview(bytearray(8 * COUNTERS)).cast("Q")
        self.counters[count.PID] = os.getpid()

    def loop(self) -> Any:
        """Return the running event loop; outside of any, that of the fabric."""
        return running_loop() or self._turns.own_loop

    def _encode_patiently(self, value: Any, json: bool | None) -> tuple[int, Data]:
        return self.codec.encode(refusal(EncodingError("the reply cannot be sent: the arena is full")))

    def _failed(self, index: int, target: int, error: BaseException) -> Any:
        if isinstance(error, (KeyboardInterrupt, bdb.BdbQuit)):
            raise error  # for whoever waits: here the handler runs in the user's own process
        return super()._failed(index, target, error)
