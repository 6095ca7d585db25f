"""Decide whether a worker that died is started again, and when. Pure: deaths go in, decisions come out.

After OTP's supervisors (restart intensity: so many restarts in so long a time), with two departures. A death
counts only if the worker did nothing useful before it, so one that dies of a rare message is not given up.
And the time spent in our own back-off does not count into the window, else a long back-off would hide a crash
loop.
"""

from collections import deque
from dataclasses import dataclass

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start the worker again after `delay` seconds; 0 is at once."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave the worker dead; `reason` says why and what to do."""

    reason: str


class RestartPolicy:
    """Judge the deaths of one worker slot.

    More than `max_restarts` deaths without progress within `restart_window` seconds end it. The first restart
    is immediate, those after it wait 0.1 s, doubling up to 5 s. A death after progress is restarted at once
    and wipes the slate. With `max_restarts=0` the first death without progress is the last.
    """

    def __init__(self, max_restarts: int, restart_window: float) -> None:
        self._max_restarts = max_restarts
        self._restart_window = restart_window
        self._deaths: deque[float] = deque()  # without progress, on a clock that stands still during back-off
        self._backed_off = 0.0

    def died(self, now: float, progressed: bool) -> RestartAfter | GiveUp:
        """Take note of a death at `now` and decide.

        `progressed` says whether the worker had completed anything since its start, `now` is monotonic
        seconds. After GiveUp the slot stays dead; a worker started there by hand needs a new policy.
        """
        if progressed:
            self._deaths.clear()
            self._backed_off = 0.0
            return RestartAfter(0.0)
        lived = now - self._backed_off
        while self._deaths and lived - self._deaths[0] > self._restart_window:
            self._deaths.popleft()
        self._deaths.append(lived)
        count = len(self._deaths)
        if count > self._max_restarts:
            return GiveUp(self._reason(count))
        delay = 0.0 if count == 1 else min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(count - 2, 10))
        self._backed_off += delay
        return RestartAfter(delay)

    def _reason(self, count: int) -> str:
        died = "once" if count == 1 else f"{count} times"
        return (
            f"it died {died} within {self._restart_window:g} s without completing a message "
            f"(max_restarts={self._max_restarts}, restart_window={self._restart_window:g}): "
            "look at its first death, in its log or exit code, or raise max_restarts"
        )
