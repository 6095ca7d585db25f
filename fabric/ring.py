"""Bind the C core: one process's ends of all its lanes. Nothing above this module's row sees ffi or lib.

Who may call what: `receive`, `commit` and `wait` belong to one thread at a time, sending to a lane to
whoever holds that lane's lock (fabric.channel); the rest may be called by any thread. Every call drops the
GIL, so the calls that move messages take a batch.
"""

import contextlib
import functools
import os
import select
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fabric._native import ffi, lib
from fabric.errors import FabricError, LayoutError, MessageTooLargeError

BATCH_MAX: int = lib.FAB_BATCH_MAX
PROCESSES_MAX: int = lib.FAB_PROCESSES_MAX
COUNTERS: int = lib.FAB_COUNTERS
MESSAGES: int = lib.FAB_WAITS_MESSAGES
ROOM: int = lib.FAB_WAITS_ROOM
QUIET: int = lib.FAB_WAITS_QUIET
ALIVE: int = lib.FAB_AGENT_ALIVE
STOPPED: int = lib.FAB_AGENT_STOPPED
LOST: int = lib.FAB_AGENT_LOST
CLASSES: int = lib.FAB_CLASSES
SURVEY_HEAD: int = lib.FAB_SURVEY_HEAD
CLASS_NAME_BYTES: int = lib.FAB_CLASS_NAME_BYTES
TRAFFIC_BYTES: int = lib.FAB_TRAFFIC_BYTES
LONG_NS: int = lib.FAB_LONG_NS  # from so long on the C core times a message that came alone
LAST_USE_NS: int = 1 << lib.FAB_LAST_USE_SHIFT  # unit of an agent's last use

HEADER_BYTES: int = ffi.sizeof("struct fab_record")
OUTBOX_LANE = -1  # stands for a worker's outbox where Peer.intend_slice means a lane
RUN = 16  # kind of record in a journal: records of a lane, as they lay there
IN_OUTBOX = 2  # see Peer.pass_on
_STRAY = 2
MOST_BYTES = 2**32 - 1  # that the size of a record can say
LINE_BYTES = 128
TABLE_OFFSET = 4096
EINTR = -4
_FOR_EVER = 2**62
# What precedes a body: its size, kind, encoding, flags, target, sender, correlation id, and two that C fills in.
RECORD = struct.Struct("=IHBB5Q")
_FACTS = struct.Struct(f"{lib.FAB_COLUMN_FACTS}Q")
_RUN_BYTES = 1 << 20  # a run of records is copied out in one piece: keep that piece in the cache

_LAYOUT_PROBLEMS = {
    -8: "this is not a segment of shm-fabric (wrong magic number)",
    -71: "this segment was laid out by another version of shm-fabric",
    -22: "the sizes in this segment's header contradict each other or its length",
}


def keep_heap(largest: int) -> None:
    """Have malloc serve blocks of up to so many bytes (glibc: 32 MiB at most) from its heap, and keep twice that of
    what is freed, in place of asking the kernel for fresh pages: see fab_heap_keep.
    """
    lib.fab_heap_keep(largest)


def _check(rc: int) -> int:
    """Return `rc`, or raise the error that its negative value stands for."""
    if rc >= 0:
        return rc
    raise FabricError(f"the C core refused the call: {os.strerror(-rc)}")


class Stray(NamedTuple):
    """A record in an outbox that nobody can get; kind 0: it was no record."""

    kind: int
    target: int
    sender: int
    correlation: int


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
        _check(lib.fab_header_init(header))
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


class Traffic(NamedTuple):
    """What a process has sent, and what waits for it in its lane from the coordinator."""

    messages: int
    asks: int
    replies: int
    bytes: int
    waiting_bytes: int
    in_flight: int


def survey(layout: Layout, whole: Any) -> list[Traffic]:
    """Look at what all processes have sent. Any process that has the segment mapped; one crossing."""
    found = ffi.new("struct fab_survey[]", layout.processes)
    lib.fab_survey_all(layout.header, ffi.from_buffer("uint8_t[]", whole), found)
    words = memoryview(ffi.buffer(found)).cast("Q").tolist()
    return [Traffic(*words[at : at + 6]) for at in range(0, len(words), 6)]


