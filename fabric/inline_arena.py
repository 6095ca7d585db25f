"""Keep an arena in this process's own memory, for fabric.testing: loans and shares as with workers, counted as there.

    body --> block of an anonymous mapping --lend--> record in a queue --take--> the receiver's own copy; the loan ends

Where a worker would see private pages of the block, a receiver here has a copy of it, at once.
"""

import bisect
import errno
import itertools
import mmap
from collections.abc import Sequence
from typing import Any, cast

from fabric.arena import Arena
from fabric.errors import EncodingError
from fabric.parcel import READ_ONLY, Entry

_PAGE = 4096
_WORTH_GIVING_BACK = 1 << 20  # bytes of memory of a block that is free
_LOANS_MAX = 65_536  # as in a segment
_MAP_NORESERVE = 0x4000  # as Linux has it; the mmap module names it from 3.13 on


class InlineArena(Arena):
    """The one arena of all that a fabric pretends to be."""

    def __init__(self, size: int, patience: float) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        memory = mmap.mmap(-1, size, flags=flags)
        super().__init__(cast(Any, _Owner(memory)), cast(Any, _Lending(memory, size)), patience, lambda: 2**62)

    def take(self, entries: Sequence[Entry], copied: bool = False) -> list[Any]:
        """Return the receiver's own copy of each part that a record named, and end its loan. `copied`: as bytes.

        Raises:
            EncodingError: there is no such loan.
        """
        parts: list[Any] = []
        for entry in entries:
            data = self.read(entry.offset, entry.bytes)
            if self.lending.unlend(entry.loan) != 0:
                raise EncodingError(f"a message names {entry.bytes:,} bytes in the arena that were lent to nobody")
            parts.append(data if copied else memoryview(data if entry.flags & READ_ONLY else bytearray(data)))
        return parts


class _Owner:
    """Has an arena, in the place of a segment."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def own_arena(self) -> mmap.mmap:
        return self._memory


class _Lending:
    """Blocks and loans, in the place of fabric.lending: first fit, in whole pages."""

    def __init__(self, memory: mmap.mmap, size: int) -> None:
        self._memory: mmap.mmap | None = memory
        self._size = size
        self._starts: list[int] = []  # of blocks, in order
        self._blocks: dict[int, list[int]] = {}  # by start: bytes, references
        self._loans: dict[int, int] = {}  # block of each
        self._numbers = itertools.count(1)

    def take(self, count: int) -> int:
        span = -(-count // _PAGE) * _PAGE
        at = 0
        for place, start in enumerate((*self._starts, self._size)):
            if start - at >= span:
                self._starts.insert(place, at)
                self._blocks[at] = [span, 1]
                return at
            at = start + self._blocks[start][0] if start < self._size else at
        return -errno.ENOSPC

    def retain_around(self, offset: int) -> int:
        place = bisect.bisect_right(self._starts, offset) - 1
        start = self._starts[place] if place >= 0 else -1
        if place < 0 or offset >= start + self._blocks[start][0]:
            return -1
        self._blocks[start][1] += 1
        return start

    def retain(self, offset: int) -> int:
        block = self._blocks.get(offset)
        if block is None:
            return -errno.EINVAL
        block[1] += 1
        return 0

    def drop(self, offset: int) -> int:
        block = self._blocks.get(offset)
        if block is None:
            return -errno.EINVAL
        block[1] -= 1
        if block[1] == 0:
            del self._blocks[offset]
            self._starts.remove(offset)
            if block[0] >= _WORTH_GIVING_BACK and self._memory is not None:
                self._memory.madvise(mmap.MADV_DONTNEED, offset, block[0])
        return 0

    def lend(self, offset: int, at: int, count: int, reader: int) -> int:
        if len(self._loans) == _LOANS_MAX:
            return -errno.ENOSPC
        self.retain(offset)
        loan = next(self._numbers)
        self._loans[loan] = offset
        return loan

    def unlend(self, loan: int) -> int:
        block = self._loans.pop(loan, None)
        return -errno.EINVAL if block is None else self.drop(block)

    def allow(self, fresh_bytes: int) -> None:
        pass

    def reclaim(self, most: int = 0) -> int:
        return 0

    def trim(self, keep_bytes: int) -> int:
        return 0

    def usage(self) -> tuple[int, ...]:
        used = sum(size for size, _ in self._blocks.values())
        ends = [0, *(start + self._blocks[start][0] for start in self._starts)]
        largest = max(start - end for start, end in zip((*self._starts, self._size), ends, strict=True))
        return used, used, largest, len(self._loans), self._size, len(self._blocks)

    def close(self) -> None:
        self._memory = None
