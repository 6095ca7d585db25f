"""Define what users write and hold: Agent, and the references to agents, AgentRef and AgentGroup.

An Agent lives in a worker. References live anywhere and can be sent in messages; what a method of a
reference does is done by the Messenger of the process that holds it: the Fabric in the coordinator, the
host in a worker. So an agent that received a reference sends from its own worker, straight to the other.
"""

import threading
import weakref
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, cast, overload

from fabric.errors import FabricError
from fabric.messages import show


class Messenger(Protocol):
    """What references need of the process that they are in."""

    identity: int

    def is_alive(self, address: int) -> bool: ...
    def tell(self, ref: "AgentRef", body: Any, timeout: float | None, wait: bool) -> None: ...
    def ask(self, ref: "AgentRef", body: Any, timeout: float | None, expire: bool = False) -> Any: ...
    def submit(self, ref: "AgentRef", body: Any, wait: bool) -> "Future[Any]": ...
    def ask_async(self, ref: "AgentRef", body: Any, timeout: float | None) -> Awaitable[Any]: ...
    def tell_group(self, group: "AgentGroup", bodies: Any, same: bool, timeout: float | None) -> None: ...
    def ask_group(
        self, group: "AgentGroup", bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]: ...
    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None: ...
    def tell_records(self, group: Any, ids: Any, records: Any, timeout: float | None) -> None: ...
    def ask_records(self, group: Any, ids: Any, records: Any, timeout: float | None) -> Any: ...
    def ask_stream(self, ref: "AgentRef", body: Any, window: int, timeout: float | None) -> Any: ...
    def send_stream(
        self, ref: "AgentRef", source: Any, total: int | None, window: int, timeout: float | None
    ) -> Any: ...
    def send_stream_async(
        self, ref: "AgentRef", source: Any, total: int | None, window: int, timeout: float | None
    ) -> Awaitable[Any]: ...


# The only state of this package that outlives a call: unpickling a reference has no argument that could
# say which fabric it belongs to. Keyed by the fabric's identity; an entry goes with its messenger.
_messengers: "weakref.WeakValueDictionary[int, Messenger]" = weakref.WeakValueDictionary()


# What references find instead in a thread that plays several processes by turns (fabric.inline).
_here = threading.local()


def stand_in(messenger: Messenger | None) -> None:
    """Let references that arrive in this thread find this messenger and no other; None: as elsewhere."""
    _here.messenger = messenger


def register_messenger(messenger: Messenger) -> None:
    """Let references of this fabric that arrive here find their way back into it."""
    _messengers[messenger.identity] = messenger


class Agent:
    """Subclass this, give it `on_message`, and spawn it: an object with state that handles messages in order.

    An agent handles one message at a time; what `on_message` returns answers an `ask`. `on_message` may be
    `async def`; the agent then takes its next message when the coroutine is done, or, with
    `max_concurrency` above 1, has that many in hand at once. Where there is an `on_batch(bodies)` it is
    called instead, with all messages that arrived together, and returns one reply for each.

    With `snapshot()`, which returns its state (anything picklable), and `restore(state)` an agent goes on
    after a crash of its worker with the state it had: it is made again, on_start runs, then restore.

    `encoding = "json"` as a class attribute selects JSON for messages to this class and its replies.

    Example:
        >>> class Counter(Agent):
        ...     def __init__(self, start=0):
        ...         self.total = start
        ...     def on_message(self, body):
        ...         self.total += body
        ...         return self.total
    """

    __slots__ = ("__weakref__", "_address", "_host")
    _address: int
    _host: Any

    encoding: str | None = None
    max_concurrency: int = 1

    def on_message(self, body: Any) -> Any:
        """Handle one message; the return value answers an ask."""
        raise NotImplementedError(f"{type(self).__name__} has no on_message")

    def on_start(self) -> None:
        """Run before the first message; `self.ref` and `self.context` work from here on."""

    def on_stop(self) -> None:
        """Run after the last message, when the agent is stopped or the fabric closes."""

    @property
    def ref(self) -> "AgentRef":
        """A reference to this agent, to be sent to others."""
        return self._bound().ref_to(self._address)  # type: ignore[no-any-return]

    @property
    def context(self) -> Any:
        """What can be done while a message is handled: see fabric.workers.context.Context."""
        return self._bound().context

    def _bound(self) -> Any:
        try:
            host = self._host
        except AttributeError:
            raise FabricError(
                f"{type(self).__name__}.__init__ runs before the agent has an address: "
                "use self.ref and self.context in on_start, on_message or on_batch"
            ) from None
        return host