class MeasuresReader:
    """Copies what processes have measured, but for what is empty of it. One thread at a time."""

    def __init__(self, layout: Layout, whole: Any) -> None:
        self._header = layout.header
        self._whole = ffi.from_buffer("uint8_t[]", whole)
        self._room = ffi.new("uint64_t[]", 2 * CLASSES + (3 + CLASSES) * (SURVEY_HEAD + lib.FAB_HISTOGRAM_BUCKETS))
        self._words = memoryview(ffi.buffer(self._room)).cast("Q")

    def read(self, process: int, classes: int) -> memoryview:
        """Return the words of fab_survey_measures, a copy."""
        used = lib.fab_survey_measures(self._header, self._whole, process, classes, self._room)
        return memoryview(self._words[:used].tobytes()).cast("Q")


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


class Batch:
    """Records to send in one call: columns, and what the records have in common.

    `put` may be called again until all are in; it remembers how far it came. Not shared between threads.
    """

    def __init__(self, meta: int, sender: int, count: int) -> None:
        self._c = ffi.new("struct fab_batch *")
        self._done = ffi.new("uint32_t *")
        self._offset = ffi.new("uint64_t *")
        self._keep: list[Any] = []
        self.parcels: dict[int, Any] | None = None  # bodies that are lent, by index: told when they are in a lane
        self.count = self._c.count = count
        header = self._c.header
        header.kind = meta & 0xFFFF
        header.encoding = meta >> 16 & 0xFF
        header.flags = meta >> 24
        header.sender = sender

    def targets(self, addresses: "array[int]") -> "Batch":
        """Give each record its own target."""
        self._c.targets = self._pointer("uint64_t[]", addresses)
        return self

    def target(self, address: int) -> "Batch":
        """Give all records one target."""
        self._c.header.target = address
        return self

    def senders(self, addresses: "array[int]") -> "Batch":
        """Give each record its own sender."""
        self._c.senders = self._pointer("uint64_t[]", addresses)
        return self

    def correlations(self, ids: "array[int]") -> "Batch":
        """Give each record its own correlation id."""
        self._c.correlations = self._pointer("uint64_t[]", ids)
        return self

    def numbered_from(self, first: int) -> "Batch":
        """Number the records: the correlation ids are first, first + 1, ..."""
        self._c.header.correlation = first
        self._c.numbered = 1
        return self

    def bodies(self, blob: bytes, sizes: "array[int] | int", encodings: bytes | None = None) -> "Batch":
        """Give the bodies, behind one another; `sizes` is one number when all are of one size."""
        self._c.bytes = self._pointer("uint8_t[]", blob)
        self._c.bytes_count = len(blob)
        if isinstance(sizes, int):
            if sizes > MOST_BYTES:
                raise MessageTooLargeError(sizes, MOST_BYTES)
            self._c.header.size = sizes
        else:
            self._c.sizes = self._pointer("uint32_t[]", sizes)
        if encodings is not None:
            self._c.encodings = self._pointer("uint8_t[]", encodings)
        return self

    def same_body(self, body: bytes) -> "Batch":
        """Give all records the same body, kept once."""
        self._c.repeated = 1
        return self.bodies(body, len(body))

    @property
    def done(self) -> int:
        """How many records are in the lane."""
        return int(self._done[0])

    def put(self, peer: "Peer", lane: int, most_bytes: int = _FOR_EVER) -> bool:
        """Write and publish what fits while fewer than `most_bytes` are in flight. True: all are in.

        Raises:
            MessageTooLargeError: the next record is over the lane's limit; those before it were sent.
        """
        try:
            rc = lib.fab_peer_send_batch(peer.c, lane, self._c, most_bytes, self._done, self._offset)
            if rc > 0 and self._done[0] < self.count:  # what ended it: no room, or a record that is too large?
                rc = lib.fab_peer_send_batch(peer.c, lane, self._c, most_bytes, self._done, self._offset)
        finally:
            self._tell_parcels()
        return self._advanced(rc, peer, lane)

    def put_in_outbox(self, peer: "Peer") -> bool:
        """Write and publish to this worker's own outbox. True: all are in."""
        try:
            rc = lib.fab_peer_outbox_batch(peer.c, self._c, self._done, self._offset)
            if rc > 0 and self._done[0] < self.count:
                rc = lib.fab_peer_outbox_batch(peer.c, self._c, self._done, self._offset)
        finally:
            self._tell_parcels()
        return self._advanced(rc, peer, 0)

    def put_in_journal(self, peer: "Peer") -> bool:
        """Write and publish to this worker's own journal. True: all are in; a record too large counts as no room."""
        lib.fab_peer_journal_batch(peer.c, self._c, self._done, self._offset)
        return bool(self._done[0] == self.count)

    def _tell_parcels(self) -> None:
        """Leave what is in the lane to its receivers, whatever interrupts us: the C core has counted it."""
        if self.parcels:
            for index in [index for index in self.parcels if index < self.done]:
                self.parcels.pop(index).sent()

    def _advanced(self, rc: int, peer: "Peer", lane: int) -> bool:
        if rc < 0:
            sizes = self._c.sizes
            size = sizes[self._done[0]] if sizes else self._c.header.size
            raise MessageTooLargeError(size, peer.body_limit(lane))
        return bool(self._done[0] == self.count)

    def _pointer(self, kind: str, data: Any) -> Any:
        pointer = ffi.from_buffer(kind, data)
        self._keep.append(pointer)
        return pointer


