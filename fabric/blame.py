"""Remember what killed workers, and decide what is not tried again: a message, or the making of an agent.

a worker died    with a message in hand    the same as the last time in this slot: one strike more
                 of `max_attempts`         it is skipped by successors, its sender gets a PoisonMessageError
                 on_crash="fail"           likewise at the first, with a WorkerLostError
"""

import time

from fabric.counters import POISONED
from fabric.crew import Death
from fabric.errors import FabricError, PoisonMessageError, WorkerLostError
from fabric.messages import ENCODINGS, BarOrder, DeadLetter, SkipOrder, show
from fabric.postmortem import Victim, died_making
from fabric.segment import Segment
from fabric.unasked import Unasked

_MAKING = -1  # in place of a lane, where agents are blamed


class Blame:
    """What the workers of one fabric died of, by slot. The supervisor thread only."""

    def __init__(self, segment: Segment, unasked: Unasked, max_attempts: int) -> None:
        self._segment = segment
        self._unasked = unasked
        self._max_attempts = max_attempts
        self.poisoned = 0  # messages that are not tried again
        self._strikes: dict[int, dict[tuple[int, int], int]] = {}  # slot: (lane, position) of a message: workers
        self._skips: dict[int, list[SkipOrder]] = {}
        self._bars: dict[int, list[BarOrder]] = {}

    def learnt(self, slot: int) -> list[SkipOrder | BarOrder]:
        """Return what a successor in this slot is to leave alone."""
        return [*self._skips.get(slot, []), *self._bars.get(slot, [])]

    def message(self, death: Death, victim: Victim, error: WorkerLostError, why: str, once: bool) -> None:
        """Note that a message killed a worker; see to it that it is not tried for ever. `once`: not even again."""
        slot = death.slot
        strikes = self._strike(slot, (victim.lane, victim.position))
        if once:
            verdict: FabricError = error
        elif strikes >= self._max_attempts:
            how = why or error.signal_name or f"exit code {error.exitcode}"
            self.poisoned += 1
            self._unasked.tally.add(POISONED)
            verdict = PoisonMessageError(f"{victim} (last: {how}, worker {slot}, pid {error.pid})", strikes)
        else:
            return
        del self._strikes[slot]
        self._put_aside(death, victim, verdict, error.signal_name)
        self.skip(slot, SkipOrder(victim.lane, victim.position, verdict))

    def skip(self, slot: int, order: SkipOrder) -> None:
        """Have the successors in a slot not handle a message; forget those that are behind them."""
        skips = self._skips.setdefault(slot, [])
        skips[:] = [skip for skip in skips if skip.position >= self._segment.head_of(slot, skip.lane)]
        skips.append(order)

    def agent(self, death: Death) -> None:
        """Note that making an agent killed a worker, if it did; see to it that it is not tried for ever."""
        address = died_making(self._segment, death.slot)
        if address == 0:
            return
        strikes = self._strike(death.slot, (_MAKING, address))
        if strikes < self._max_attempts:
            return
        error = WorkerLostError(death.slot, death.pid, death.exitcode)
        how = error.signal_name or f"exit code {error.exitcode}"
        verdict = PoisonMessageError(f"making {show(address)} (last: {how}, worker {death.slot})", strikes)
        del self._strikes[death.slot]
        self._bars.setdefault(death.slot, []).append(BarOrder(address, verdict))

    def _strike(self, slot: int, where: tuple[int, int]) -> int:
        strikes = self._strikes.get(slot, {}).get(where, 0) + 1
        self._strikes[slot] = {where: strikes}  # what it had in hand before is done, or it could not have this
        return strikes

    def _put_aside(self, death: Death, victim: Victim, verdict: FabricError, signal_name: str) -> None:
        """Keep the message that will not be tried again, with what is known of the death."""
        told = victim.correlation == 0
        if not told and isinstance(verdict, WorkerLostError):
            return  # the one who asked is told, and may well ask again
        encoding = ENCODINGS.get(victim.encoding, str(victim.encoding))
        evidence = (victim.body, encoding, signal_name, death.stack)
        letter = DeadLetter(victim.target, victim.sender, verdict, time.monotonic(), *evidence, victim.buffers)
        self._unasked.put_aside(letter, told)