class AgentRef:
    """Refer to one agent. Small, hashable, and it can be sent in a message."""

    __slots__ = ("_address", "_json", "_messenger", "_name")

    def __init__(self, messenger: Messenger, address: int, json: bool | None = None, name: str = "") -> None:
        self._messenger = messenger
        self._address = address
        self._json = json
        self._name = name

    def tell(self, body: Any, timeout: float | None = None) -> None:
        """Send a message and wait neither for its handling nor for a reply, only for room.

        Raises:
            AgentNotFoundError: the agent stopped.
            TimeoutError: no room appeared within `timeout` seconds.
            BackpressureError: in a handler, when the worker's outbox is full (it never waits).
        """
        self._messenger.tell(self, body, timeout, True)

    def tell_nowait(self, body: Any) -> None:
        """Send like `tell`, but never wait: BackpressureError when there is no room."""
        self._messenger.tell(self, body, None, False)

    def ask(self, body: Any, timeout: float | None = None, *, expire: bool = False) -> Any:
        """Send a message and return the agent's reply.

        `expire`: when the time is up and the agent has not begun the message, it is skipped.

        Raises:
            AgentError: the agent raised; the original exception is `__cause__`.
            AgentNotFoundError: the agent stopped.
            TimeoutError: no reply within `timeout` seconds. The message is handled all the same (without
                `expire`); its reply is dropped and counted.
            FabricError: called in a handler, where waiting would stop the whole worker.
        """
        return self._messenger.ask(self, body, timeout, expire)

    def submit(self, body: Any) -> "Future[Any]":
        """Send a message and return a concurrent.futures.Future of its reply. Waits for room."""
        return self._messenger.submit(self, body, True)

    def submit_nowait(self, body: Any) -> "Future[Any]":
        """Send like `submit`, but never wait: BackpressureError when there is no room."""
        return self._messenger.submit(self, body, False)

    def ask_async(self, body: Any, timeout: float | None = None) -> Awaitable[Any]:
        """Send a message; await the reply. Works in the coordinator and in an `async def on_message`."""
        return self._messenger.ask_async(self, body, timeout)

    def ask_stream(self, body: Any, window: int = 16, timeout: float | None = None) -> Any:
        """Send a message; iterate (`for`, in coroutines `async for`) over what the agent's generator yields.

        `on_message` returns or is a generator, asynchronous or not; of any other reply it is a stream of one
        item. No more than `window` items are made beyond those taken: then the generator rests, while its
        agent goes on with other messages. `close`, `with`, or dropping the stream closes the generator.

        Raises (where the next item should be):
            AgentError: the generator raised. AgentNotFoundError: the agent stopped.
            TimeoutError: the next item did not come within `timeout` seconds; it may be waited for again.
            WorkerLostError: the worker died, and what it had begun is not begun again: on_crash="fail", or an
                agent with snapshots. Else a successor runs the generator anew; items taken are passed over.
        """
        return self._messenger.ask_stream(self, body, window, timeout)

    def send_stream(self, chunks: Any, timeout: float | None = None, total: int | None = None, window: int = 8) -> Any:
        """Send the items of an iterable (or a bytes-like, or a binary file, in pieces) as StreamChunks, in order.

        Returns the reply to the last. At most `window` of them wait for theirs. If the iterable or the agent
        raises, the agent is told a chunk with `aborted`, and the error is raised here; so with TimeoutError:
        the agent answered none for `timeout` seconds. `total` is what chunks say as `total_bytes`.
        """
        return self._messenger.send_stream(self, chunks, total, window, timeout)

    def send_stream_async(
        self, chunks: Any, timeout: float | None = None, total: int | None = None, window: int = 8
    ) -> Awaitable[Any]:
        """Do as `send_stream`, in coroutines, those of agents too; `chunks` may be an asynchronous iterable."""
        return self._messenger.send_stream_async(self, chunks, total, window, timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the agent after the messages sent before; returns when its on_stop has run."""
        self._messenger.stop_agents(array("Q", [self._address]), timeout)

    @property
    def alive(self) -> bool:
        """Can the agent be reached? Read from the shared table: no message is sent."""
        return self._messenger.is_alive(self._address)

    @property
    def address(self) -> int:
        """Index and generation in one number, unique in the fabric's life."""
        return self._address

    @property
    def name(self) -> str:
        """The name it was spawned with, or ""."""
        return self._name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AgentRef):
            return NotImplemented
        return self._address == other._address and self._messenger.identity == other._messenger.identity

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        return f"<AgentRef {self._name or show(self._address)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _find_ref, (self._messenger.identity, self._address, self._json, self._name)


