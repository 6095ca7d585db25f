"""A worker without the protections that cost something for each message or batch; bench.protection measures by it.

Left out here, as somebody would who loses messages with a process that dies:

    cursor     which message is in hand, noted for each              Host.handle
    once       may this message be handled twice?, asked for each    Host.handle, with what was begun
    commit     after the replies are out, a call into C per slice    here with the next look, which is for nothing
    ledger     what coroutines and full outboxes hold back           Loop._messages
    recovery   which message is not to be handled again              Loop._messages
    keeper     are there agents whose state is kept?                 Loop._messages

All else is the same: slices, the clock, publishing, contained exceptions. In the coordinator the guard against a
reply that comes twice is left out (Heedless). What has no cost without a crash stays: the fork server, the supervisor
(asleep), the lifeline's thread (asleep), one segment with a writer for each block, which is also the fastest way.
"""

from __future__ import annotations

import time
from typing import Any

from fabric.pending import Entry, Replied
from fabric.workers import __main__ as worker
from fabric.workers import host
from fabric.workers.handler_clock import EACH, SLOW_NS
from fabric.workers.host import Host
from fabric.workers.loop import Loop

BOOTSTRAP = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(31)); from bench.unprotected import main; main()"  # see crew
)


class CarelessHost(Host):
    """Handles messages and notes nothing."""

    index: int = 0  # type: ignore[assignment]  # which message is in hand, for this process alone

    def handle_one(self) -> int:
        """As Host, without cursor and without once."""
        if self._batchers:
            return self.handle(0)
        self.deferred.clear()
        self.index = 0
        target = self._targets[0]
        self._turn = turn = (self._turn + 1) % EACH
        started = 0 if turn else time.perf_counter_ns()
        try:
            self.values = [self._agents[target].on_message(self._received.bodies[0])]
        except BaseException as error:
            self.values = [self._failed(0, target, error)]
        if started:
            self.handler_clock.stop_one(started)
        return 1

    def handle(self, first: int) -> int:
        """As Host, without cursor and without once."""
        self.deferred.clear()
        values: list[Any] = []
        self.values = values
        append, agents, clock = values.append, self._agents, time.perf_counter_ns
        stride = host._CLOCK_STRIDE
        index = first
        looked = started = clock()
        due = looked + self._publish_after
        bodies = self._received.bodies
        for target, body in zip(self._targets[first:], bodies[first:], strict=True):
            self.index = index
            index += 1
            try:
                append(agents[target].on_message(body))
            except BaseException as error:
                append(self._failed(index - 1, target, error))
            if index % stride == 0:
                now = clock()
                if now >= due:
                    break
                stride = 1 if now - looked > stride * SLOW_NS else host._CLOCK_STRIDE
                looked = now
        self.handler_clock.stop(index - first, started, min(index % stride or stride, index - first), looked)
        return index


class CarelessLoop(Loop):
    """Gives up its claim to a batch without a call of its own."""

    def _messages(self, received: Any) -> None:
        self._host.begin(received)
        first, total = 0, received.count
        while first < total:
            behind = self._host.handle(first) if total > 1 else self._host.handle_one()
            self._publisher.publish(received, first, behind)
            first = behind
        self._receiver.commit_at_next(received.lane, received.end)
        self._host.end()


class Heedless(Entry):
    """What ask_many waits for, taking each reply for the first and only one."""

    def __init__(self, slots: Any) -> None:
        super().__init__(slots)
        self.replies: list[Any] = [None] * len(slots)
        self.failed = False
        self.owed = len(slots)

    def accept(self, replies: Replied) -> None:
        """Take replies."""
        first, step, count = replies.correlation & 0xFFFFF, replies.step, len(replies.bodies)
        if count > 1 and step > 0:
            self.replies[first : first + (count - 1) * step + 1 : step] = replies.bodies
        else:
            for correlation, body in zip(replies.correlations(), replies.bodies, strict=True):
                self.replies[correlation & 0xFFFFF] = body
        self.owed -= count
        if self.owed == 0:
            self.complete()


def main() -> None:
    """Be a fork server whose workers are careless."""
    worker.Host, worker.Loop = CarelessHost, CarelessLoop  # type: ignore[misc]
    worker.main()
