"""Read a run of records that the C core received: as columns of numbers, of which only those asked for are made.

    facts       what holds for the whole run: a count, a kind, one size or none        native/fab_columns.h
    columns     target, sender, correlation id of each; where its body lies in the run

Belongs to who receives: one thread at a time. Bodies stay in the lane.
"""

import functools
import struct
from collections.abc import Callable

from fabric._native import ffi, lib

BATCH_MAX: int = lib.FAB_BATCH_MAX
_FACTS = struct.Struct(f"{lib.FAB_COLUMN_FACTS}Q")


class Columns:
    """A run of records as columns of numbers; reused by each `Peer.receive`.

    Read through memoryviews: 4 ns a number and 80 ns for all facts, where ffi.unpack takes 7 and 230.
    """

    __slots__ = ("_ends", "_starts", "_views", "facts", "raw")

    def __init__(self) -> None:
        self.raw = raw = ffi.new("struct fab_columns *")
        # facts(): what holds for the run, in the order of struct fab_columns; one call less than a method
        view = memoryview(ffi.buffer(raw))[: 8 * lib.FAB_COLUMN_FACTS]
        self.facts: Callable[[], tuple[int, ...]] = functools.partial(_FACTS.unpack, view)
        numbers = (raw.targets, raw.senders, raw.correlations)
        self._views = [memoryview(ffi.buffer(column)).cast("Q") for column in numbers]
        self._starts = memoryview(ffi.buffer(raw.starts)).cast("I")
        self._ends = memoryview(ffi.buffer(raw.ends)).cast("I")

    def targets(self, count: int) -> list[int]:
        """Return the target addresses."""
        return self._views[0][:count].tolist()

    def senders(self, count: int) -> list[int]:
        """Return the sender addresses."""
        return self._views[1][:count].tolist()

    def correlations(self, count: int) -> list[int]:
        """Return the correlation ids."""
        return self._views[2][:count].tolist()

    def starts(self, count: int) -> list[int]:
        """Return where each body begins in the run."""
        return self._starts[:count].tolist()

    def ends(self, count: int) -> list[int]:
        """Return where each body ends in the run."""
        return self._ends[:count].tolist()

    def end(self, index: int) -> int:
        """Return where one body ends in the run."""
        return self._ends[index]

    def encodings(self, count: int) -> bytes:
        """Return how each body is encoded."""
        return bytes(ffi.buffer(self.raw.encodings, count))
