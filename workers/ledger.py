"""Know how far each lane may be committed: not past a message whose reply is not out.

Messages of ordinary agents are done when their batch is. Those in the hands of a coroutine are done later,
in any order, while the worker goes on reading; the lane's head stays in front of the first of them.

    lane   | done | done | in hand: 2 | done | in hand: 1 |
                         ^ head may move up to here

Half a lane may be held back so. Beyond that the oldest are committed all the same: coroutines that ask each
other across workers wait for messages that need the room. Those would not be handled again after a crash: `let_go`
has them, so that it can be written down who is to be told then.
"""

from collections import deque
from collections.abc import Callable
from typing import Any


class Stretch:
    """Part of a lane, up to `end`, with `in_hand` messages that are not done."""

    __slots__ = ("begin", "end", "in_hand", "lane", "tickets")

    def __init__(self, lane: int, end: int = 0, begin: int | None = None) -> None:
        self.lane = lane
        self.begin = begin
        self.end = end
        self.in_hand = 0
        self.tickets: list[Any] = []  # of those, and of some that are done


class Ledger:
    """Stretches in hand, by lane."""

    def __init__(self, most_held: Callable[[int], int] = lambda lane: 2**62) -> None:
        """`most_held(lane)` is how many bytes of a lane may be held back: beyond that its sender would stand still."""
        self._lanes: dict[int, deque[Stretch]] = {}
        self._most_held = most_held
        self._committed: dict[int, int] = {}
        self.let_go: list[Any] = []  # tickets of what is to be committed in spite of them

    def read(self, lane: int, end: int, stretch: Stretch | None = None) -> int | None:
        """Note that a lane was handled up to `end`, save what `stretch` has in hand.

        Returns what to commit, None for nothing yet.
        """
        waiting = self._lanes.get(lane)
        if not waiting:
            if stretch is None or stretch.in_hand == 0:
                return end
            waiting = self._lanes[lane] = deque()
            self._committed[lane] = end if stretch.begin is None else stretch.begin
        stretch = stretch or Stretch(lane)
        stretch.end = end
        waiting.append(stretch)
        return self._let_go(lane, waiting, end)

    def _let_go(self, lane: int, waiting: "deque[Stretch]", end: int) -> int | None:
        """Commit the oldest in spite of what is in hand, if too much of the lane is held back."""
        released = None
        while len(waiting) > 1 and end - self._committed[lane] > self._most_held(lane):
            oldest = waiting.popleft()
            released = self._committed[lane] = oldest.end
            self.let_go.extend(oldest.tickets)
        return released

    def done(self, stretch: Stretch) -> int | None:
        """Note that one message of a stretch is done; return what to commit in its lane, None for nothing."""
        stretch.in_hand -= 1
        waiting = self._lanes.get(stretch.lane)
        end = None
        while waiting and waiting[0].in_hand == 0:
            end = self._committed[stretch.lane] = waiting.popleft().end
        return end

    def holds(self, lane: int) -> bool:
        """Is something of this lane in hand?"""
        return bool(self._lanes.get(lane))

    @property
    def empty(self) -> bool:
        """Is nothing in hand?"""
        return not any(self._lanes.values())
