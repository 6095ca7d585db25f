"""Bind the lanes of the C core: one process's ends of all of them, its outbox and its journal.

    Peer(layout, ...)   send, or Batch.put (fabric.batch) for many ──▶ lanes ──▶ receive into Columns (fabric.columns)
                        wait, arm, ring: sleep until there is something to do, and wake who sleeps

Who may call what: `receive`, `commit` and `wait` belong to one thread at a time, sending to a lane to
whoever holds that lane's lock (fabric.sender); the rest may be called by any thread. Every call drops the
GIL, so the calls that move messages take a batch.
"""

import contextlib
import select
import struct
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

from fabric._native import ffi, lib
from fabric.columns import Columns
from fabric.errors import MessageTooLargeError
from fabric.layout import TABLE_OFFSET, Layout, check

MESSAGES: int = lib.FAB_WAITS_MESSAGES
ROOM: int = lib.FAB_WAITS_ROOM
QUIET: int = lib.FAB_WAITS_QUIET
ALIVE: int = lib.FAB_AGENT_ALIVE
STOPPED: int = lib.FAB_AGENT_STOPPED
LOST: int = lib.FAB_AGENT_LOST

HEADER_BYTES: int = ffi.sizeof("struct fab_record")
OUTBOX_LANE = -1  # stands for a worker's outbox where Peer.intend_slice means a lane
RUN = 16  # kind of record in a journal: records of a lane, as they lay there
IN_OUTBOX = 2  # see Peer.pass_on
_STRAY = 2
EINTR = -4
_FOR_EVER = 2**62
# What precedes a body: its size, kind, encoding, flags, target, sender, correlation id, and two that C fills in.
RECORD = struct.Struct("=IHBB5Q")
_RUN_BYTES = 1 << 20  # a run of records is copied out in one piece: keep that piece in the cache


class Stray(NamedTuple):
    """A record in an outbox that nobody can get; kind 0: it was no record."""

    kind: int
    target: int
    sender: int
    correlation: int


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
        check(lib.fab_peer_init(self.c, layout.header, process, base, own_block))
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
