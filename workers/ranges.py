"""Host a range of array agents: chunks of records come in as views, replies go out as rows.

    lane -> Chunk -> Host.begin: open (checked: dtype, length, ids) -> on_records(ids, records) -> rows -> Packed

What an agent sends goes into the outbox, in chunks that a lane between workers takes.
"""

from typing import Any, NamedTuple

from fabric.array_agents import ArrayGroup
from fabric.chunk import Chunk, Packed
from fabric.heap import keep_heap
from fabric.messages import RECORDS, Ranges
from fabric.records import Array, RowType, checked_call, open_rows, pack, pack_rows, split
from fabric.workers.outbox import Outbox

_LARGEST_TEMPORARY = 31 << 20
_CHUNK_BYTES = 64 * 1024  # a quarter of a lane between workers as it is by default


class _Opened(NamedTuple):
    """A chunk that was found good."""

    ids: Array
    records: Array

    def __reduce__(self) -> Any:
        """Refuse to travel: what is checked here is not checked where it arrives, and the records are views."""
        raise TypeError("records cannot be forwarded as they came; use tell_records")


class RangeReceiver:
    """Stands in the host where an ordinary agent would."""

    __slots__ = ("_host", "_ids", "_name", "_reply", "_rows", "agent")

    def __init__(self, host: Any, agent: Any, where: Ranges) -> None:
        self._host = host
        self._name = type(agent).__name__
        self._ids = where.of(agent._address)
        self._rows = RowType(agent.dtype, f"{self._name}.dtype")
        self._reply = None if agent.reply_dtype is None else RowType(agent.reply_dtype, f"{self._name}.reply_dtype")
        self.agent = agent
        agent._ranges = where
        keep_heap(
            _LARGEST_TEMPORARY
        )  # for temporaries: fresh pages are a quarter of what a step of scripts/examples/epidemic.py takes

    def open(self, chunk: Chunk) -> _Opened:
        """Return views of a chunk. EncodingError: it is not for these agents."""
        ids, records = open_rows(chunk, self._rows, self._ids, self._name)
        assert ids is not None
        return _Opened(ids, records)

    def on_message(self, body: Any) -> Any:
        """Hand on a chunk, or a message to the object itself."""
        if type(body) is not _Opened:
            return self.agent.on_message(body)
        replies = self.agent.on_records(body.ids, body.records)
        return self._packed(replies, len(body.ids)) if self._host.asked_in_hand() else None

    def _packed(self, replies: Any, count: int) -> Packed:
        """Check what on_records returned, and lay it out.

        Raises:
            ValueError, TypeError: it is not what ask_records wants.
        """
        wanted = f"{self._name}.on_records was asked {count:,} records, and has to return as many rows"
        if self._reply is None:
            raise TypeError(f"{wanted}; but {self._name} has no reply_dtype")
        if replies is None:
            raise ValueError(f"{wanted} of dtype {self._reply.dtype}; it returned None")
        try:
            rows = self._reply.checked(replies, "replies")
        except Exception as error:
            raise ValueError(f"{wanted} of dtype {self._reply.dtype}: {error}") from None
        if len(rows) != count:
            raise ValueError(f"{wanted} of dtype {self._reply.dtype}; it returned {len(rows):,}")
        return Packed(pack_rows(self._reply, rows))


def queue_records(outbox: Outbox, sender: int, group: ArrayGroup, ids: Any, records: Any) -> None:
    """Queue all of these records, or none.

    Raises:
        BackpressureError, MessageTooLargeError: as Outbox.tell.
        EncodingError, ValueError, TypeError: as ArrayGroup.tell_records.
    """
    rows, _ = group.types()
    ids, records = checked_call(ids, records, len(group), rows)
    where = group.where
    most = rows.most_rows(outbox.limit, True)
    target = rows.some_rows(min(_CHUNK_BYTES, outbox.limit // 2), most)
    parts = [part for block in split(ids, where.bounds, target, most) for part in block]
    outbox.require(len(ids) * (rows.itemsize + 8) + 32 * len(parts), len(parts))
    for part in parts:
        body: Any = pack(rows, part, ids, records).data  # it is laid behind others as bytes are
        outbox.tell(where.addresses[part.range_index], sender, 0, RECORDS, body)
