"""Send records from the coordinator, and collect the replies to those that were asked.

    tell_records / ask_records -> blocks (fabric.records) -> a chunk for each range -> Switchboard.send_chunks
    ask:  chunk i is question i of one entry, RecordReplies; its rows are copied to their places as they come

While a block waits for room its replies are drained, so the questions in flight are bounded by the lanes,
however many rows a call has.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fabric.array_agents import ArrayGroup
from fabric.chunk import Chunk, rows_offset
from fabric.errors import EncodingError, FabricError
from fabric.messages import INDEX_MASK, ErrorInfo
from fabric.pending import Entry, Failed, Replied, deadline_of, error_in
from fabric.records import Array, Part, RowType, checked_call, open_rows, pack, split
from fabric.remote_errors import Undecodable
from fabric.switchboard import Letter, Switchboard

_CHUNK_BYTES = 1 << 20  # 64-byte records: 27, 55, 66, 78 M/s with 128, 256, 512, 1024 KiB (bench/records.py)


class RecordReplies(Entry):
    """Chunks that were asked together. Questions are added while replies to the first ones come.

    Two threads: the asking one adds and seals, the draining one accepts. Each counts on its own; whoever sees
    last that the counts agree completes the entry:
      asking:   adds n chunks, `asked` = n ... `sealed` = True, then looks whether `came` = n
      draining: `came` + 1, then looks whether `sealed`, and `came` = `asked`
    """

    __slots__ = ("_came", "_errors", "_parts", "_rows", "_sealed", "_slots", "replies")

    def __init__(self, count: int, rows: RowType) -> None:
        self._slots: list[int] = []
        super().__init__(self._slots)
        self._rows = rows
        self._parts: list[Part | None] = []  # None: it has its reply
        self._came = 0
        self._sealed = False
        self._errors: dict[int, Any] = {}
        self.replies = rows.empty(count)

    def add(self, part: Part, slot: int) -> int:
        """Expect the reply to a chunk; return its index.

        Raises:
            ValueError: there are too many of them for one call.
        """
        index = len(self._parts)
        if index > INDEX_MASK:
            raise ValueError(f"more than {INDEX_MASK + 1:,} chunks of records in one call: ask fewer at a time")
        self._slots.append(slot)
        self._parts.append(part)
        return index

    def seal(self) -> None:
        """Say that all chunks were added."""
        self._sealed = True
        self._complete_if_all_came()

    def accept(self, replies: Replied) -> None:
        """Take the replies to some chunks; one that has its reply already is a dead worker's, and dropped."""
        indexes = [correlation & INDEX_MASK for correlation in replies.correlations()]
        if max(indexes) >= len(self._parts):
            raise IndexError("a reply to none of the questions")
        for index, body in zip(indexes, replies.bodies, strict=True):
            part = self._parts[index]
            if part is not None:
                self._take(index, part, body)
        self._complete_if_all_came()

    def fail(self, slot: int, error: FabricError) -> None:
        """Give up what this worker owes."""
        for index, owing in enumerate(list(self._slots)):
            if owing == slot and index < len(self._parts) and self._parts[index] is not None:
                self._settle(index, Failed(error))
        self._complete_if_all_came()

    def error(self, allow_pickle: bool) -> BaseException | None:
        """Return what went wrong with the first chunk, in order, that has no reply; None: all have one."""
        if not self._errors:
            return None
        return error_in(self._errors[min(self._errors)], allow_pickle)

    def _take(self, index: int, part: Part, body: Any) -> None:
        error = body if type(body) in (ErrorInfo, Undecodable) else None
        if error is None:
            try:
                part.put(self._opened(body, part.rows), self.replies)
            except EncodingError as problem:
                error = Failed(problem)
        self._settle(index, error)

    def _opened(self, body: Any, count: int) -> Array:
        """Return the rows of a reply. EncodingError: they are not what was asked for."""
        if type(body) is Chunk:
            rows = open_rows(body, self._rows, None, "a reply")[1]
        else:  # of reply_later: whatever the agent gave
            try:
                rows = self._rows.checked(body, "replies")
            except (ValueError, TypeError) as error:
                raise EncodingError(f"a reply: {error}") from None
        if len(rows) != count:
            raise EncodingError(f"a reply of {len(rows):,} rows came to {count:,} records")
        return rows

    def _settle(self, index: int, error: Any) -> None:
        self._parts[index] = None
        if error is not None:
            self._errors[index] = error
        self._came += 1

    def _complete_if_all_came(self) -> None:
        if self._sealed and self._came == len(self._parts) and not self.done:
            self.complete()


class RecordPost:
    """One call of tell_records or ask_records for a group."""

    def __init__(self, switchboard: Switchboard, group: ArrayGroup, timeout: float | None) -> None:
        self._switchboard = switchboard
        self._group = group
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._rows, self._reply = group.types()

    def tell(self, ids: Any, records: Any) -> None:
        """See ArrayGroup.tell_records."""
        ids, records = checked_call(ids, records, len(self._group), self._rows)
        self._send(ids, records, None, 0)

    def ask(self, ids: Any, records: Any) -> Array:
        """See ArrayGroup.ask_records."""
        if self._reply is None:
            raise TypeError("this group's class has no reply_dtype: say there what on_records returns")
        ids, records = checked_call(ids, records, len(self._group), self._rows)
        replies = self._switchboard.replies
        entry = RecordReplies(len(ids), self._reply)
        first = replies.expect(entry)
        try:
            self._send(ids, records, entry, first)
            entry.seal()
            if not replies.wait(entry, self._deadline):
                raise TimeoutError(f"not all replies to {len(ids):,} records came within {self._timeout} s")
        finally:
            replies.forget(first)
        error = entry.error(self._switchboard.codec.allow_pickle)
        if error is not None:
            raise error
        return entry.replies

    def _send(self, ids: Array, records: Array, entry: RecordReplies | None, first: int) -> None:
        addresses, rows = self._group.where.addresses, self._rows
        slots = self._switchboard.slots_of(self._group.hosts.addresses)
        target, most = self._sizes(slots, entry is not None)
        # Rooms are used again for the next block, as this one is in the lanes then: fresh pages cost more than copying.
        rooms: list[Array] = []
        room_bytes = rows_offset(0, True) + min(target + target // 4, len(ids) + 1) * (rows.itemsize + 8)
        for block in split(ids, self._group.where.bounds, target, most):
            letters = []
            rooms.extend(np.empty(room_bytes, np.uint8) for _ in range(len(block) - len(rooms)))
            for part, room in zip(block, rooms, strict=False):
                slot = slots[part.range_index]
                correlation = 0 if entry is None else first + entry.add(part, slot)
                body = pack(rows, part, ids, records, room)
                letters.append(Letter(slot, addresses[part.range_index], correlation, body))
            try:
                self._switchboard.send_chunks(letters, self._deadline)
            except TimeoutError:
                start = min(part.span.start for part in block)
                text = f"no room for records from about position {start:,} on within {self._timeout} s"
                raise TimeoutError(text) from None

    def _sizes(self, slots: Iterable[int], asked: bool) -> tuple[int, int]:
        """Return how many rows a chunk is to have, and may have at most; so that its reply fits a lane too."""
        limit = self._switchboard.chunk_limit(slots)
        most = self._rows.most_rows(limit, True)
        if asked and self._reply is not None:
            most = min(most, self._reply.most_rows(limit, False))
        return self._rows.some_rows(min(_CHUNK_BYTES, limit // 4), most), most
