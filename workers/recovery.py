"""Know what a dead predecessor had begun: which messages, when they come again, are not to be handled again.

    lane    | handled, committed | handled, not committed | in hand when it died | not begun |
                                 ^ head

What lies behind the head comes again. It is handled again, at least once, with four exceptions:
  - the supervisor says so: the message has killed too many workers, or the one in hand was not to be repeated
  - its agent takes each message at most once (on_crash="fail") and it had been begun
  - its agent has a snapshot that was taken after it
  - it asks an agent with snapshots for a stream, and had been begun: some of what the generator did may be in one
"""

from collections.abc import Callable, Iterable
from typing import Any

from fabric.errors import WorkerLostError
from fabric.messages import STREAM, SkipOrder, show
from fabric.receiver import Received
from fabric.remote_errors import Undecodable
from fabric.workers.journal import Mark
from fabric.workers.keeper import Kept


class Done:
    """Stands for the body of a told message that has been handled already."""


DONE = Done()


class Recovery:
    """What one predecessor left behind the heads of its lanes."""

    def __init__(
        self,
        pid: int,
        slot: int,
        begun: Iterable[int],
        takes_once: Callable[[int], bool],
        kept: Callable[[int], Kept | None],
    ) -> None:
        self._pid = pid
        self._slot = slot
        self._begun = dict(enumerate(begun))
        self._takes_once = takes_once
        self._kept = kept
        self._mark = Mark({}, [])
        self._done: set[tuple[int, int]] = set()
        self._skips: dict[tuple[int, int], SkipOrder] = {}
        self._until = {lane: position for lane, position in self._begun.items() if position}

    def skip(self, order: SkipOrder) -> None:
        """Take an order of the supervisor."""
        self._skips[order.lane, order.position] = order
        self._look_until(order.lane, order.position + 1)

    def take(self, mark: Mark) -> None:
        """Take in how far the snapshots reach."""
        self._mark, self._done = mark, set(mark.done)
        for lane, position in (*mark.handled.items(), *mark.done):
            self._look_until(lane, position)

    def concerns(self, received: Received) -> bool:
        """May something in this batch have been begun before?"""
        begin = received.end - received.bytes
        until = self._until.get(received.lane)
        if until is None:
            return False
        if begin >= until:
            del self._until[received.lane]
            return False
        return True

    @property
    def over(self) -> bool:
        """Has all come again that can?"""
        return not self._until

    def mark(self, received: Received) -> None:
        """Put something else in the place of bodies that are not to be handled again."""
        targets, correlations = received.targets(), received.correlations()
        streams = received.kind == STREAM
        begin = received.end - received.bytes
        for index, target in enumerate(targets):
            behind = received.end_of(index + 1)
            instead = self._instead(received.lane, begin, behind, target, correlations[index])
            if streams and self._kept(target) is not None and behind <= self._begun.get(received.lane, 0):
                instead = instead or Undecodable(self.lost(target, correlations[index]))
            if instead is not None:
                received.bodies[index] = instead
                received.undecodable = True
            begin = behind

    def _instead(self, lane: int, begin: int, behind: int, target: int, correlation: int) -> Any:
        order = self._skips.get((lane, begin))
        if order is not None:
            return DONE if correlation == 0 else Undecodable(order.error)  # told: it is a dead letter already
        if self._takes_once(target) and behind <= self._begun.get(lane, 0):
            return Undecodable(self.lost(target, correlation))
        kept = self._kept(target)
        if kept is not None and self._is_in_snapshot(kept, lane, behind):
            return DONE if correlation == 0 else Undecodable(self.lost(target, correlation))
        return None

    def _is_in_snapshot(self, kept: Kept, lane: int, behind: int) -> bool:
        if kept.coroutine:
            return (lane, behind) in self._done
        return behind <= self._mark.handled.get(lane, 0)

    def comes_again(self, agent: int, lane: int, behind: int) -> bool:
        """Will this message, which is not committed, be handled again by the agent it went to?"""
        return self._instead(lane, -1, behind, agent, 0) is None

    def lost(self, target: int, correlation: int) -> WorkerLostError:
        """Return what the sender of a message gets that the predecessor had begun."""
        what = f"a message {'asked of' if correlation else 'told'} {show(target)}, which it had begun"
        return WorkerLostError(self._slot, self._pid, None, what)

    def _look_until(self, lane: int, position: int) -> None:
        self._until[lane] = max(position, self._until.get(lane, 0))
