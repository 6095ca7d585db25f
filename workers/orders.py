"""Carry out what the coordinator orders: agents made and stopped, and what a successor is to know of its predecessor.

    spawn, stop, prewarm      for the host's residents
    take over, skip, bar      after a crash: where the control lane goes on, and what is not to be tried again
    anything else             leave, when all that lies in the lanes is handled

The loop takes them from a control lane and sends the answers.
"""

import gc
from array import array
from collections.abc import Callable
from typing import Any

from fabric.messages import (
    COORDINATOR,
    BarOrder,
    PrewarmOrder,
    SkipOrder,
    SpawnOrder,
    SpawnReport,
    StopOrder,
    TakeOverOrder,
)
from fabric.receiver import Receiver
from fabric.remote_errors import Undecodable
from fabric.ring import Peer
from fabric.workers.host import Host
from fabric.workers.memory import resident_bytes
from fabric.workers.recovery import Recovery


class Orders:
    """What carries out the orders to one worker."""

    def __init__(
        self,
        peer: Peer,
        receiver: Receiver,
        host: Host,
        recovery: Recovery,
        answer_limit: int,
        leave: Callable[[], None],
    ) -> None:
        """`answer_limit` is in bytes; `leave` has the worker end when all that lies in the lanes is handled."""
        self._peer = peer
        self._receiver = receiver
        self._host = host
        self._answer_limit = answer_limit
        self._leave = leave
        self.recovery: Recovery | None = recovery  # until nothing comes again
        self.died_ns = 0  # when our predecessor was seen dead

    def obey_first(self, orders: list[Any]) -> None:
        """Carry out what comes before any message; nobody waits for answers, so agents that fail are reported."""
        for order in orders:
            report = self.obey(order)
            failures = SpawnReport.from_plain(report).failures if isinstance(order, SpawnOrder) else {}
            for position, info in failures.items():
                self._host.failures.append((array("Q", order.addresses)[position], COORDINATOR, info))

    def obey(self, order: Any) -> Any:
        """Carry out an order; return the answer to it, in plain data. What it raises is the answer then."""
        if isinstance(order, Undecodable):
            raise order.error
        if isinstance(order, SpawnOrder):
            return self._spawn(order)
        if isinstance(order, TakeOverOrder):
            self._peer.resume(self._peer.processes + COORDINATOR, order.control)
            self.died_ns = order.died_ns
            self._receiver.careful = self._host.careful = order.careful
            return None
        if isinstance(order, SkipOrder):
            self._receiver.skips.add((order.lane, order.position))
            return self.recovery.skip(order) if self.recovery is not None else None
        if isinstance(order, BarOrder):
            self._host.barred[order.address] = order.error
            return None
        if isinstance(order, StopOrder):
            return self._host.residents.stop(array("Q", order.addresses))
        if isinstance(order, PrewarmOrder):
            return self._host.residents.prewarm(order)
        self._leave()  # SHUTDOWN: when all that lies in the lanes is handled
        return None

    def _spawn(self, order: SpawnOrder) -> list[Any]:
        """Make agents, with an eye on memory; return the report in plain data."""
        before = resident_bytes()
        gc.disable()  # each object here is to stay: looking for garbage among them takes longer than making them
        try:
            failures = self._host.residents.spawn(order)
        finally:
            gc.enable()
            gc.freeze()
        report = SpawnReport(failures, resident_bytes() - before)
        codec = self._host.codec
        plain = report.plain(codec.allow_pickle)
        if failures and len(codec.encode_answer(plain)[1]) > self._answer_limit:
            return report.brief()
        return plain
