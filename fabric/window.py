"""Decide how many bytes may lie in one lane ahead of its consumer.

Pure: counters and times go in, a limit comes out.

    producer ── observe(head, now, backlog) ──▶ rate (bytes/s) ── × target ──▶ limit ── push up to it

What one interval between observations tells about the consumer's rate:

    the head moved, the lane never empty     a measurement: goes into the average
    the head moved, the lane ran empty       a lower bound: the rest of the interval it had nothing to do
    the head stood, the lane not empty       an upper bound, once it has stood for a target time
    the head stood, the lane empty           nothing: idle is not slow
"""

import math

_FLOOR_BYTES = 16 * 1024

# Shorter intervals are joined: a commit moves the head by a whole batch at once.
_LEAST_INTERVAL = 0.001

_COUNTER_MASK = 2**64 - 1


class Window:
    """Follow one consumer's rate so that about `target_seconds` of work is queued ahead of it.

    Belongs to the lane's producer, one thread at a time; takes no clock and never waits. Starts optimistic,
    at an eighth of the lane.
    """

    __slots__ = ("_dry", "_lane_bytes", "_mark_head", "_mark_time", "_rate", "_target")

    def __init__(self, lane_bytes: int, target_seconds: float) -> None:
        if lane_bytes < 1 or not 0 < target_seconds < math.inf:
            raise ValueError(f"{lane_bytes=} and {target_seconds=} must both be over 0")
        self._lane_bytes = lane_bytes
        self._target = target_seconds
        self._rate = lane_bytes / 8 / target_seconds
        self._mark_head = 0
        self._mark_time = -math.inf  # no observation yet
        self._dry = False  # the lane was seen empty since the mark

    @property
    def limit(self) -> int:
        """Return the bytes that may lie in the lane: rate times target, from 16 KiB to the whole lane.

        A message that is larger goes when the lane is empty; that is the caller's to grant.
        """
        return min(self._lane_bytes, max(_FLOOR_BYTES, int(self._rate * self._target)))

    def observe(self, head: int, now: float, backlog: int) -> None:
        """Take note of the consumer's counter.

        Call it before each push: `backlog` is the lane's tail less `head` as it is then, without what is
        about to be pushed. That nothing was pushed since the call before, save right after it, is what makes
        a backlog mean that the consumer was busy throughout. `head` is free-running, modulo 2**64; `now` is
        seconds on a monotonic clock.
        """
        consumed = (head - self._mark_head) & _COUNTER_MASK
        elapsed = now - self._mark_time
        if elapsed == math.inf or consumed > _COUNTER_MASK // 2:
            self._mark(head, now)  # the first call, or a lane that was begun anew
            return
        self._dry = self._dry or backlog <= 0
        if consumed == 0:
            self._stood(head, now, backlog, elapsed)
        elif elapsed >= _LEAST_INTERVAL:
            self._moved(consumed / elapsed, elapsed)
            self._mark(head, now)

    def _mark(self, head: int, now: float) -> None:
        self._mark_head = head
        self._mark_time = now
        self._dry = False

    def _stood(self, head: int, now: float, backlog: int, elapsed: float) -> None:
        if self._dry:
            self._mark(head, now)  # its work begins with the coming push, not before
        elif elapsed >= self._target:
            self._rate = min(self._rate, backlog / elapsed)

    def _moved(self, rate: float, elapsed: float) -> None:
        if self._dry:
            # It would have taken more. Twice as much is a guess, which the first interval without a gap
            # corrects; one that takes less than half of the window in a target time stays where it is.
            rate = max(self._rate, 2 * rate)
        else:
            weight = -math.expm1(-elapsed / self._target)
            rate = self._rate + weight * (rate - self._rate)
        # More than a lane per target is of no use, and would take longer to unlearn.
        self._rate = min(rate, self._lane_bytes / self._target)
