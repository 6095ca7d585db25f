"""Tell who waits for whom in a fabric, from outside: what lies in the lanes, and what each worker has in hand.

    a lane with something in it      its target is not through with what its source sent
    a full lane                      its source waits for room
    an outbox with something in it   likewise: agents of that worker sent more than the lanes to others took
    a message in hand                its sender waits for that agent, if it asked

What is seen of a worker that runs on is a guess, of one that stands it is exact. Nobody is asked and nothing is locked.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from fabric import counters as count
from fabric.lanes import Lane, filled
from fabric.layout import LINE_BYTES
from fabric.messages import COORDINATOR, CURSOR_MAKING, index_of
from fabric.meters import Meters
from fabric.postmortem import Victim, is_stopped, locate
from fabric.ring import HEADER_BYTES
from fabric.segment import Segment

STARTING, STOPPED, HUNG, RUNNING, IDLE = "starting", "stopped", "hung", "running", "idle"
HUNG_SECONDS = 10.0  # with one message in hand; it may just compute, which its stack tells
_LOOKS = 3  # at a message in hand that changes meanwhile


@dataclass(frozen=True, slots=True)
class InHand:
    """The message that a worker has in hand."""

    agent: int  # its index in the table
    kind: str  # its class; "" where that is not known
    sender: int  # the process that sent it: 0 is the coordinator
    asked: bool  # does the sender expect a reply?
    seconds: float  # seen in hand for so long, at least
    sent_seconds: float  # since it was sent


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker does at this moment."""

    slot: int
    pid: int  # 0: nobody runs there yet
    state: str  # "starting", "stopped", "hung", "running" or "idle"
    in_hand: InHand | None
    outbox_bytes: int  # sent by its agents, and not in a lane yet


@dataclass(frozen=True, slots=True)
class Waits:
    """Who waits for whom in a fabric at one moment."""

    lanes: tuple[Lane, ...]  # that something lies in, the fullest first
    workers: tuple[WorkerState, ...]

    def worker(self, slot: int) -> WorkerState | None:
        """Return the state of the worker in a slot."""
        return next((one for one in self.workers if one.slot == slot), None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return {
            "lanes": [lane._asdict() for lane in self.lanes],
            "workers": [dataclasses.asdict(one) for one in self.workers],
        }


class _Cursor(NamedTuple):
    """What identifies a message in hand: nobody else ever has these words."""

    pid: int
    word: int
    where: int


class Waiting:
    """Looks at one fabric again and again, and remembers since when each message has been in hand."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._meters = Meters(segment)
        self._since: dict[_Cursor, float] = {}

    def look(self, now: float) -> Waits:
        """Look now, which is in monotonic seconds."""
        pids, slots = self._meters.pids(), self._meters.slots()
        names = self._meters.class_names()
        since: dict[_Cursor, float] = {}
        workers = tuple(self._worker(slot, pids[slot], names, since, now) for slot in slots)
        self._since = since
        return Waits(tuple(filled(self._segment, [COORDINATOR, *slots])), workers)

    def _worker(self, slot: int, pid: int, names: list[str], since: dict[_Cursor, float], now: float) -> WorkerState:
        outbox = self._outbox_bytes(slot)
        stopped = pid != 0 and is_stopped(pid)
        if pid == 0 or self._segment.counters_of(slot)[count.PID] != pid:  # what stands there is its predecessor's
            return WorkerState(slot, pid, STOPPED if stopped else STARTING, None, outbox)
        cursor = _Cursor(pid, *self._segment.cursor_of(slot))
        held = 0.0
        if cursor.word:
            since[cursor] = self._since.get(cursor, now)
            held = now - since[cursor]
        in_hand = self._in_hand(slot, names, held, now) if cursor.word else None
        if stopped:
            state = STOPPED
        elif cursor.word == CURSOR_MAKING:
            state = STARTING
        elif cursor.word and held >= HUNG_SECONDS:
            state = HUNG
        elif cursor.word or not self._sleeps(slot):
            state = RUNNING
        else:
            state = IDLE
        return WorkerState(slot, pid, state, in_hand, outbox)

    def _in_hand(self, slot: int, names: list[str], held: float, now: float) -> InHand | None:
        """Describe the message in hand, if it is the same before and after it was looked at."""
        segment = self._segment
        for _ in range(_LOOKS):
            cursor = segment.cursor_of(slot)
            victim = locate(segment, slot)
            if victim is None:
                return None
            found = self._describe(slot, victim, names, held, now)
            if segment.cursor_of(slot) == cursor and segment.head_of(slot, victim.lane) <= victim.position:
                return found
        return None

    def _describe(self, slot: int, victim: Victim, names: list[str], held: float, now: float) -> InHand:
        segment = self._segment
        index = index_of(victim.target)
        kind = segment.look(segment.layout.metrics.classes + index, 1) if index < segment.layout.max_agents else b""
        number = kind[0] if len(kind) else 0
        data = segment.lane_slices(victim.lane, slot)
        at = victim.position % len(data)
        sent_at = data[at + HEADER_BYTES - 8 : at + HEADER_BYTES].cast("Q")[0]
        return InHand(
            agent=index,
            kind=names[number] if 0 < number < len(names) else "",
            sender=victim.lane,
            asked=victim.correlation != 0,
            seconds=held,
            sent_seconds=max(held, now - sent_at / 1e9) if sent_at else held,
        )

    def _outbox_bytes(self, slot: int) -> int:
        start = self._segment.layout.block_offset(slot) + self._segment.layout.outbox_words_offset
        words = self._segment.look(start, 2 * LINE_BYTES).cast("Q")
        return max(0, min(words[0] - words[LINE_BYTES // 8], int(self._segment.layout.header.outbox_bytes)))

    def _sleeps(self, slot: int) -> bool:
        """Has it said that it waits for something to do?"""
        return self._segment.look(self._segment.layout.block_offset(slot), 4).cast("I")[0] != 0
