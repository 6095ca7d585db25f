"""Define array agents: ArrayAgents, one object a worker for a whole range of agents, and ArrayGroup.

    spawn_array(Boids, 1_000_000)        worker 1: Boids(range(0, 500_000))      columns of half a million each
                                         worker 2: Boids(range(500_000, 1_000_000))
    group.tell_records(ids, records) ──▶ on_records(ids, records) in each, once a chunk of thousands

An agent here is an id: a place in the columns. What the group keeps is where each range begins, so a million
agents cost their columns and nothing else. numpy is imported when it is first needed: others need not pay for it.
"""

import inspect
import itertools
from array import array
from collections.abc import Iterator
from typing import Any, ClassVar

from fabric.agent import Agent, AgentGroup, Messenger, find_messenger
from fabric.agent_checks import check_handlers
from fabric.messages import Ranges


class ArrayAgents(Agent):
    """Subclass this to host a range of agents in one object a worker, with numpy columns as their state.

    `dtype` says what a record is: anything that numpy.dtype takes, without objects. `reply_dtype` says what a reply
    is, None where nobody asks. The constructor gets its ids first, a range, so that it can make its columns.

    `on_records(ids, records)` handles a chunk: ids is an int64 array of agents of this range, in the order of
    sending (an id may come more than once), records has one row for each. Both are read-only views of the lane and
    good until it returns: copy what is to be kept. It returns None, or an array with a row of `reply_dtype` for each
    record, which ask_records wants. It must be safe to handle a chunk again after a crash, as for any agent.

    `on_message`, `on_start`, `on_stop`, `snapshot` and `restore` are those of the object, as for any Agent;
    `group.hosts` are references to the objects. For snapshot_every a chunk counts as one message.

    Example:
        >>> class Accounts(fabric.ArrayAgents):
        ...     dtype = [("amount", "i8")]
        ...     reply_dtype = "i8"
        ...     def __init__(self, ids):
        ...         self.first = ids.start
        ...         self.balance = np.zeros(len(ids), "i8")
        ...     def on_records(self, ids, records):
        ...         np.add.at(self.balance, ids - self.first, records["amount"])
        ...         return self.balance[ids - self.first]
    """

    __slots__ = ("_ranges",)
    _ranges: Ranges

    dtype: ClassVar[Any] = None
    reply_dtype: ClassVar[Any] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("dtype", "reply_dtype"):
            if cls.__dict__.get(name) is not None:
                from fabric.records import RowType

                setattr(cls, name, RowType(cls.__dict__[name], f"{cls.__name__}.{name}").dtype)

    def __init__(self, ids: range) -> None:
        """Host these ids. Override it, and make the columns here."""

    def on_records(self, ids: Any, records: Any) -> Any:
        """Handle a chunk of records: one row for each of `ids`, in order."""
        raise NotImplementedError(f"{type(self).__name__} has no on_records")

    @property
    def group(self) -> "ArrayGroup":
        """All agents that were spawned together with these; works from on_start on."""
        host = self._bound()
        return ArrayGroup(host, self._ranges, self.dtype, self.reply_dtype, host.json_choices.get(self._address))


