"""Keep large payloads in this process's own stretch of the segment, written once, and lend them to receivers.

    body --store--> block of the arena --lend--> loan, named in the message --> receiver's view of the same memory
                        ^ counted: by parcels on their way, by loans, by arrays that the program holds

Only this process writes here. A block goes back when its last loan was given back and nobody here has it. A
full arena is back-pressure: whoever may wait waits for receivers to give back, and then gets an error.
"""

import contextlib
import errno
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator

from fabric.errors import BackpressureError, ClosedError, MessageTooLargeError
from fabric.lending import Lending
from fabric.parcel import Parcel, Piece
from fabric.private import Pages, address_of
from fabric.segment import Segment

_FRESH_AT_ONCE = 64 << 20  # bytes of memory that are taken with one look at how much there is
_LEFT_TO_OTHERS = 64 << 20  # bytes of memory that are never taken
_KEPT = 256 << 20  # bytes of free blocks that keep their memory: taking them again costs no page faults


class Arena:
    """This process's blocks. Any thread."""

    def __init__(self, segment: Segment, lending: Lending, patience: float, memory_left: Callable[[], int]) -> None:
        """`patience` is how many seconds to wait for room; `memory_left` says how many bytes may be taken."""
        self.lending = lending
        self.lock = threading.RLock()  # a finalizer may run inside any of this
        self._own = memoryview(segment.own_arena())
        self._address = address_of(self._own)
        self._pages: Pages | None = Pages(self._own)
        self._memory_left = memory_left
        self._patience = patience
        self._pid = os.getpid()
        self.size = len(self._own)
        self._hurry = threading.local()
        self.wait: Callable[[Callable[[], bool], float], bool] | None = None  # (reached, deadline) -> in time?
        self.waits_once = False  # is one wait in vain enough, until so much is had again? Else each block is waited for
        self._in_vain = math.inf  # the least bytes that were waited for in vain
        self.held = 0  # stretches that this program has: what loan() and share() gave it
        lending.allow(_FRESH_AT_ONCE)  # the first are had without a look

    # Taking and filling blocks.

    def reserve(self, size: int, patient: bool = True) -> Piece:
        """Take a block of `size` bytes; the caller fills it. `patient`: wait for room, if this thread may wait.

        Raises:
            MessageTooLargeError: it is more than the whole arena.
            BackpressureError: there is no room, or no memory; it says of which, and what to do.
            TimeoutError: likewise, when the sender's own time was up first; see `hurry`.
        """
        if size > self.size > 0:  # 0: closed, which `_take` says
            raise MessageTooLargeError(size, self.size)
        offset = self._take(size)
        late = False
        if offset < 0 and patient and self.wait is not None:
            offset, late = self._await(size, offset, self.wait)
        if offset < 0:
            raise self._refusal(offset, size, late)  # kept in no name: its traceback would keep what callers hold
        if size >= self._in_vain:
            self._in_vain = math.inf
        return Piece(offset, offset, size, False)

    def _await(self, size: int, offset: int, wait: Callable[[Callable[[], bool], float], bool]) -> tuple[int, bool]:
        """Wait until a block can be taken. Returns what `_take` said last, and whether the sender had less time."""

        def came() -> bool:
            nonlocal offset
            if offset < 0:  # whoever waits may look again after it came: a second block would be nobody's
                offset = self._take(size)
            return offset >= 0

        own, limit = time.monotonic() + self._patience, getattr(self._hurry, "deadline", math.inf)
        deadline = min(own, limit)
        hopeless = self.waits_once and size >= self._in_vain
        try:
            if deadline > time.monotonic() and not hopeless and not wait(came, deadline):
                self._in_vain = min(self._in_vain, size)
        except BaseException:
            if offset >= 0:  # Ctrl-C on the way out of the wait
                self.drop(offset)
            raise
        return offset, 0 < limit < own

    @contextlib.contextmanager
    def hurry(self, deadline: float) -> Iterator[None]:
        """Have this thread wait for room no longer than until then (monotonic seconds); 0: it does not wait at all."""
        self._hurry.deadline = deadline
        try:
            yield
        finally:
            del self._hurry.deadline

    def store(self, buffer: memoryview, patient: bool = True) -> Piece:
        """Copy bytes into a block of their own, or find that they lie in one. As `reserve`."""
        there = self.piece_of(buffer)
        if there is not None:
            return there
        piece = self.fill(buffer.nbytes, lambda memory: _copy(memory, buffer), patient)
        return piece._replace(read_only=buffer.readonly)

    def fill(self, size: int, write: Callable[[memoryview], None], patient: bool = True) -> Piece:
        """Take a block and have its bytes written; one that cannot be written is nobody's. As `reserve`."""
        piece = self.reserve(size, patient)
        try:
            write(self.memory(piece))
        except BaseException:
            self.drop(piece.block)
            raise
        return piece

    def memory(self, piece: Piece) -> memoryview:
        """The bytes of a piece, to be written."""
        return self._own[piece.at : piece.at + piece.bytes]

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of bytes of this arena."""
        return bytes(self._own[offset : offset + size])

    def hold(self, piece: Piece) -> memoryview:
        """Return a piece as memory that a program may keep: it stays until the last view of it is gone."""
        assert self._pages is not None
        view = self._pages.view(piece.at, piece.bytes, functools.partial(self._let_go, piece.block))
        with self.lock:
            self.held += 1
        return memoryview(view)

    def piece_of(self, buffer: memoryview) -> Piece | None:
        """Return the piece that these bytes are, when they lie in a block already (a loan, something shared)."""
        if buffer.nbytes == 0:
            return None
        at = address_of(buffer) - self._address
        if not 0 <= at <= self.size - buffer.nbytes:
            return None
        with self.lock:
            block = self.lending.retain_around(at)
        if block < 0:
            return None
        return Piece(block, at, buffer.nbytes, buffer.readonly)

    # A fabric.parcel.Lender.

    def retain(self, block: int) -> None:
        """Keep a block once more."""
        with self.lock:
            self.lending.retain(block)

    def drop(self, block: int) -> None:
        """Keep it once less. Nothing happens in a forked child, whose parent goes on using it."""
        if os.getpid() != self._pid:
            return
        with self.lock:
            self.lending.drop(block)
            self.lending.trim(_KEPT)

    def _let_go(self, block: int) -> None:
        """Take note that the program has a stretch of a block no more. In whichever thread; see `drop`."""
        if os.getpid() != self._pid:
            return
        with self.lock:
            self.held -= 1
            self.drop(block)

    def lend(self, piece: Piece, reader: int) -> int:
        """Lend a piece to a process; return the loan."""
        with self.lock:
            loan = self.lending.lend(piece.block, piece.at, piece.bytes, reader)
        if loan < 0:
            out = self.lending.usage()[3]
            raise BackpressureError(
                f"{out:,} payloads are lent already, and receivers have given none back: receive them more slowly, "
                "or send smaller ones (those below arena_threshold need no loan)"
            )
        return loan

    def unlend(self, loan: int) -> None:
        """Take back what was lent and never sent."""
        if os.getpid() != self._pid:
            return
        with self.lock:
            self.lending.unlend(loan)

    def parcel(self, pieces: list[Piece], inline: bytes = b"", whole: bool = False) -> Parcel:
        """Make a body of these pieces, which are the parcel's from now on."""
        return Parcel(self, pieces, inline, whole)

    # What is left.

    def usage(self) -> tuple[int, ...]:
        """Return bytes in blocks, bytes of memory, largest free stretch, loans, size, blocks."""
        with self.lock:
            self.lending.reclaim(0)
            return self.lending.usage()

    def close(self) -> None:
        """Let go of the mapping; what receivers and the program hold stays good."""
        with self.lock:
            self._pid = -1
            self._own = memoryview(b"")
            self._pages = None
            self.size = 0
            self.lending.close()

    def _take(self, size: int) -> int:
        with self.lock:
            if self._pages is None:
                raise ClosedError("this fabric was closed while a payload waited for room")
            offset = self.lending.take(size)
            if offset == -errno.ENOMEM and self._allow(size):
                offset = self.lending.take(size)
            return offset

    def _allow(self, size: int) -> bool:
        """Let the allocator touch more memory, if there is that much: a shortage must be no signal."""
        left = self._memory_left() - _LEFT_TO_OTHERS
        if left < size:
            return False
        self.lending.allow(min(left, size + _FRESH_AT_ONCE))
        return True

    def _refusal(self, problem: int, size: int, late: bool) -> Exception:
        kind = TimeoutError if late else BackpressureError
        used, _, largest, loans, total, _ = self.usage()
        if problem == -errno.ENOMEM:
            return kind(
                f"a payload of {size:,} bytes was asked for, and {max(0, self._memory_left()):,} bytes of memory are "
                "left on this machine or in its control group: free memory, or raise the container's limit"
            )
        return kind(
            f"a payload of {size:,} bytes was asked for, and the arena of this process has {total - used:,} of "
            f"{total:,} bytes free ({largest:,} in one stretch; {loans:,} payloads are in receivers' hands, "
            f"{self.held:,} arrays of loan() or share() in ours): let go of arrays that were received or lent, "
            "or raise arena_bytes"
        )


def _copy(memory: memoryview, buffer: memoryview) -> None:
    memory[:] = buffer.cast("B")
