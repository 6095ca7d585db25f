"""Hold the agents of a worker and hand them their messages, contained: what an agent raises is its reply.

No process and no shared memory here. The loop gives a batch (`begin`), has it handled in slices (`handle`),
and takes what is to be sent: `values` (a reply for each message of the slice), `failures`, and the outbox.
"""

import time
from collections.abc import Sequence
from typing import Any

from fabric.chunk import Chunk
from fabric.codec import Codec
from fabric.errors import EncodingError
from fabric.messages import COORDINATOR, show
from fabric.remote_errors import Undecodable, refusal
from fabric.workers.handler_clock import EACH, SLOW_NS, HandlerClock
from fabric.workers.messenger import WorkerMessenger
from fabric.workers.outbox import Outbox
from fabric.workers.receivers import NOBODY, NOWHERE, run_batch
from fabric.workers.recovery import Done
from fabric.workers.residents import Residents

_CLOCK_STRIDE = 8  # a clock read is 57 ns, a tenth of a trivial message: while handlers are fast look at each 8th


class Host(WorkerMessenger):
    """The agents of one worker."""

    def __init__(
        self,
        identity: int,
        codec: Codec,
        outbox: Outbox,
        table: Sequence[int],
        publish_after_us: float,
        first_token: int = 0,
    ) -> None:
        super().__init__(identity, codec, outbox, table, publish_after_us, first_token)
        self.values: list[Any] = []
        self.first = 0  # index in the batch of what the first of them answers
        self.residents = residents = Residents(self)
        self.warm = residents.warm
        self.mailboxes = residents.mailboxes
        self._publish_after = int(publish_after_us * 1000)
        self._agents = residents.receivers
        self._batchers = residents.batchers
        self._ranges = residents.ranges
        self._once = residents.once
        self.careful = False  # one message a slice: a predecessor died, and it was not clear of which
        self._stride = _CLOCK_STRIDE  # messages from look to look at the clock, as the last slice left it
        self._turn = 0  # of messages that come alone; of those one in so many is timed
        self.begun: Any = None  # our words that say, by lane, what they have begun

    def begin(self, received: Any) -> None:
        """Take a batch in hand."""
        self._received = received
        self._targets = received.targets()
        if received.undecodable:
            for index, body in enumerate(received.bodies):
                if type(body) is Undecodable:
                    self._targets[index] = NOWHERE
                elif type(body) is Done:
                    self._targets[index] = NOBODY
                elif type(body) is Chunk:
                    self._open(index, body)

    def _open(self, index: int, chunk: Chunk) -> None:
        """Put views of a chunk of records in its place, where there is somebody who takes such."""
        target = self._targets[index]
        if target not in self._agents:  # which is found out when its turn comes
            return
        try:
            if target not in self._ranges:
                raise EncodingError(f"{chunk.count:,} records arrived for {show(target)}, which is no array agent")
            self._received.bodies[index] = self._ranges[target].open(chunk)
            self.handler_clock.count_rows(chunk.count)
        except EncodingError as error:
            self._received.bodies[index] = Undecodable(error)
            self._targets[index] = NOWHERE

    def end(self) -> None:
        """See WorkerMessenger; replies too may be what was lent."""
        super().end()
        self.values = []

    def handle_one(self) -> int:
        """Handle a batch of one: as `handle`, with nothing to set up. An ask at a time is made of this."""
        if self._batchers and not self._once:
            return self.handle(0)
        if self.deferred:
            self.deferred.clear()
        self.cursor[0] = 1
        target = self._targets[0]
        if target in self._once:
            self._begin(1)
        self._turn = turn = (self._turn + 1) % EACH
        started = 0 if turn else time.perf_counter_ns()
        try:
            self.values = [self._agents[target].on_message(self._received.bodies[0])]
        except BaseException as error:
            self.values = [self._failed(0, target, error)]
        if started:
            self.handler_clock.stop_one(started)
        return 1

    def handle_stream(self, first: int) -> int:
        """Handle one question for a stream, with what its handler returns. It is always a slice of its own."""
        self.deferred.clear()
        self.cursor[0] = first + 1
        target = self._targets[first]
        if target in self._once or (self.keeper is not None and self.keeper.kept(target) is not None):
            self._begin(first + 1)  # nobody runs it again: see workers.recovery
        self.streaming = True
        self.values = [None]
        try:
            value = self._agents[target].on_message(self._received.bodies[first])
            if first not in self.deferred:  # else a mailbox has it
                self.streams.begin(self.take_in_hand(), value)
        except BaseException as error:
            self.values = [self._failed(first, target, error)]
        finally:
            self.streaming = False
        return first + 1

    def handle(self, first: int) -> int:
        """Handle messages from `first` on, to the end of the batch or until replies have waited long enough.

        Returns the index behind the last one handled. `values` holds what the handlers returned; those at
        an index in `deferred` are not replies.
        """
        self.deferred.clear()
        if self._batchers and not self._once and not self.careful:  # at most once means one at a time
            return self._handle_grouped()
        self.first = first
        values = self.values = []
        append, agents, cursor, clock = values.append, self._agents, self.cursor, time.perf_counter_ns
        stop = self._stop_of(first) if self._once or self.careful else self._received.count
        stride = self._stride
        index = first
        looked = started = clock()
        due = started + self._publish_after
        slow = slow_ns = 0  # messages of this slice that were slow, and are timed already
        bodies = self._received.bodies
        pairs = (
            zip(self._targets, bodies, strict=True)
            if first == 0 and stop == len(bodies)
            else zip(self._targets[first:stop], bodies[first:stop], strict=True)
        )
        for target, body in pairs:
            index += 1
            cursor[0] = index
            try:
                append(agents[target].on_message(body))
            except BaseException as error:
                append(self._failed(index - 1, target, error))
            if index % stride == 0:
                now = clock()
                if now >= due:
                    break
                if now - looked > stride * SLOW_NS:
                    self.handler_clock.slow(stride, now - looked)
                    slow, slow_ns, stride = slow + stride, slow_ns + now - looked, 1
                else:
                    stride = _CLOCK_STRIDE
                looked = now
        last = min(index % stride or stride, index - first)
        was_slow = self.handler_clock.stop(index - first - slow, started + slow_ns, last, looked)
        self._stride = 1 if was_slow or stride == 1 else _CLOCK_STRIDE
        return index

    def _stop_of(self, first: int) -> int:
        """Return where the slice that begins at `first` ends: a message that is taken at most once has its own."""
        targets, once = self._targets, self._once
        if targets[first] in once:
            self._begin(first + 1)
            return first + 1
        if self.careful:
            return first + 1
        return next((i for i in range(first, len(targets)) if targets[i] in once), len(targets))

    def _begin(self, behind: int) -> None:
        """Write down, for a successor, that all messages before index `behind` have been begun."""
        if self.begun is not None:
            self.begun[self._received.lane] = self._received.end_of(behind)

    def asked_in_hand(self) -> bool:
        """Does somebody wait for what the handler in hand returns?"""
        index = self.index
        return index not in self.deferred and self._received.correlations()[index] != 0

    def takes_once(self, address: int) -> bool:
        """Has the agent here on_crash="fail"?"""
        return address in self._once

    def note(self, received: Any, first: int, behind: int) -> None:
        """Have the keeper write down messages first to behind - 1 of a batch, which were handled."""
        keeper = self.keeper
        assert keeper is not None
        begin = received.end - received.bytes if first == 0 else received.end_of(first)
        lane, lent = received.lane, received.lent
        if not received.undecodable:
            keeper.note(self._targets[first:behind], lane, begin, received.end_of(behind), lent)
            return
        for index in range(first, behind):  # those that were not handled must not be handed on later either
            end = received.end_of(index + 1)
            keeper.note(self._targets[index : index + 1], lane, begin, end, lent)
            begin = end

    def unkept(self, address: int, error: BaseException) -> None:
        """Report that the state of an agent cannot be kept."""
        self.errors += 1
        self.failures.append((address, COORDINATOR, self.describe(error, address)))

    def lose(self, address: int, error: BaseException) -> None:
        """Report that an agent cannot be restored, and let go of it."""
        self.unkept(address, error)
        self.residents.remove(address)

    def replay(self, batch: Any) -> None:
        """Have agents handle again what a predecessor had handled: for their state, all else is dropped."""
        cursor, timers, errors, clock = self.cursor, list(self.timers), self.errors, self.handler_clock
        self.handler_clock = HandlerClock()
        self.cursor = [0, 0]  # nobody is to be blamed for these
        self.begin(batch)
        first = 0
        while first < batch.count:
            first = self.handle(first)
        self.deferred.clear()
        self.end()
        self.cursor, self.timers, self.errors, self.stretch, self.handler_clock = cursor, timers, errors, None, clock
        self.failures.clear()
        self.finished.clear()
        self.owing.clear()
        self.outbox.drop_pending()

    @property
    def received(self) -> Any:
        """The batch in hand, None for none."""
        return self._received

    @property
    def count(self) -> int:
        """How many agents live here."""
        return len(self._agents) - 2

    @property
    def has_chores(self) -> bool:
        """Is there something to be looked after where no message is there?"""
        return bool(self.timers or self.failures or self.mailboxes or self.warm.wanted or self.in_hand)

    @property
    def is_asked(self) -> bool:
        """Does somebody wait for the reply to the message in hand?"""
        return bool(self._received.correlations()[self.index])

    @property
    def busy_coroutines(self) -> bool:
        """Is a coroutine of some agent in hand?"""
        return self.in_hand > self.streams.plain

    def _handle_grouped(self) -> int:
        """Handle a whole batch where some agents take theirs together."""
        received = self._received
        bodies = received.bodies
        values = self.values = [None] * received.count
        started = time.perf_counter_ns()
        groups: dict[int, list[int]] = {}
        for index, target in enumerate(self._targets):
            groups.setdefault(target if target in self._batchers else ~index, []).append(index)
        for key, indexes in groups.items():
            self.cursor[0] = indexes[0] + 1
            target = self._targets[indexes[0]]
            try:
                if key >= 0:
                    replies = run_batch(self._batchers[target], [bodies[i] for i in indexes])
                else:
                    replies = [self._agents[target].on_message(bodies[indexes[0]])]
            except BaseException as error:
                replies = [self._failed(index, target, error) for index in indexes]
            for index, value in zip(indexes, replies, strict=True):
                values[index] = value
        self.handler_clock.stop_group(int(received.count), started)
        return int(received.count)

    def _failed(self, index: int, target: int, error: BaseException) -> Any:
        """Make the reply of a message whose handling raised."""
        self.errors += 1
        self.handler_clock.blame(self._received.targets()[index] if target < 0 else target, self.errors)
        if target == NOWHERE:
            target = self._received.targets()[index]
            info = refusal(error)  # type: ignore[arg-type]  # _Refuser raises nothing else
        elif target not in self._agents:
            info = self.missing(target)
        else:
            info = self.describe(error, target)
        ticket = self.deferred.get(index)
        answered = ticket is not None and ticket.answered
        if ticket is not None and not answered:  # whatever it meant to answer later: this is the answer
            del self.deferred[index]
            self.release(ticket)
        if answered or self._received.correlations()[index] == 0:
            self.failures.append((target, self._received.senders()[index], info))
        return info