class Peer:
    """One process's ends of all its lanes, over its two mappings of the segment."""

    def __init__(self, layout: Layout, process: int, whole: Any, block: Any) -> None:
        """Connect. `whole` is the segment, read-only; `block` what this process writes (writable_range)."""
        start, _ = layout.writable_range(process)
        mapped = (ffi.from_buffer(whole), ffi.from_buffer(block, require_writable=True))
        base = ffi.cast("uint8_t *", mapped[0])
        own = ffi.cast("uint8_t *", mapped[1])
        self._base_writable = own
        own_block = own + (layout.block_offset(process) - start)
        # The mappings live as long as this struct: a call that is under way keeps both, whatever `close` does.
        self.c = ffi.gc(ffi.new("struct fab_peer *"), lambda struct, keep=mapped: None)
        self.process = process
        self.bell = -1
        self._pollset: select.epoll | None = None
        self.processes = layout.processes
        self.outbox_limit = int(layout.header.outbox_bytes) // 2 - HEADER_BYTES  # of a body in the outbox
        for other in range(layout.processes):
            lib.fab_peer_set_bell(self.c, other, -1)
        _check(lib.fab_peer_init(self.c, layout.header, process, base, own_block))
        lib.fab_meter_open(self.c)
        self.table = memoryview(whole)[TABLE_OFFSET : TABLE_OFFSET + 8 * layout.max_agents].cast("Q")
        self._head = ffi.new("uint64_t *")
        self._stray = ffi.new("struct fab_record *")

    def close(self) -> None:
        """Let go of the mappings. Nothing can be called afterwards; what is under way in C ends well."""
        self.c = self._base_writable = None
        if self._pollset is not None:
            self._pollset.close()
        self.table = memoryview(b"")

    def configure(self, cores: int, spin_us: float) -> None:
        """Say how many CPUs this process may use and how long a spin may last at most."""
        lib.fab_peer_tune(self.c, cores, int(spin_us * 1000))

    def handled(self, count: int, nanoseconds: int) -> None:
        """Say that handlers took so long for `count` messages of the batch received last."""
        lib.fab_peer_handled(self.c, count, nanoseconds)

    def set_bell(self, process: int, eventfd: int) -> None:
        """Say where the bell of a process is; -1 when nobody is in that slot."""
        if process == self.process:
            self.bell = eventfd
            self._watch(eventfd)
        lib.fab_peer_set_bell(self.c, process, eventfd)

    def _watch(self, bell: int) -> None:
        """Have waits go through an epoll, which is quicker; without one they work as well."""
        with contextlib.suppress(OSError):
            self._pollset = select.epoll()
            self._pollset.register(bell, select.EPOLLIN | select.EPOLLET)
            lib.fab_peer_set_pollset(self.c, self._pollset.fileno())

    def ring(self, process: int) -> None:
        """Wake a process, whatever it waits for."""
        c = self.c
        if c is not None:
            lib.fab_peer_ring(c, process)

    def lane_bytes(self, lane: int) -> int:
        """Return the capacity of the lane to, and so of that from, the process at its other end."""
        return 2 * (self.body_limit(lane) + HEADER_BYTES)

    def body_limit(self, lane: int) -> int:
        """Return the largest body that this lane takes."""
        return int(lib.fab_peer_body_limit(self.c, lane))

    def send(self, lane: int, meta: int, target: int, sender: int, correlation: int, body: bytes) -> bool:
        """Write one record and publish it. False: the lane is full.

        `meta` is kind | encoding << 16 | flags << 24.

        Raises:
            MessageTooLargeError: the body is over the lane's limit.
        """
        try:
            rc = lib.fab_peer_send_one(self.c, lane, meta, target, sender, correlation, body, len(body))
        except OverflowError:  # a size of more than 32 bits
            rc = -1
        if rc < 0:
            raise MessageTooLargeError(len(body), self.body_limit(lane))
        return bool(rc == 1)

    def receive(self, most: int, columns: Columns, done_lane: int = -1, done_end: int = 0) -> int:
        """Commit `done_lane` up to `done_end` (-1: nothing), then fill `columns` from the next lane.

        Returns the lane, or -1 when all are empty.
        """
        return lib.fab_peer_commit_and_receive(  # type: ignore[no-any-return]
            self.c, done_lane, done_end, most, _RUN_BYTES, columns.raw
        )

    def await_next(
        self, reasons: int, seconds: float | None, most: int, columns: Columns, done_lane: int, done_end: int
    ) -> int:
        """Do as `receive`, and wait first, as `wait` does, if nothing is there.

        Returns the lane, -1 when nothing came, or EINTR when a signal did.
        """
        timeout = _FOR_EVER if seconds is None else max(0, int(min(seconds, 1.0) * 1e9))
        return lib.fab_peer_commit_and_await(  # type: ignore[no-any-return]
            self.c, reasons, timeout, done_lane, done_end, most, _RUN_BYTES, columns.raw
        )

    def rewind(self) -> None:
        """Read again what was received and not committed."""
        lib.fab_peer_rewind(self.c)

    def commit(self, lane: int, end: int) -> None:
        """Hand the bytes below `end` back to the producer of a lane."""
        lib.fab_peer_commit(self.c, lane, end)

    def wait(self, reasons: int, extra: int = -1, seconds: float | None = None) -> int:
        """Spin a little, then sleep until there may be something to do, at most one second.

        `extra` is one more descriptor to wake up for. Returns 1, 2 when `extra` is ready, 0 when the time
        was up, or a negative errno when a signal came.
        """
        if seconds is None:
            return lib.fab_peer_wait(self.c, reasons, extra, _FOR_EVER)  # type: ignore[no-any-return]
        return lib.fab_peer_wait(self.c, reasons, extra, max(0, int(min(seconds, 1.0) * 1e9)))  # type: ignore[no-any-return]

    def arm(self, reasons: int) -> bool:
        """Say that we sleep; True: there is work, do not block. Call `disarm` afterwards in any case."""
        return bool(lib.fab_peer_arm(self.c, reasons))

    def disarm(self) -> None:
        """Say that we are awake, and empty our bell."""
        lib.fab_peer_disarm(self.c)

    def quiet(self) -> bool:
        """Is nothing in flight in any lane of any process?"""
        return bool(lib.fab_peer_quiet(self.c))

    def backlog(self, lane: int) -> tuple[int, int]:
        """Return (bytes in flight, the consumer's head) of one of our outgoing lanes."""
        return lib.fab_peer_backlog(self.c, lane, self._head), self._head[0]

    def outbox_room(self) -> int:
        """Return how many bytes of records the outbox takes for certain."""
        return int(lib.fab_peer_outbox_room(self.c))

    def flush_outbox(self) -> tuple[bool, list[Stray]]:
        """Move what fits from the outbox to the lanes; return (is it empty, what nobody can get)."""
        strays: list[Stray] = []
        while (rc := lib.fab_peer_outbox_flush(self.c, self._stray)) == _STRAY:
            stray = self._stray[0]
            strays.append(Stray(stray.kind, stray.target, stray.sender, stray.correlation))
        return bool(rc), strays

    def intend_slice(self, where: int, lane: int, end: int) -> None:
        """Write down that the next store of the tail of `where` (or OUTBOX_LANE) publishes `lane` up to `end`."""
        lib.fab_peer_intend_slice(self.c, where, lane, end)

    def published_slice(self) -> tuple[int, int] | None:
        """Return the (lane, end) that a dead predecessor had published and said so; before anything is sent."""
        lane = lib.fab_peer_published_slice(self.c, self._head)
        return None if lane < 0 else (lane, self._head[0])

    def pass_on(self, lane: int, end: int, behind: bool, records: bytes) -> int:
        """Publish records of one kind, each a RECORD and its body, by one store: to the lane of all their targets.

        That publishes `lane` up to `end` too, which is written down before; lane -1: no slice. They go to the outbox
        when they are to queue `behind` what lies there, or when they are of a slice and no one lane takes them.
        Returns 1, IN_OUTBOX, or 0: nothing was done, for want of room or of somebody who gets them.
        """
        return lib.fab_peer_outbox_pass(self.c, lane, end, behind, records, len(records))  # type: ignore[no-any-return]

    def resume(self, lane: int, end: int) -> None:
        """Step over what a dead predecessor has handled; counters before the head or beyond the tail are refused."""
        lib.fab_peer_adopt(self.c, lane, end)

    def resume_outbox(self) -> None:
        """Take up the outbox of a dead predecessor; before the first flush."""
        lib.fab_peer_outbox_resume(self.c)

    def tail(self, lane: int) -> int:
        """Return how far one of our lanes is written."""
        return int(lib.fab_peer_tail(self.c, lane))

    def room(self, lane: int) -> int:
        """Return how many bytes one of our lanes has room for; padding at its end comes off that."""
        return int(lib.fab_peer_room(self.c, lane))

    def journal_run(self, lane: int, begin: int, end: int) -> bool:
        """Copy a run of records that was received from a lane into the journal. False: there is no room."""
        return bool(lib.fab_peer_journal_run(self.c, lane, begin, end) == 1)

    def journal_room(self) -> int:
        """Return how many bytes the journal has room for; padding at its end comes off that."""
        return int(lib.fab_peer_journal_room(self.c))

    def journal_tail(self) -> int:
        """Return how far the journal is written."""
        return int(lib.fab_peer_journal_tail(self.c))

    def journal_peek(self, columns: Columns) -> int:
        """Read on in the journal; return how many records of one kind are in the columns, 0 at its end."""
        return int(lib.fab_peer_journal_peek(self.c, columns.raw))

    def journal_forget(self, end: int) -> None:
        """Give up what was written to the journal before this counter."""
        lib.fab_peer_journal_forget(self.c, end)

    def route(self, addresses: "array[int]") -> "tuple[int, array[int]]":
        """Return (how many of the first are alive, slot of each of those)."""
        slots = array("H", bytes(2 * len(addresses)))
        found = lib.fab_peer_route(
            self.c,
            ffi.from_buffer("uint64_t[]", addresses),
            len(addresses),
            ffi.from_buffer("uint16_t[]", slots),
        )
        return int(found), slots

    def partition(self, slots: "array[int]") -> list[tuple[int, Sequence[int]]]:
        """Sort messages by slot: (slot, indexes of its messages in order) for each slot in use."""
        order = array("I", bytes(4 * len(slots)))
        starts = ffi.new("uint32_t[]", self.processes + 1)
        lib.fab_partition(
            ffi.from_buffer("uint16_t[]", slots),
            len(slots),
            self.processes,
            ffi.from_buffer("uint32_t[]", order),
            starts,
        )
        bounds = ffi.unpack(starts, self.processes + 1)
        return [
            (slot, order[bounds[slot] : bounds[slot + 1]])
            for slot in range(self.processes)
            if bounds[slot] != bounds[slot + 1]
        ]

    def write_table(self, addresses: "array[int]", slots: "array[int]", state: int) -> None:
        """Write the table's words of these agents. Coordinator only."""
        lib.fab_table_write(
            self._base_writable,
            ffi.from_buffer("uint64_t[]", addresses),
            ffi.from_buffer("uint16_t[]", slots),
            len(addresses),
            state,
        )

    def sent(self, lane: int) -> int:
        """Return how many messages went into one of our lanes."""
        return int(lib.fab_peer_sent(self.c, lane))

    def progress(self, process: int) -> int:
        """Return how far a process has come: a number that grows with each commit, and only so."""
        return int(lib.fab_peer_progress(self.c, process))

    def dropped_bytes(self) -> int:
        """Return how many bytes in incoming lanes could not be records."""
        return int(lib.fab_peer_dropped(self.c))

    def dropped_bytes_of(self, process: int) -> int:
        """Return how many of those a process sent; a tail that cannot be counts as one."""
        return int(lib.fab_peer_dropped_of(self.c, process))

    def mend(self, process: int) -> None:
        """Read the lanes of a dead process again, whose tails were set to what we have committed of them."""
        lib.fab_peer_mend(self.c, process)