class ArrayGroup:
    """Refer to array agents that were spawned together, by their ids: 0 to len - 1. It can be sent in a message."""

    __slots__ = ("_json", "_messenger", "_types", "dtype", "reply_dtype", "where")

    def __init__(
        self, messenger: Messenger, where: Ranges, dtype: Any, reply_dtype: Any, json: bool | None = None
    ) -> None:
        self._messenger = messenger
        self._json = json
        self._types: tuple[Any, Any] | None = None
        self.where = where
        self.dtype = dtype
        self.reply_dtype = reply_dtype

    def tell_records(self, ids: Any, records: Any, timeout: float | None = None) -> None:
        """Send record i to agent ids[i], and wait only for room; records to one agent arrive in order.

        In a handler it never waits: all of them go to the worker's outbox, or none.

        Raises:
            EncodingError: the dtype of the records is not the group's.
            ValueError: an id that names no agent, or not as many records as ids.
            AgentNotFoundError: the group was stopped.
            TimeoutError: no room appeared within `timeout` seconds; records before those named were sent.
            BackpressureError: in a handler, when they do not fit the worker's outbox (see outbox_bytes).
        """
        self._messenger.tell_records(self, ids, records, timeout)

    def ask_records(self, ids: Any, records: Any, timeout: float | None = None) -> Any:
        """Send record i to agent ids[i]; return an array with a reply for each, in the order of ids.

        Raises:
            AgentError: on_records raised, or returned something that is not one row of `reply_dtype` a record.
            TypeError: the class has no reply_dtype.
            TimeoutError: not all replies came within `timeout` seconds. What was sent is handled all the same.
            FabricError: called in a handler, where waiting would stop the whole worker.
            EncodingError, ValueError, AgentNotFoundError: as for tell_records.
        """
        return self._messenger.ask_records(self, ids, records, timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Stop all agents of the group, after what was sent to them before."""
        self.hosts.stop(timeout)

    @property
    def hosts(self) -> AgentGroup:
        """The objects that host the ranges, in the order of their ids: for messages to on_message."""
        return AgentGroup(self._messenger, array("Q", self.where.addresses), self._json)

    @property
    def ids(self) -> range:
        """All ids."""
        return range(len(self))

    @property
    def ranges(self) -> list[range]:
        """The ids of each of `hosts`."""
        bounds = self.where.bounds
        return [range(start, stop) for start, stop in itertools.pairwise(bounds)]

    def types(self) -> tuple[Any, Any]:
        """Return the RowTypes of records and replies; None where there are no replies."""
        if self._types is None:
            from fabric.records import RowType

            reply = None if self.reply_dtype is None else RowType(self.reply_dtype, "reply_dtype")
            self._types = RowType(self.dtype, "dtype"), reply
        return self._types

    def __len__(self) -> int:
        return self.where.bounds[-1]

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ArrayGroup):
            return NotImplemented
        return self.where == other.where and self._messenger.identity == other._messenger.identity

    def __hash__(self) -> int:
        return hash(self.where)

    def __repr__(self) -> str:
        return f"<ArrayGroup of {len(self):,} agents in {len(self.where.addresses)} ranges>"

    def __reduce__(self) -> tuple[Any, ...]:
        identity = self._messenger.identity
        return _find_group, (identity, tuple(self.where), self.dtype, self.reply_dtype, self._json)


def check_array_class(kind: Any) -> None:
    """Refuse what spawn_array cannot spawn, before anything is sent.

    Raises:
        TypeError: no subclass of ArrayAgents, one without dtype or on_records, or with what only agents have.
    """
    if not isinstance(kind, type) or not issubclass(kind, ArrayAgents):
        raise TypeError(f"spawn_array wants a subclass of fabric.ArrayAgents, not {kind!r}")
    if kind.dtype is None:
        raise TypeError(f'{kind.__name__} has no dtype: say what a record is, as in dtype = [("amount", "i8")]')
    if kind.on_records is ArrayAgents.on_records:
        raise TypeError(f"{kind.__name__} has no on_records(ids, records): it could handle nothing")
    for name in ("on_message", "on_records"):
        if inspect.iscoroutinefunction(getattr(kind, name)):
            raise TypeError(f"{kind.__name__}.{name} is an async def, which array agents cannot have")
    if hasattr(kind, "on_batch") or kind.max_concurrency != 1:
        raise TypeError(f"{kind.__name__} has on_batch or max_concurrency, which array agents cannot have")
    check_handlers(kind)


def _find_group(identity: int, where: tuple[Any, Any], dtype: Any, reply_dtype: Any, json: bool | None) -> ArrayGroup:
    return ArrayGroup(find_messenger(identity), Ranges(*where), dtype, reply_dtype, json)
