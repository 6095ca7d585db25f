"""Say where everything lies in a segment: the header that the coordinator wrote, and the offsets that follow from it.

native/fab_layout.h has the drawing. Any process, any thread; nothing here waits, and the segment need not be mapped.
"""

import functools
import os
from typing import Any, NamedTuple

from fabric._native import ffi, lib
from fabric.errors import FabricError, LayoutError

PROCESSES_MAX: int = lib.FAB_PROCESSES_MAX
COUNTERS: int = lib.FAB_COUNTERS
CLASSES: int = lib.FAB_CLASSES
CLASS_NAME_BYTES: int = lib.FAB_CLASS_NAME_BYTES
TRAFFIC_BYTES: int = lib.FAB_TRAFFIC_BYTES

LINE_BYTES = 128
TABLE_OFFSET = 4096

_LAYOUT_PROBLEMS = {
    -8: "this is not a segment of shm-fabric (wrong magic number)",
    -71: "this segment was laid out by another version of shm-fabric",
    -22: "the sizes in this segment's header contradict each other or its length",
}


def check(rc: int) -> int:
    """Return `rc`, or raise the error that its negative value stands for."""
    if rc >= 0:
        return rc
    raise FabricError(f"the C core refused the call: {os.strerror(-rc)}")


class MetricsLayout(NamedTuple):
    """Where the words of metrics begin: the first three in the segment, the others in each process's block."""

    board: int
    classes: int
    class_names: int
    traffic: int
    measures: int
    last_use: int


class Layout:
    """Where everything lies in a segment: the header, and the offsets that follow from it."""

    def __init__(self, header: Any) -> None:
        self.header = header

    @classmethod
    def create(cls, processes: int, sizes: dict[str, int]) -> "Layout":
        """Lay out a segment for `processes` processes. `sizes` are the fields of struct fab_header."""
        header = ffi.new("struct fab_header *", {"processes": processes, **sizes})
        check(lib.fab_header_init(header))
        return cls(header)

    @classmethod
    def read(cls, data: bytes, segment_bytes: int) -> "Layout":
        """Check the first bytes of a segment.

        Raises:
            LayoutError: not a segment of ours, another version's, or damaged.
        """
        header = ffi.new("struct fab_header *")
        if len(data) < ffi.sizeof("struct fab_header"):
            raise LayoutError(f"{len(data)} bytes are too few for the header of a segment")
        ffi.memmove(header, data, ffi.sizeof("struct fab_header"))
        rc = lib.fab_header_validate(header, segment_bytes)
        if rc != 0:
            raise LayoutError(_LAYOUT_PROBLEMS[rc])
        return cls(header)

    @property
    def header_bytes(self) -> bytes:
        """The header as it stands at the start of the segment."""
        return bytes(ffi.buffer(self.header))

    @property
    def processes(self) -> int:
        """Coordinator and worker slots."""
        return int(self.header.processes)

    @property
    def segment_bytes(self) -> int:
        """Length of the whole segment."""
        return int(self.header.segment_bytes)

    @property
    def max_agents(self) -> int:
        """Words in the agent table."""
        return int(self.header.max_agents)

    @property
    def identity(self) -> int:
        """A random number that tells this fabric from any other."""
        return int(self.header.identity)

    def writable_range(self, process: int) -> tuple[int, int]:
        """Return (offset, bytes) of what this process alone writes; the coordinator's includes the header."""
        offset: int = lib.fab_block_offset(self.header, process)
        end = offset + lib.fab_block_bytes(self.header, process)
        start = 0 if process == 0 else offset
        return start, end - start

    def block_offset(self, process: int) -> int:
        """Return where the block of a process begins."""
        return int(lib.fab_block_offset(self.header, process))

    @property
    def heads_offset(self) -> int:
        """Where the heads of a process's incoming lanes begin in its block."""
        return int(lib.fab_heads_offset())

    @property
    def tails_offset(self) -> int:
        """Where the tails of a process's outgoing lanes begin in its block."""
        return int(lib.fab_tails_offset(self.header))

    @property
    def outbox_words_offset(self) -> int:
        """Where the tail of a worker's outbox stands in its block, and its head one line behind."""
        return self.tails_offset + 2 * self.processes * LINE_BYTES

    @property
    def begun_offset(self) -> int:
        """Where the words `begun`, one a lane, and then the words `handled` begin in a process's block."""
        return int(lib.fab_begun_offset(self.header))

    @functools.cached_property
    def metrics(self) -> MetricsLayout:
        """Where what is measured lies."""
        names = ("classes", "class_names", "traffic", "measures", "last_use")
        places = [getattr(lib, f"fab_{name}_offset")(self.header) for name in names]
        return MetricsLayout(lib.fab_board_offset(), *places)

    def journal_range(self, process: int) -> tuple[int, int]:
        """Return (offset in the segment, bytes) of the data of a worker's journal."""
        offset = self.block_offset(process) + int(lib.fab_journal_offset(self.header, process))
        return offset, int(self.header.journal_bytes)

    def arena_range(self, process: int) -> tuple[int, int]:
        """Return (offset in the segment, bytes) of a process's arena."""
        offset = self.block_offset(process) + int(lib.fab_arena_offset(self.header, process))
        return offset, int(self.header.arena_bytes)

    def lane_range(self, producer: int, lane: int) -> tuple[int, int]:
        """Return (offset in the segment, bytes) of the data of one of `producer`'s lanes."""
        offset = self.block_offset(producer) + lib.fab_data_offset(self.header, producer, lane)
        return offset, lib.fab_lane_bytes(self.header, producer, lane)
