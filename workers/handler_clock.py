"""Time what handlers take, at a cost that fast ones can bear.

A trivial handler takes 300 ns and a clock read 57, so

    a batch          is timed by the clock reads that tell when to publish: a stretch of 8 is one figure, what is
                     slow is timed one by one, and where one of a stretch was slow the excess is that one's
    a small batch    likewise, but of fast ones each 16th counts, for all 16
    one message      likewise; the C core times it when it takes long (native/fab_measures.h)

Of a coroutine this is the time until it first awaits something.
"""

import time
from collections.abc import Callable, MutableSequence, Sequence

from fabric.counters import ERRORS, ROWS
from fabric.measured import LONG_NS

SLOW_NS = 10_000  # a handler over this is slow: then the clock is read after each message
EACH = 16  # of small batches
_SMALL = 32  # messages
_clock = time.perf_counter_ns


class HandlerClock:
    """Counts the time of handlers, and their errors by class, of one worker."""

    def __init__(
        self,
        handled: Callable[[int, int], None] | None = None,
        errors: MutableSequence[int] | memoryview | None = None,
        classes: Sequence[int] | memoryview = b"",
        counters: MutableSequence[int] | memoryview | None = None,
    ) -> None:
        """`handled` is Peer.handled, `errors` are our words by class, `classes` that of each agent by its index."""
        self._counters = counters
        self._handled = handled
        self._errors = errors
        self._classes = classes
        self._turn = 0
        self._typical = 1_000  # ns that a fast message took lately

    def stop_one(self, started: int) -> None:
        """Count it for all that were not timed; the C core counts the long ones, of all."""
        took = _clock() - started
        if took < LONG_NS and self._handled is not None:
            self._handled(EACH, EACH * took)

    def slow(self, count: int, took: int) -> None:
        """Count a stretch in which at least one was slow."""
        if self._handled is None:
            return
        if count > 1:
            others = min(self._typical, took // count) * (count - 1)
            self._handled(count - 1, others)
            count, took = 1, took - others
        self._handled(count, took)

    def stop(self, count: int, started: int, last: int, looked: int) -> bool:
        """Count the rest of a slice: `count` messages since `started`, of which the last few since `looked`.

        Returns whether those were slow.
        """
        if self._handled is None:
            return False
        now = _clock()
        was_slow = now - looked > last * SLOW_NS
        if was_slow:
            self.slow(last, now - looked)
            count, now = count - last, looked
        if count >= _SMALL:
            self._typical = (now - started) // count
            self._handled(count, now - started)
        elif count > 0:
            self._turn += 1
            if self._turn % EACH == 0:
                self._handled(EACH * count, EACH * (now - started))
        return was_slow

    def stop_group(self, count: int, started: int) -> None:
        """Count a batch that agents took together; that of one message is timed as others are."""
        took = _clock() - started
        if self._handled is not None and (count > 1 or took < LONG_NS):
            self._handled(count, took)

    def count_rows(self, rows: int) -> None:
        """Count records that an array agent was handed."""
        if self._counters is not None:
            self._counters[ROWS] += rows

    def blame(self, address: int, errors: int) -> None:
        """Count an error of the class that this agent is of; `errors` are those of all."""
        index = address & 0xFFFFFFFF
        if self._counters is not None:
            self._counters[ERRORS] = errors
        if self._errors is not None and index < len(self._classes):
            self._errors[self._classes[index]] += 1
