"""Decide how many tasks a worker may have ahead of it. Pure: replies and times go in, a number comes out.

A worker that has only the task in hand waits for the next for as long as a message takes; one that has many
ahead makes those wait which another worker could begin. So a worker gets what it does in `target` seconds, by the
time that its last tasks took: one, where a task takes longer than that.

    a reply came for n tasks    what passed since the last, less what the worker waited for work, is their time

What it waited it says itself: from outside a message's way there and back looks like work, and a worker that is
late for any reason would be given one task at a time for ever.
"""

_FIRST = 1  # nothing is known of its tasks: what is behind a long one would wait while others are idle
_MOST = 1024
_KEEP = 0.75  # of what earlier tasks tell, with each reply
_SLOW = 4  # times as long as before: that counts at once


class Pace:
    """Follow one worker's tasks."""

    __slots__ = ("_busy", "_count", "_mark", "_target", "_waited", "limit")

    def __init__(self, target: float) -> None:
        self._target = target
        self._busy = 0.0  # seconds that the last tasks took,
        self._count = 0.0  # and how many those were, the older the less
        self._mark = 0.0
        self._waited = 0.0
        self.limit = _FIRST  # tasks that may be in the worker's hands and ahead of it

    def begin(self, now: float, waited: float) -> None:
        """Take note that the worker gets work, having had none; `waited` is how long it has waited in its life."""
        self._mark = now
        self._waited = waited

    def observe(self, count: int, now: float, waited: float) -> None:
        """Take note of `count` replies, since `begin` or the last of these calls."""
        busy = max(0.0, now - self._mark - max(0.0, waited - self._waited))
        self.begin(now, waited)
        if self._count == 0 or busy * self._count > _SLOW * count * self._busy:
            self._busy, self._count = busy, float(count)  # the first; or they have become slow: at once
        else:
            self._busy = _KEEP * self._busy + busy
            self._count = _KEEP * self._count + count
        seconds = max(self._busy / self._count, 1e-7)
        self.limit = max(1, min(_MOST, int(self._target / seconds), 4 * self.limit))

    def forget(self) -> None:
        """Begin anew: another process took over."""
        self._busy = self._count = 0.0
        self.limit = _FIRST
