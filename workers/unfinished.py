"""Look after messages that coroutines and streams have not finished: let them run, and publish what comes of it.

    replies to what they asked, credits of readers --> turn --> finished, sent --> publish --> commit
                                                        ^
                                        sleep, until something that they await is there

The host counts them (`in_hand`); the ledger keeps the heads of their lanes in front of them.
"""

import time
from collections.abc import Callable

from fabric import counters as count
from fabric.messages import CANCEL, CREDIT, NONE, begins_stream
from fabric.receiver import Received
from fabric.ring import Peer
from fabric.workers.host import Host
from fabric.workers.publisher import Publisher

_IDLE_LOOK = 1.0  # seconds; the C core wakes as often on its own, as a safety net


class Unfinished:
    """What is in the hands of coroutines and streams of one worker."""

    def __init__(
        self,
        peer: Peer,
        host: Host,
        publisher: Publisher,
        counters: memoryview,
        commit_all: Callable[[Received], None],
        commit_finished: Callable[[], None],
    ) -> None:
        """`commit_all` commits a batch; `commit_finished` what is in `host.finished`: its effects are out."""
        self._peer = peer
        self._host = host
        self._outbox = host.outbox
        self._publisher = publisher
        self._counters = counters
        self._commit_all = commit_all
        self._commit_finished = commit_finished
        self._orphans_due = 0.0  # monotonic seconds

    def replies(self, received: Received) -> None:
        """Give answers to the coroutines of this worker that asked."""
        for index, (correlation, body) in enumerate(zip(received.correlations(), received.bodies, strict=True)):
            if not self._host.resolve(correlation, body):
                self._counters[count.LATE_REPLIES] += 1
                if begins_stream(correlation):  # its reader had all of it, but its question was not committed
                    reader, maker = received.targets()[index], received.senders()[index]
                    self._host.outbox.steer(CANCEL | NONE << 16, maker, reader, correlation, b"")
        self._commit_all(received)
        self._turn_event_loop()

    def steering(self, received: Received) -> None:
        """Hear how far the readers of our streams are, and which of them have gone."""
        streams = self._host.streams
        rows = zip(received.senders(), received.correlations(), received.bodies, strict=True)
        for sender, correlation, body in rows:
            if received.kind == CREDIT:
                streams.credit(sender, correlation, body)
            else:
                streams.cancel(sender, correlation)
        self._commit_all(received)
        self.publish_finished()

    def drop_orphans(self) -> None:
        """Close streams whose readers are gone: looked at once a second, also by workers that seldom sleep."""
        now = time.monotonic()
        if now >= self._orphans_due:
            self._orphans_due = now + _IDLE_LOOK
            self._host.streams.drop_orphans()
            self.publish_finished()

    def turn(self) -> None:
        """Let generators make items, and coroutines run; publish what comes of it."""
        host = self._host
        if host.streams.ready:
            host.streams.turn()
            self.publish_finished()
        if host.busy_coroutines:
            self._turn_event_loop()

    def sleep(self, reasons: int, seconds: float | None) -> None:
        """Sleep where coroutines can be woken, by messages as well as by what they await."""
        loop = self._host.loop()
        bell = self._peer.bell
        loop.add_reader(bell, loop.stop)
        timer = loop.call_later(min(_IDLE_LOOK, _IDLE_LOOK if seconds is None else seconds), loop.stop)
        self._host.wake = loop.stop
        if self._peer.arm(reasons):
            loop.call_soon(loop.stop)
        loop.run_forever()
        self._peer.disarm()
        self._host.wake = None
        timer.cancel()
        loop.remove_reader(bell)
        self.publish_finished()

    def publish_finished(self) -> None:
        """Put out what coroutines and streams have finished and sent, then have it committed."""
        host = self._host
        if not host.finished and self._outbox.idle and not host.failures:
            return
        self._publisher.publish_failures()
        self._outbox.flush()
        if not self._outbox.unpublished:
            self._commit_finished()

    def _turn_event_loop(self) -> None:
        """Let coroutines run until each awaits something; then publish what they finished and sent."""
        loop = self._host.loop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.publish_finished()
