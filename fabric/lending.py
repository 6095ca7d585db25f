"""Bind the arena of the C core: blocks of one process, and what is on loan between processes.

    owner                                        reader
    take -> block, lend -> loan  ── a record ──▶ hold(loan) ... done(loan)
    reclaim: its reader is done                  adopt: what a dead predecessor held

Who may call what: `hold`, `done` and `adopt` are the reader's, and any thread may call the first two. All else
is the owner's and belongs to one thread at a time (fabric.arena holds a lock). Nothing here waits.
"""

import errno
from typing import Any

from fabric._native import ffi, lib
from fabric.errors import FabricError
from fabric.ring import Peer

ARENA: int = lib.FAB_WAITS_ARENA  # a reason to wait, as those of fabric.ring: some reader is done with a loan of ours
KEPT = 2**64 - 1  # in place of `end`: no record brought this loan, and a successor keeps it


class Receipts:
    """What one process holds of others' arenas. Any thread may call `hold` and `done`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer.c  # which keeps the mappings, whatever becomes of `peer`

    def hold(self, owner: int, loan: int, offset: int, count: int, end: int) -> bool:
        """Say that we hold a loan that came in a record; `end` is the counter of its lane behind the record.

        False: it is not what the owner's table says, and nothing may be read.
        """
        return bool(lib.fab_loan_hold(self._peer, owner, loan, offset, count, end) == 0)

    def done(self, owner: int, loan: int) -> None:
        """Say that we are done with a loan: no view is left, and its record is committed."""
        peer = self._peer
        if peer is not None:  # a finalizer may run when all is closed
            lib.fab_loan_done(peer, owner, loan)

    def keep_only(self, loans: list[int]) -> None:
        """Be done with what this process has lent to itself for its successors (KEPT), but for these."""
        lib.fab_loan_keep_only(self._peer, loans, len(loans))

    def close(self) -> None:
        """Let go of the mappings. Nothing but `done` can be called afterwards, and that does nothing."""
        self._peer = None

    def adopt(self) -> int:
        """Be done with what only a dead predecessor held; before anything is received. Return how much it was."""
        return int(lib.fab_loan_adopt(self._peer))


class Lending(Receipts):
    """One process's arena, beside its receipts for what others lent it.

    What a dead predecessor in this slot left lent stays where it is: the allocator is built around it. Calls
    that move nothing return a negative errno, as the C core does: what to do about it is the caller's to say.
    """

    def __init__(self, peer: Peer) -> None:
        """Open the arena of this process; before it sends anything, when its bells are set.

        Raises:
            FabricError: there is no arena in this segment, or no memory for its tables.
        """
        super().__init__(peer)
        self._c: Any = ffi.new("struct fab_arena *")
        self._usage = ffi.new("uint64_t[6]")
        rc = lib.fab_arena_open(self._c, self._peer)
        if rc != 0:
            self._c = None
            raise FabricError(
                "there is no memory for the tables of an arena; lower arena_bytes"
                if rc == -errno.ENOMEM
                else "this segment has no arenas: arena_bytes is 0"
            )

    def close(self) -> None:
        """Give up the tables; what is lent stays lent. Nothing but `done` and this can be called afterwards."""
        arena, self._c, self._peer = self._c, None, None
        if arena is not None:
            lib.fab_arena_close(arena)

    def take(self, count: int) -> int:
        """Take a block of at least `count` bytes, in whole pages; return its offset in the arena.

        Else -ENOSPC (no free run is so long), -ENOMEM (more fresh memory than is allowed), -EMSGSIZE (more than
        the arena) or -EINVAL (no bytes).
        """
        return int(lib.fab_arena_take(self._c, count))

    def allow(self, fresh_bytes: int) -> None:
        """Allow that so many bytes of fresh memory are taken: the caller found out that they are there."""
        lib.fab_arena_allow(self._c, fresh_bytes)

    def block_bytes(self, offset: int) -> int:
        """Return the size of the block that begins at this offset, or 0."""
        return int(lib.fab_arena_block_bytes(self._c, offset))

    def retain(self, offset: int) -> int:
        """Take one more reference to a block; return 0 or -EINVAL."""
        return int(lib.fab_arena_retain(self._c, offset))

    def retain_around(self, offset: int) -> int:
        """Take one more reference to the block that this offset lies in; return where it begins, or -1."""
        return int(lib.fab_arena_retain_around(self._c, offset))

    def drop(self, offset: int) -> int:
        """Give one reference to a block up, with the last one the block; return 0 or -EINVAL."""
        return int(lib.fab_arena_drop(self._c, offset))

    def lend(self, offset: int, at: int, count: int, reader: int) -> int:
        """Lend `count` bytes at `at`, in the block at `offset`, to a process; return the loan.

        The loan has a reference to the block. Else -ENOSPC (all loans are out) or -EINVAL.
        """
        return int(lib.fab_arena_lend(self._c, offset, at, count, reader))

    def unlend(self, loan: int) -> int:
        """End a loan that was never sent; return 0 or -EINVAL."""
        return int(lib.fab_arena_unlend(self._c, loan))

    def reclaim(self, most: int = 0) -> int:
        """End loans that their readers are done with, among `most` of them or all; return how many."""
        return int(lib.fab_arena_reclaim(self._c, most))

    def trim(self, keep_bytes: int) -> int:
        """Give the memory of free blocks beyond `keep_bytes` back to the system; return how many bytes."""
        return int(lib.fab_arena_trim(self._c, keep_bytes))

    def usage(self) -> tuple[int, ...]:
        """Return bytes in blocks, resident, of the largest free run; loans out; bytes of the arena; blocks."""
        lib.fab_arena_usage(self._c, self._usage)
        return tuple(ffi.unpack(self._usage, 6))
