"""Tell a worker that hangs from one that computes. Pure: what is seen at each look goes in, verdicts come out.

Hung means: the same message has been in hand for longer than handler_timeout (a setting; none by default), or
the process has been stopped (state T: SIGSTOP, a debugger) for longer than stopped_timeout. A handler that
computes for minutes is not mistaken for a dead one, since without a handler_timeout nobody asks how long.
Whoever is hung is killed and seen dead before it is replaced: a timeout gives no lane to a second process.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sighting:
    """One worker at one look. `cursor` identifies the message in hand, None for none."""

    pid: int
    cursor: tuple[int, int] | None
    stopped: bool


class HangWatch:
    """Remembers since when each worker has been as it is."""

    def __init__(self, handler_timeout: float | None, stopped_timeout: float | None) -> None:
        self._handler_timeout = handler_timeout
        self._stopped_timeout = stopped_timeout
        self._since: dict[tuple[int, object], float] = {}

    @property
    def interval(self) -> float | None:
        """Seconds from look to look: a quarter of the shortest timeout; None when nothing is watched."""
        timeouts = [timeout for timeout in (self._handler_timeout, self._stopped_timeout) if timeout is not None]
        return min(timeouts) / 4 if timeouts else None

    def look(self, sightings: list[Sighting], now: float) -> dict[int, str]:
        """Take in a look at all workers; return why which pid is to be killed."""
        facts: dict[tuple[int, object], float] = {}
        verdicts: dict[int, str] = {}
        for seen in sightings:
            if seen.stopped and self._stopped_timeout is not None:
                since = facts[seen.pid, "stopped"] = self._since.get((seen.pid, "stopped"), now)
                if now - since >= self._stopped_timeout:
                    verdicts[seen.pid] = f"stopped for longer than stopped_timeout={self._stopped_timeout:g} s"
            elif seen.cursor is not None and self._handler_timeout is not None:
                since = facts[seen.pid, seen.cursor] = self._since.get((seen.pid, seen.cursor), now)
                if now - since >= self._handler_timeout:
                    verdicts[seen.pid] = f"in a handler for longer than handler_timeout={self._handler_timeout:g} s"
        self._since = facts
        return verdicts
