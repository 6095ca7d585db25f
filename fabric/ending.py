"""End a worker if, and only if, the message that it has in hand at that moment is one of those named.

    1  look at the cursor of the running worker     not one of those: leave it alone; most tries end here
    2  stop it (SIGSTOP), wait until it stands      the kernel says so; one that does not stand soon goes on
    3  look again: now the cursor stands too        one of those: note why, kill it. Else let it go on

So it never dies with another message in hand, and what dies with it is known by its place in the lane: nobody
handles that again (SkipOrder), whoever asked it is told, and nothing else is to blame.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Container
from typing import NamedTuple

from fabric.counters import PID
from fabric.crew import Crew, Worker
from fabric.messages import COORDINATOR
from fabric.postmortem import Victim, is_stopped, locate
from fabric.segment import Segment

_STAND_PATIENCE = 0.1  # seconds that a worker may take to stop: it may be in a system call that nothing interrupts
_STAND_LOOK = 20e-6


class Ending(NamedTuple):
    """A worker that we killed for the message it had in hand."""

    victim: Victim
    why: str


class _Any(Container[int]):
    """Holds all correlation ids that somebody waits for."""

    def __contains__(self, correlation: object) -> bool:
        return correlation != 0


_ANY = _Any()


class Ender:
    """Ends workers of one fabric. Any thread; one at a time."""

    def __init__(self, segment: Segment, crew: Crew, expects: Callable[[int], bool]) -> None:
        """`expects(correlation)` says whether the reply to a question is still to come."""
        self._expects = expects
        self._segment = segment
        self._crew = crew
        self._turn = threading.Lock()  # two that hold one worker would let it go under each other's hands
        self._stops = 0  # odd while a worker stands because of us
        self._endings: dict[int, Ending] = {}  # by pid, until its death is taken in

    def end(self, slot: int, correlations: Container[int], why: str) -> bool:
        """Kill the worker of a slot in the middle of one of these questions of the coordinator. Was it?

        Waits for a tenth of a second at the most, in turn.
        """
        with self._turn, self._crew.worker_at(slot) as worker:
            if worker is None or self._named(worker, correlations) is None:
                return False
            if is_stopped(worker.pid):  # by somebody else, who lets it go on if anybody does
                return self._end_standing(worker, correlations, why)
            ended = False
            self._stops += 1
            try:
                self._send(worker, signal.SIGSTOP)
                ended = _wait_until(lambda: is_stopped(worker.pid)) and self._end_standing(worker, correlations, why)
            finally:  # after Ctrl-C too
                if not ended:
                    self._send(worker, signal.SIGCONT)
                self._stops += 1
            return ended

    def has_in_hand(self, slot: int, correlation: int) -> bool:
        """Has the worker of a slot this question in hand? A guess: it runs."""
        with self._crew.worker_at(slot) as worker:
            return worker is not None and self._named(worker, (correlation,)) is not None

    def has_any_in_hand(self, worker: Worker) -> bool:
        """Has this worker any question of the coordinator in hand? A guess: it runs."""
        return self._named(worker, _ANY) is not None

    def interrupt(self, slot: int, act: Callable[[int], None]) -> bool:
        """Stop the worker of a slot in the middle of a question of the coordinator, act, and let it go on.

        `act(correlation)` is told which it has in hand; what it writes to the segment meanwhile the worker sees before
        it begins another. False: it has none, or does not stop. Waits as `end`.
        """
        with self._turn, self._crew.worker_at(slot) as worker:
            if worker is None or self._named(worker, _ANY) is None or is_stopped(worker.pid):
                return False
            self._stops += 1
            try:
                self._send(worker, signal.SIGSTOP)
                victim = self._named(worker, _ANY) if _wait_until(lambda: is_stopped(worker.pid)) else None
                if victim is not None:
                    act(victim.correlation)
            finally:
                self._send(worker, signal.SIGCONT)
                self._stops += 1
            return victim is not None

    def is_stopped(self, pid: int) -> bool:
        """Is this process stopped, by somebody else than us?"""
        before = self._stops
        return is_stopped(pid) and before == self._stops and before % 2 == 0

    def take(self, pid: int) -> Ending | None:
        """Return why we ended this worker, None if we did not. Once for each."""
        return self._endings.pop(pid, None)

    def _end_standing(self, worker: Worker, correlations: Container[int], why: str) -> bool:
        victim = self._named(worker, correlations)
        if victim is None or not self._expects(victim.correlation) or victim.correlation not in correlations:
            return False  # something else, or its reply is out, and may be what has just changed `correlations`
        self._endings[worker.pid] = Ending(victim, why)  # before its death can be seen
        if self._send(worker, signal.SIGKILL):
            return True
        self._endings.pop(worker.pid, None)
        return False

    def _named(self, worker: Worker, correlations: Container[int]) -> Victim | None:
        """Return the message in hand, if it is one of these. Of a worker that runs it is a guess."""
        if self._segment.counters_of(worker.slot)[PID] != worker.pid:  # what stands there is its predecessor's
            return None
        victim = locate(self._segment, worker.slot)
        if victim is None or victim.lane != COORDINATOR or victim.correlation not in correlations:
            return None
        return victim

    def _send(self, worker: Worker, number: signal.Signals) -> bool:
        """Send a signal. False: the worker is dead, and maybe gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker.pidfd, number)
            return True
        return False


def _wait_until(reached: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _STAND_PATIENCE
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(_STAND_LOOK)
    return True
