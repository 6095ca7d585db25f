"""Read what the processes of a fabric measure, straight from its segment: in the coordinator, or from outside.

    board          is it measured at all; which slots are used; whose pids   coordinator writes
    classes        number of each agent's class, and the names of these      coordinator writes
    a block        counters, traffic, measures, last use of agents           the process of that block writes

Nothing is locked and nobody is asked: a word is read as it stands, so two words may be a batch apart.
"""

import os
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fabric.histogram import COUNTS, HISTOGRAM_BYTES, SECONDS, Histogram
from fabric.lanes import NO_TRAFFIC, read_traffic
from fabric.messages import COORDINATOR
from fabric.ring import CLASS_NAME_BYTES, CLASSES, LAST_USE_NS, LINE_BYTES, PROCESSES_MAX, Traffic, survey
from fabric.segment import Segment

_HEAD_BYTES = 2 * 8 * CLASSES
_EMPTY = bytes(24)  # sum, maximum and the count of zeros: so begins a histogram that nothing was counted in
_NOTHING = Histogram()
_OTHERS = "(several)"  # class 0
_USED = LINE_BYTES + -(-8 * PROCESSES_MAX // LINE_BYTES) * LINE_BYTES  # in the board: behind the pids


class Measures(NamedTuple):
    """What one process has measured since its slot was first used; by number of class where there are several."""

    messages: Sequence[int] = (0,)
    errors: Sequence[int] = (0,)
    lane_time: Histogram = Histogram()
    batch_sizes: Histogram = Histogram((), COUNTS)
    round_trip: Histogram = Histogram()
    handler_time: tuple[Histogram, ...] = (Histogram(),)


class Meters:
    """The figures of one fabric, read from its segment. Any process that has it mapped."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._layout = segment.layout
        self._places = segment.layout.metrics

    @property
    def measuring(self) -> bool:
        """Are metrics kept?"""
        return self._word(self._places.board) & 0xFFFFFFFF != 0

    def pids(self) -> list[int]:
        """The process in each slot, 0 for none; the first is the coordinator."""
        return self._segment.look(self._places.board + LINE_BYTES, 8 * self._layout.processes).cast("Q").tolist()

    def slots(self) -> list[int]:
        """The slots that have a worker, or are about to get its successor."""
        used = self._segment.look(self._places.board + _USED, self._layout.processes)
        return [slot for slot, in_use in enumerate(used) if in_use]

    def class_names(self) -> list[str]:
        """The names of the classes of agents, by number; the first stands for several, and for one too many."""
        names = [_OTHERS]
        written = self._segment.look(self._places.class_names, CLASSES * CLASS_NAME_BYTES)
        for number in range(1, CLASSES):
            at = number * CLASS_NAME_BYTES
            name = bytes(written[at : at + CLASS_NAME_BYTES]).partition(b"\0")[0]
            if not name:
                break
            names.append(name.decode("utf-8", "replace"))
        return names

    def counters_of(self, process: int) -> memoryview:
        """The counters of a process: see fabric.counters."""
        return self._segment.counters_of(process)

    def traffic(self) -> list[Traffic]:
        """What each process has sent, and what waits for it; of slots that are not used maybe nothing."""
        if self._segment.process is not None:
            return survey(self._layout, self._segment.whole)
        used = {COORDINATOR, *self.slots()}
        return [
            read_traffic(self._segment, slot) if slot in used else NO_TRAFFIC for slot in range(self._layout.processes)
        ]

    def measures(self, process: int, classes: int) -> Measures:
        """Copy the histograms of a process, and what it counts by class, for the first so many classes."""
        start = self._layout.block_offset(process) + self._places.measures
        words = self._segment.look(start, _HEAD_BYTES).cast("Q")
        messages, errors = words[:classes].tolist(), words[CLASSES : CLASSES + classes].tolist()
        places = range(start + _HEAD_BYTES, start + _HEAD_BYTES + (3 + classes) * HISTOGRAM_BYTES, HISTOGRAM_BYTES)
        lane_time, batch_sizes, round_trip = map(self._histogram, places[:3], (SECONDS, COUNTS, SECONDS))
        handler_time = [  # of class 0 messages are timed together that are counted apart
            self._histogram(at) if count or not number else _NOTHING
            for number, (count, at) in enumerate(zip(messages, places[3:], strict=True))
        ]
        return Measures(messages, errors, lane_time, batch_sizes, round_trip, tuple(handler_time))

    def last_use(self, process: int, index: int) -> float | None:
        """When an agent, by its index in the table, was last handed a message, in monotonic seconds; None: never.

        It is told within 17 ms, and true once the batch that holds the message was received.
        """
        at = self._layout.block_offset(process) + self._places.last_use + 4 * index
        when = self._word(at) & 0xFFFFFFFF
        return when * LAST_USE_NS / 1e9 if when else None

    def _histogram(self, at: int, scale: float = SECONDS) -> Histogram:
        if self._segment.look(at, len(_EMPTY)) == _EMPTY:  # so that most of what nobody has written to is left alone
            return Histogram((), scale)
        return Histogram((bytes(self._segment.look(at, HISTOGRAM_BYTES)),), scale)

    def _word(self, at: int) -> int:
        return int.from_bytes(self._segment.look(at, 8), sys.byteorder)


class Board:
    """What the coordinator writes for those who read. The coordinator only; any thread."""

    def __init__(self, segment: Segment) -> None:
        places = segment.layout.metrics
        self._measuring = segment.front(places.board, 4).cast("I")
        self._pids = segment.front(places.board + LINE_BYTES, 8 * segment.layout.processes).cast("Q")
        self._used = segment.front(places.board + _USED, segment.layout.processes)
        self._classes = segment.front(places.classes, segment.layout.max_agents)
        self._names = segment.front(places.class_names, CLASSES * CLASS_NAME_BYTES)
        self._numbers: dict[str, int] = {}  # by module and name, so that a class defined again is the same
        self._pids[0] = os.getpid()

    def measure(self, on: bool) -> None:
        """Have all processes measure from their next batch on, or not."""
        self._measuring[0] = on

    def post(self, slot: int, pid: int) -> None:
        """Say who runs in a slot; 0 for nobody."""
        self._pids[slot] = pid

    def use(self, slots: Iterable[int]) -> None:
        """Say which slots have a worker, or are about to get its successor; no others have."""
        chosen = set(slots)
        self._used[:] = bytes(slot in chosen for slot in range(len(self._used)))

    def classify(self, kind: type, addresses: "array[int]") -> None:
        """Say of which class these agents are, before they can be sent anything. One thread at a time."""
        number = self._number_of(kind)
        first = min(addresses, default=0)
        if max(addresses, default=0) - first + 1 == len(addresses):  # most batches are one stretch of one generation
            start = first & 0xFFFFFFFF
            self._classes[start : start + len(addresses)] = bytes([number]) * len(addresses)
            return
        for address in addresses:
            self._classes[address & 0xFFFFFFFF] = number

    def _number_of(self, kind: type) -> int:
        """Return the number of a class; a new one's name is written down. 0 where there are too many."""
        full = f"{kind.__module__}.{kind.__qualname__}"
        number = self._numbers.get(full, len(self._numbers) + 1)
        if full in self._numbers or number >= CLASSES:
            return number % CLASSES
        brief = kind.__qualname__.rpartition("<locals>.")[2]
        taken = brief in (known.rpartition(".")[2] for known in self._numbers)
        name = (full if taken else brief).encode("utf-8", "replace")[: CLASS_NAME_BYTES - 1]
        at = number * CLASS_NAME_BYTES
        self._names[at : at + len(name)] = name
        self._numbers[full] = number
        return number

    def close(self) -> None:
        """Let go of the segment."""
        for view in (self._measuring, self._pids, self._used, self._classes, self._names):
            view.release()
