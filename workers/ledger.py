"""Know how far each lane may be committed: not past a message whose reply is not out.

Messages of ordinary agents are done when their batch is. Those in the hands of a coroutine are done later,
in any order, while the worker goes on reading; the lane's head stays in front of the first of them.

    lane   | done | done | in hand: 2 | done | in hand: 1 |
                         ^ head may move up to here
"""

from collections import deque


class Stretch:
    """Part of a lane, up to `end`, with `in_hand` messages that are not done."""

    __slots__ = ("end", "in_hand", "lane")

    def __init__(self, lane: int, end: int = 0) -> None:
        self.lane = lane
        self.end = end
        self.in_hand = 0


class Ledger:
    """Stretches in hand, by lane."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Stretch]] = {}

    def read(self, lane: int, end: int, stretch: Stretch | None = None) -> int | None:
        """Note that a lane was handled up to `end`, save what `stretch` has in hand.

        Returns what to commit, None for nothing yet.
        """
        waiting = self._lanes.get(lane)
        if not waiting:
            if stretch is None or stretch.in_hand == 0:
                return end
            waiting = self._lanes[lane] = deque()
        stretch = stretch or Stretch(lane)
        stretch.end = end
        waiting.append(stretch)
        return None

    def done(self, stretch: Stretch) -> int | None:
        """Note that one message of a stretch is done; return what to commit in its lane, None for nothing."""
        stretch.in_hand -= 1
        waiting = self._lanes.get(stretch.lane)
        end = None
        while waiting and waiting[0].in_hand == 0:
            end = waiting.popleft().end
        return end

    @property
    def empty(self) -> bool:
        """Is nothing in hand?"""
        return not any(self._lanes.values())
