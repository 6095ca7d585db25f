"""Create and attach the one segment of a fabric: anonymous, sealed, gone with its last process.

    coordinator                       worker k                       monitor
    Segment.create(config)            Segment.attach(fd, k)          Segment.attach(fd, None)
    whole: read-only                  whole: read-only               nothing mapped: it reads the file
    own: header, table, block 0       own: block k

The segment is a memfd: it has no name, so nothing is left in /dev/shm after any crash, Docker's limit on
/dev/shm does not bind it, and no other user can open it. It is sealed against resizing, so nobody's access
can run past its end. Its pages cost memory when they are first touched, be it to read them through a mapping;
a read of the file leaves them alone, and so watching a fabric costs it nothing.
"""

import errno
import fcntl
import mmap
import os
import secrets

from fabric.config import FabricConfig
from fabric.errors import ClosedError, FabricError, LayoutError, advice
from fabric.layout import CLASSES, COUNTERS, LINE_BYTES, Layout
from fabric.messages import COORDINATOR
from fabric.ring import Peer

_MFD_NOEXEC_SEAL = 0x0008
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_LOANS_MAX = 2**16
_LOANS_MIN = 2**10
_RECEIPTS = 2**21  # of one process: 32 MiB, which cost memory as they are used


def _loans(arena_bytes: int, processes: int) -> int:
    """Return how many pieces of an arena may be on loan at a time: each process has a receipt for each of each."""
    return max(_LOANS_MIN, min(_LOANS_MAX, _RECEIPTS // processes)) if arena_bytes else 0


class Segment:
    """All shared memory of a fabric, as one process sees it.

    The mappings live as long as somebody uses them; `close` gives up this object's own references and the
    descriptor, so a thread that is inside a call at that moment is not hurt. Views taken before must go too.
    """

    def __init__(self, descriptor: int, layout: Layout, process: int | None) -> None:
        self.descriptor = descriptor
        self.layout = layout
        self.process = process
        self._whole: mmap.mmap | None = None
        self._own: mmap.mmap | None = None
        if process is not None:
            size = layout.segment_bytes
            self._whole = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
            offset, length = layout.writable_range(process)
            self._own = mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED, offset=offset)

    @classmethod
    def create(cls, config: FabricConfig, max_workers: int) -> "Segment":
        """Make a segment for a fabric of these settings.

        Raises:
            FabricError: the kernel gives no anonymous memory (a container may forbid memfd_create).
        """
        layout = Layout.create(
            max_workers + 1,
            {
                "lane_bytes": config.lane_bytes,
                "peer_lane_bytes": config.peer_lane_bytes,
                "control_lane_bytes": config.control_lane_bytes,
                "outbox_bytes": config.outbox_bytes,
                "journal_bytes": config.journal_bytes,
                "arena_bytes": config.arena_bytes,
                "loans": _loans(config.arena_bytes, max_workers + 1),
                "max_agents": config.max_agents + 1,  # word 0 is the coordinator
                "identity": secrets.randbits(64),
            },
        )
        descriptor = memfd("shm-fabric")
        try:
            os.ftruncate(descriptor, layout.segment_bytes)
            os.pwrite(descriptor, layout.header_bytes, 0)
            seal(descriptor)
            return cls(descriptor, layout, 0)
        except OSError as error:
            os.close(descriptor)
            raise FabricError(
                f"a segment of {layout.segment_bytes:,} bytes cannot be made: {error.strerror}{advice(error)}"
            ) from error

    @classmethod
    def attach(cls, descriptor: int, process: int | None) -> "Segment":
        """Map a segment by its descriptor, as worker `process`, or None to look only.

        Raises:
            LayoutError: the descriptor is no segment of this version of shm-fabric.
        """
        try:
            size = os.fstat(descriptor).st_size
            layout = Layout.read(os.pread(descriptor, 4096, 0), size)
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError as error:
            raise LayoutError(f"descriptor {descriptor} is no segment: {error.strerror}") from error
        if seals & _SEALS != _SEALS:
            raise LayoutError("this segment is not sealed against resizing: it was not made by shm-fabric")
        if process is not None and not 0 <= process < layout.processes:
            raise LayoutError(f"this segment has no process {process}; it has {layout.processes}")
        return cls(descriptor, layout, process)

    @property
    def whole(self) -> mmap.mmap:
        """The segment, mapped read-only. ClosedError after `close`. Not for whoever only looks."""
        if self._whole is None:
            raise ClosedError("this segment is closed")
        return self._whole

    def look(self, start: int, size: int) -> memoryview:
        """Part of the segment, read-only, as it changes; for whoever only looks a copy of it as it stands.

        Raises:
            ClosedError: the segment is closed.
        """
        if self.process is not None:
            return memoryview(self.whole)[start : start + size]
        if self.descriptor < 0:
            raise ClosedError("this segment is closed")
        return memoryview(os.pread(self.descriptor, size, start))

    def peer(self) -> Peer:
        """Connect this process's ends of the lanes."""
        assert self.process is not None
        return Peer(self.layout, self.process, self.whole, self._own)

    def lane_data(self, producer: int, lane: int) -> memoryview:
        """The data of one of `producer`'s lanes, read-only."""
        return self.look(*self.layout.lane_range(producer, lane))

    def lane_slices(self, producer: int, lane: int) -> "Slices":
        """The data of a lane likewise, for whoever only looks too: read where it is sliced."""
        return Slices(self, *self.layout.lane_range(producer, lane))

    def cursor(self) -> memoryview:
        """This worker's cursor line, writable: 16 words of 64 bits."""
        return self._own_words(LINE_BYTES, 16)

    def begun(self) -> memoryview:
        """This worker's word for each lane: how far it was handed to agents that take a message at most once."""
        return self._own_words(self.layout.begun_offset, self.layout.processes)

    def handled(self) -> memoryview:
        """This worker's word for each lane: how far it is handled, where something holds back the commit."""
        return self._own_words(self.layout.begun_offset + 8 * self.layout.processes, self.layout.processes)

    def handled_of(self, process: int, lane: int) -> int:
        """How far a process has handled one of its incoming lanes, as far as it says so: see `handled`."""
        words = self.layout.block_offset(process) + self.layout.begun_offset + 8 * self.layout.processes
        return self.look(words + 8 * lane, 8).cast("Q")[0]

    def withdrawals(self) -> memoryview:
        """The coordinator's word for each worker, writable: how far its lane's questions to runners are taken back.

        What a worker has begun of them it goes on with; see fabric.ending.Ender.interrupt.
        """
        return self.handled()  # of the coordinator, which has no other use for it

    def withdrawn_from(self, slot: int) -> memoryview:
        """That word for one worker, read-only."""
        words = self.layout.block_offset(COORDINATOR) + self.layout.begun_offset + 8 * self.layout.processes
        return self.look(words + 8 * slot, 8).cast("Q")

    def journal_data(self) -> memoryview:
        """The data of this worker's journal, read-only."""
        return self.look(*self.layout.journal_range(self.process or 0))

    def own_arena(self) -> memoryview:
        """This process's arena, writable."""
        assert self._own is not None
        assert self.process is not None
        offset, size = self.layout.arena_range(self.process)
        start = offset - self.layout.writable_range(self.process)[0]
        return memoryview(self._own)[start : start + size]

    def front(self, start: int, size: int) -> memoryview:
        """Part of what lies before all blocks, writable. The coordinator only."""
        assert self.process == COORDINATOR
        assert self._own is not None
        return memoryview(self._own)[start : start + size]

    def class_errors(self) -> memoryview:
        """This process's counts of errors by class of agent, writable, 64 bits each."""
        return self._own_words(self.layout.metrics.measures + 8 * CLASSES, CLASSES)

    def classes(self) -> memoryview:
        """The number of each agent's class, by its index in the table; read-only."""
        return self.look(self.layout.metrics.classes, self.layout.max_agents)

    def counters(self) -> memoryview:
        """This process's counters, writable, 64 bits each."""
        return self._own_words(2 * LINE_BYTES, COUNTERS)

    def counters_of(self, process: int) -> memoryview:
        """The counters of any process, read-only."""
        start = self.layout.block_offset(process) + 2 * LINE_BYTES
        return self.look(start, 8 * COUNTERS).cast("Q")

    def cursor_of(self, process: int) -> tuple[int, int]:
        """The first two words of a worker's cursor."""
        start = self.layout.block_offset(process) + LINE_BYTES
        index, where = self.look(start, 16).cast("Q")
        return index, where

    def head_of(self, process: int, lane: int) -> int:
        """The head of one of a process's incoming lanes."""
        start = self.layout.block_offset(process) + self.layout.heads_offset + lane * LINE_BYTES
        return self.look(start, 8).cast("Q")[0]

    def tail_of(self, process: int, lane: int) -> int:
        """The tail of one of a process's outgoing lanes."""
        start = self.layout.block_offset(process) + self.layout.tails_offset + lane * LINE_BYTES
        return self.look(start, 8).cast("Q")[0]

    def set_tail(self, lane: int, tail: int) -> None:
        """Set the tail of one of our outgoing lanes: in the name of a dead process, before its successor reads it."""
        self._own_words(self.layout.tails_offset + lane * LINE_BYTES, 1)[0] = tail

    def close(self) -> None:
        """Give up the descriptor and the mappings. Safe to call twice."""
        self._whole = self._own = None
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _own_words(self, offset: int, count: int) -> memoryview:
        assert self._own is not None
        assert self.process is not None
        start = self.layout.block_offset(self.process) - self.layout.writable_range(self.process)[0] + offset
        return memoryview(self._own)[start : start + 8 * count].cast("Q")


class Slices:
    """Part of a segment, of which only what is asked for is looked at."""

    def __init__(self, segment: Segment, start: int, size: int) -> None:
        self._segment = segment
        self._start = start
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, wanted: slice) -> memoryview:
        first, behind, _ = wanted.indices(self._size)
        return self._segment.look(self._start + first, max(0, behind - first))


def memfd(name: str) -> int:
    """Make an anonymous file: this user's, not inherited, sealable, not executable where the kernel knows that.

    Raises:
        FabricError: the kernel gives none.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: Linux before 6.3
            raise _no_memfd(error) from error
        try:
            descriptor = os.memfd_create(name, flags)
        except OSError as second:
            raise _no_memfd(second) from second
    os.fchmod(descriptor, 0o600)  # a memfd is open to all who find a path to it
    return descriptor


def seal(descriptor: int) -> None:
    """Have a memfd keep its size, and its seals, for ever."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _no_memfd(error: OSError) -> FabricError:
    return FabricError(f"there is no anonymous memory to be had (memfd_create: {error.strerror}){advice(error)}")