class AgentGroup(Sequence[AgentRef]):
    """Refer to many agents, spawned together: index, slice, iterate, or address them all at once.

    A group keeps 8 bytes an agent. References are made when asked for.
    """

    __slots__ = ("_addresses", "_json", "_messenger", "_names")

    def __init__(
        self,
        messenger: Messenger,
        addresses: "array[int]",
        json: bool | None = None,
        names: Callable[[int], str] | Sequence[str] | None = None,
    ) -> None:
        self._messenger = messenger
        self._addresses = addresses
        self._json = json
        self._names = names

    def ask_all(self, body: Any, timeout: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Send the same body (encoded once) to each agent; return the replies in order."""
        return self._messenger.ask_group(self, body, True, timeout, return_exceptions)

    def ask_each(
        self, bodies: Iterable[Any], timeout: float | None = None, return_exceptions: bool = False
    ) -> list[Any]:
        """Send one body to each agent; return the replies in order.

        Raises:
            ValueError: not as many bodies as agents.
            AgentError: an agent raised (the first, in order), unless `return_exceptions` puts the errors
                among the replies.
        """
        return self._messenger.ask_group(self, bodies, False, timeout, return_exceptions)

    def tell_all(self, body: Any, timeout: float | None = None) -> None:
        """Send the same body (encoded once) to each agent."""
        self._messenger.tell_group(self, body, True, timeout)

    def tell_each(self, bodies: Iterable[Any], timeout: float | None = None) -> None:
        """Send one body to each agent. ValueError: not as many bodies as agents."""
        self._messenger.tell_group(self, bodies, False, timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Stop all agents of the group, each after the messages sent to it before."""
        self._messenger.stop_agents(self._addresses, timeout)

    @property
    def addresses(self) -> "array[int]":
        """The agents' addresses, 64-bit."""
        return self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    @overload
    def __getitem__(self, index: int) -> AgentRef: ...
    @overload
    def __getitem__(self, index: slice) -> "AgentGroup": ...
    def __getitem__(self, index: int | slice) -> "AgentRef | AgentGroup":
        if isinstance(index, slice):
            names = self._names
            if names is not None:
                names = [self._name(i) for i in range(*index.indices(len(self)))]
            return AgentGroup(self._messenger, self._addresses[index], self._json, names)
        address = self._addresses[index]
        name = "" if self._names is None else self._name(index % len(self))
        return AgentRef(self._messenger, address, self._json, name)

    def __iter__(self) -> Iterator[AgentRef]:
        if self._names is None:
            messenger, json = self._messenger, self._json
            return (AgentRef(messenger, address, json) for address in self._addresses)
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<AgentGroup of {len(self):,} agents>"

    def __reduce__(self) -> tuple[Any, ...]:
        names = None if self._names is None else [self._name(i) for i in range(len(self))]
        return _find_group, (self._messenger.identity, self._addresses, self._json, names)

    def _name(self, index: int) -> str:
        if callable(self._names):
            return self._names(index)
        return cast(Sequence[str], self._names)[index]


def addresses_of(refs: Iterable[AgentRef], messenger: Messenger) -> "array[int]":
    """Return the addresses of these references.

    Raises:
        TypeError: something else is among them.
        ValueError: a reference belongs to another fabric.
    """
    if isinstance(refs, AgentGroup):
        if refs._messenger is not messenger:
            raise ValueError(_foreign(refs))
        return refs._addresses
    refs = refs if isinstance(refs, (list, tuple)) else list(refs)
    try:
        addresses = array("Q", [ref._address for ref in refs])
        foreign = {ref._messenger for ref in refs} - {messenger}
    except AttributeError:
        odd = next(item for item in refs if not isinstance(item, AgentRef))
        raise TypeError(f"an AgentRef is wanted, not {odd!r}") from None
    if foreign:
        raise ValueError(_foreign(next(ref for ref in refs if ref._messenger in foreign)))
    return addresses


def _foreign(what: Any) -> str:
    return f"{what!r} belongs to another fabric: agents can only be reached through the fabric that made them"


def find_messenger(identity: int) -> Messenger:
    messenger = getattr(_here, "messenger", None) or _messengers.get(identity)
    if messenger is None or messenger.identity != identity:
        raise FabricError("a reference to an agent arrived in a process that has no part in its fabric")
    return messenger


def _find_ref(identity: int, address: int, json: bool | None, name: str) -> AgentRef:
    return AgentRef(find_messenger(identity), address, json, name)


def _find_group(identity: int, addresses: "array[int]", json: bool | None, names: Sequence[str] | None) -> AgentGroup:
    return AgentGroup(find_messenger(identity), addresses, json, names)
