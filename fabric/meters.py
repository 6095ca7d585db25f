"""Read what the processes of a fabric measure, straight from its segment: in the coordinator, or from outside.

    board          is it measured at all; which slots are used; whose pids   coordinator writes
    classes        number of each agent's class, and the names of these      coordinator writes
    a block        counters, traffic, measures, last use of agents           the process of that block writes

Nothing is locked and nobody is asked: a word is read as it stands, so two words may be a batch apart.
"""

import os
import sys
import threading
from array import array
from collections.abc import Iterable

from fabric.counters import STARTS
from fabric.histogram import COUNTS, HISTOGRAM_BYTES, TOP, Histogram, bucket_of
from fabric.lanes import NO_TRAFFIC, read_traffic
from fabric.layout import CLASS_NAME_BYTES, CLASSES, LINE_BYTES, PROCESSES_MAX
from fabric.measured import LAST_USE_NS, SURVEY_HEAD, MeasuresReader, Traffic, survey
from fabric.messages import COORDINATOR
from fabric.segment import Segment

_HEAD_BYTES = 2 * 8 * CLASSES
_HEAD_WORDS = 3  # of a histogram in the segment: sum, maximum, shortfall
_OTHERS = "(several)"  # class 0
_USED = LINE_BYTES + -(-8 * PROCESSES_MAX // LINE_BYTES) * LINE_BYTES  # in the board: behind the pids


class Measures:
    """What one process has measured since its slot was first used; by number of class where there are several."""

    __slots__ = ("_rest", "_words", "batch_sizes", "errors", "lane_time", "messages", "round_trip")

    def __init__(self, words: memoryview, classes: int) -> None:
        """`words` are those of fab_survey_measures."""
        self._words = words
        self.messages, self.errors = words[:classes], words[classes : 2 * classes]
        second = 2 * classes + words[2 * classes + SURVEY_HEAD - 1] + SURVEY_HEAD
        third = second + words[second + SURVEY_HEAD - 1] + SURVEY_HEAD
        self._rest = third + words[third + SURVEY_HEAD - 1] + SURVEY_HEAD
        self.lane_time = Histogram((words[2 * classes : second],))
        self.batch_sizes = Histogram((words[second:third],), COUNTS)
        self.round_trip = Histogram((words[third : self._rest],))

    @property
    def handler_time(self) -> list[Histogram]:
        """Seconds a message in handlers, by number of class."""
        found, at = [], self._rest
        for _ in self.messages:
            end = at + self._words[at + SURVEY_HEAD - 1] + SURVEY_HEAD
            found.append(Histogram((self._words[at:end],)))
            at = end
        return found


NOTHING_MEASURED = Measures(memoryview(bytes(8 * 3 * SURVEY_HEAD)).cast("Q"), 0)


class Meters:
    """The figures of one fabric, read from its segment. Any process that has it mapped."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._layout = segment.layout
        self._places = segment.layout.metrics
        self._lock = threading.Lock()
        self._reader: MeasuresReader | None = None

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

    def used(self) -> list[int]:
        """The slots that have, or had, a worker."""
        slots = range(1, self._layout.processes)
        return [slot for slot in slots if self._segment.counters_of(slot)[STARTS]]

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
        """What each process has sent, and what waits for it; of slots that have no worker maybe nothing."""
        if self._segment.process is not None:
            return survey(self._layout, self._segment.whole)
        used = {COORDINATOR, *self.slots(), *self.used()}
        slots = range(self._layout.processes)
        return [read_traffic(self._segment, slot) if slot in used else NO_TRAFFIC for slot in slots]

    def measures(self, process: int, classes: int) -> Measures:
        """Copy the histograms of a process, and what it counts by class, for the first so many classes."""
        if self._segment.process is None:
            return Measures(self._read(process, classes), classes)
        with self._lock:
            if self._reader is None:
                self._reader = MeasuresReader(self._layout, self._segment.whole)
            words = self._reader.read(process, classes)
        return Measures(words, classes)

    def close(self) -> None:
        """Let go of the segment. Safe to call twice."""
        self._reader = None

    def _read(self, process: int, classes: int) -> memoryview:
        """Make the words of fab_survey_measures of what the file says: whoever only looks has nothing mapped."""
        start = self._layout.block_offset(process) + self._places.measures
        head = self._segment.look(start, _HEAD_BYTES).cast("Q")
        messages, errors = head[:classes].tolist(), head[CLASSES : CLASSES + classes].tolist()
        words = array("Q", [*messages, *errors])
        for number in range(3 + classes):
            self._read_histogram(start + _HEAD_BYTES + number * HISTOGRAM_BYTES, words)
        return memoryview(words)

    def _read_histogram(self, at: int, words: "array[int]") -> None:
        total, largest, shortfall = self._segment.look(at, 8 * _HEAD_WORDS).cast("Q")
        first, last = bucket_of(TOP - shortfall), bucket_of(largest)
        used = last - first + 1 if largest or shortfall else 0
        words.extend((total, largest, shortfall, first, max(0, used)))
        if used > 0:
            words.frombytes(self._segment.look(at + 8 * (_HEAD_WORDS + first), 8 * used))

    def last_use(self, process: int, index: int) -> float | None:
        """When an agent, by its index in the table, was last handed a message, in monotonic seconds; None: never.

        It is told within 17 ms, and true once the batch that holds the message was received.
        """
        at = self._layout.block_offset(process) + self._places.last_use + 4 * index
        when = self._word(at) & 0xFFFFFFFF
        return when * LAST_USE_NS / 1e9 if when else None

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
        self._given = {_OTHERS.encode()}
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
        name = self._name_of(kind.__qualname__.rpartition("<locals>.")[2], full, number)
        at = number * CLASS_NAME_BYTES
        self._names[at : at + len(name)] = name
        self._numbers[full] = number
        return number

    def _name_of(self, brief: str, full: str, number: int) -> bytes:
        """Return a name that fits and that no other class has: what is told by name would be mixed up."""
        name = b""
        for text in (brief, full, f"{number}: {full}"):
            name = text.encode("utf-8", "replace")[: CLASS_NAME_BYTES - 1]
            if name not in self._given:
                break
        self._given.add(name)
        return name

    def close(self) -> None:
        """Let go of the segment."""
        for view in (self._measuring, self._pids, self._used, self._classes, self._names):
            view.release()
