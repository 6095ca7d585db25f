"""Decide how many tasks a worker may have ahead of it. Pure: replies and times go in, a number comes out.

A worker that has only the task in hand waits for the next for as long as a message takes; one that has many
ahead makes those wait which another worker could begin. So a worker gets what it does in `target` seconds, by the
time that its last tasks took: one, where a task takes longer than that.

    a reply came for n tasks, the worker had work all the while     the elapsed time / n: a measurement
    it had run out of work                                          tells nothing: it was idle for some of the time
"""

_FIRST = 1  # nothing is known of its tasks: what is behind a long one would wait while others are idle
_MOST = 1024


class Pace:
    """Follow one worker's tasks."""

    __slots__ = ("_mark", "_seconds", "_target", "limit")

    def __init__(self, target: float) -> None:
        self._target = target
        self._seconds: float | None = None  # that a task takes
        self._mark = 0.0
        self.limit = _FIRST  # tasks that may be in the worker's hands and ahead of it

    def begin(self, now: float) -> None:
        """Take note that the worker gets work, having had none."""
        self._mark = now

    def observe(self, count: int, now: float) -> None:
        """Take note of `count` replies; the worker was busy since `begin` or the last of these calls."""
        seconds = (now - self._mark) / count
        self._mark = now
        if self._seconds is None or seconds > 4 * self._seconds:
            self._seconds = seconds  # the first; or they have become slow: at once
        else:
            self._seconds += (seconds - self._seconds) / 4
        self.limit = max(1, min(_MOST, int(self._target / max(self._seconds, 1e-7)), 4 * self.limit))

    def forget(self) -> None:
        """Begin anew: another process took over."""
        self._seconds = None
        self.limit = _FIRST
