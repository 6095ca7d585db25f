"""Send for the coordinator's program: what a Fabric, and the references that it gave out, do with messages."""

import _thread
import contextlib
from array import array
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from fabric.agent import AgentGroup, AgentRef, addresses_of
from fabric.arena import Arena
from fabric.array_agents import ArrayGroup
from fabric.chunks import Chunker, send_chunks
from fabric.config import FabricConfig
from fabric.errors import BackpressureError, FabricError
from fabric.flow import check_window
from fabric.loans import Loan, Shared, share
from fabric.pending import Promise, deadline_of, settle
from fabric.replies import Replies
from fabric.sender import as_sequence
from fabric.spawning import Spawner
from fabric.streams import AskStream, send_stream
from fabric.switchboard import Switchboard


class CoordinatorMessenger:
    """Messages of one fabric; a fabric.agent.Messenger. Any thread may call any method."""

    config: FabricConfig
    identity: int
    _switchboard: Switchboard
    _replies: Replies
    _spawner: Spawner
    _arena: Arena | None = None

    def ask_many(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
        expire: bool = False,
    ) -> list[Any]:
        """Send body i to agent i, all at once; return the replies in order.

        `expire` is for questions whose time is up: those that no agent has begun are then skipped.

        Raises:
            ValueError: unequal lengths, or a reference of another fabric.
            AgentError: an agent raised (the first, in order), unless `return_exceptions` puts the errors
                among the replies.
            TimeoutError: not all replies came in time.
        """
        refs = _as_sequence(refs)
        addresses, sequence = self._matched(refs, bodies)
        return self._collect(addresses, sequence, timeout, return_exceptions, _json_of(refs), expire)

    def tell_many(self, refs: Iterable[AgentRef], bodies: Iterable[Any], timeout: float | None = None) -> None:
        """Send body i to agent i; wait only for room."""
        refs = _as_sequence(refs)
        addresses, sequence = self._matched(refs, bodies)
        self._switchboard.tell_many(addresses, sequence, timeout, _json_of(refs))

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all that was told has been handled, and all that followed from it.

        Raises:
            TimeoutError: messages are still in flight after `timeout` seconds.
        """
        self._switchboard.check_open()
        if not self._switchboard.wait_quiet(deadline_of(timeout)):
            raise TimeoutError(f"messages are still in flight after {timeout} s")
        self._switchboard.check_open()

    async def ask_many_async(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Do as ask_many, without blocking the event loop."""
        refs = _as_sequence(refs)
        addresses, sequence = self._matched(refs, bodies)
        json = _json_of(refs)
        import asyncio  # 16 ms, and most programs never need it

        return await asyncio.to_thread(self._collect, addresses, sequence, timeout, return_exceptions, json)

    def loan(self, shape: int | Sequence[int], dtype: Any = "f8", order: str = "C") -> "AbstractContextManager[Any]":
        """Lend an array that lies where receivers will see it: fill it, send it, and nothing is copied.

        It may be sent any number of times. Until a receiver has let go of it, what is written to it may be seen
        there. Behind the `with` it is read-only, and its memory goes back when nobody has it any more.

        Raises:
            BackpressureError: the arena has no room for it within `arena_timeout`.
            MessageTooLargeError: it is larger than the arena.
            TypeError: its dtype holds Python objects.
        """
        self._switchboard.check_open()
        return Loan(self._arena, shape, dtype, order)

    def share(self, value: Any) -> Shared:
        """Copy an array, or a dict of arrays, to where all workers see it; return a handle of a few bytes.

        Send the handle, use `handle.value` where it arrives: a read-only array over the same memory, which is
        freed when nobody has the handle or an array of it. Raises as `loan`.
        """
        self._switchboard.check_open()
        return share(self._arena, value)

    def _matched(self, refs: Iterable[AgentRef], bodies: Iterable[Any]) -> "tuple[array[int], Any]":
        addresses, sequence = addresses_of(refs, self), as_sequence(bodies)
        if len(addresses) != len(sequence):
            raise ValueError(f"{len(addresses):,} agents and {len(sequence):,} bodies: give one body for each")
        return addresses, sequence

    def _collect(
        self,
        addresses: "array[int]",
        bodies: Any,
        timeout: float | None,
        return_exceptions: bool,
        json: bool | None,
        expire: bool = False,
    ) -> list[Any]:
        replies, failed = self._switchboard.ask_many(addresses, bodies, timeout, json, expire)
        if failed and not return_exceptions:
            raise next(reply for reply in replies if isinstance(reply, FabricError))
        return replies

    # What references do here (fabric.agent.Messenger).

    def is_alive(self, address: int) -> bool:
        """Read the shared table."""
        return self._switchboard.is_alive(address)

    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None:
        """See AgentRef.tell."""
        self._switchboard.tell(ref, body, timeout, wait)

    def ask(self, ref: AgentRef, body: Any, timeout: float | None, expire: bool = False) -> Any:
        """See AgentRef.ask."""
        return self._switchboard.ask(ref, body, timeout, expire)

    def submit(self, ref: AgentRef, body: Any, wait: bool) -> "Future[Any]":
        """See AgentRef.submit."""
        future: Future[Any] = Future()
        allow = self.config.allow_pickle
        entry = Promise(0, lambda value: settle(future, value, allow))
        correlation = self._switchboard.promise(ref, body, wait, entry)
        future.add_done_callback(lambda future: self._replies.forget(correlation) if future.cancelled() else None)
        self._replies.wake_pump()
        return future

    async def ask_async(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """See AgentRef.ask_async."""
        import asyncio

        async def reply() -> Any:
            return await (await self.begin_ask(ref, body))

        return await (reply() if timeout is None else asyncio.wait_for(reply(), timeout))

    def ask_stream(self, ref: AgentRef, body: Any, window: int, timeout: float | None) -> AskStream:
        """See AgentRef.ask_stream."""
        self._switchboard.check_open()
        return AskStream(self._switchboard, ref, body, window, timeout)

    def send_stream(self, ref: AgentRef, source: Any, total: int | None, window: int, timeout: float | None) -> Any:
        """See AgentRef.send_stream."""
        check_window(window)
        chunker = self._chunker(ref, source, total)
        try:
            return send_stream(self._switchboard, ref, chunker, window, timeout)
        except BaseException:
            if not chunker.over:
                self.tell_soon(ref, chunker.aborted())
            raise

    def send_stream_async(
        self, ref: AgentRef, source: Any, total: int | None, window: int, timeout: float | None
    ) -> Awaitable[Any]:
        """See AgentRef.send_stream_async."""
        return send_chunks(self, ref, self._chunker(ref, source, total), window, timeout)

    async def begin_ask(self, ref: AgentRef, body: Any) -> Awaitable[Any]:
        """Send a question, with all waiting that takes; return what awaits the reply."""
        import asyncio

        try:
            future = self.submit(ref, body, False)
        except BackpressureError:  # the loop must not wait for room: a thread does
            future = await asyncio.to_thread(self.submit, ref, body, True)
        return asyncio.wrap_future(future)

    def tell_soon(self, ref: AgentRef, body: Any) -> None:
        """Send a message without waiting, now or when there is room; an agent that is gone need not know."""

        def wait_and_tell() -> None:
            with contextlib.suppress(FabricError):
                self._switchboard.tell(ref, body, None, True)

        with contextlib.suppress(FabricError):
            try:
                self._switchboard.tell(ref, body, None, False)
            except BackpressureError:
                _thread.start_new_thread(wait_and_tell, ())

    def _chunker(self, ref: AgentRef, source: Any, total: int | None) -> Chunker:
        return Chunker(source, total, self._switchboard.order_limit(self._switchboard.slot_of(ref._address)))

    def tell_group(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> None:
        """See AgentGroup.tell_all and tell_each."""
        sequence = self._bodies_for(group, bodies, same, timeout)
        self._switchboard.tell_many(group.addresses, sequence, timeout, group._json)

    def ask_group(
        self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        """See AgentGroup.ask_all and ask_each."""
        sequence = self._bodies_for(group, bodies, same, timeout)
        return self._collect(group.addresses, sequence, timeout, return_exceptions, group._json)

    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None:
        """See AgentRef.stop."""
        self._switchboard.check_open()
        self._spawner.stop(addresses, deadline_of(timeout))

    def tell_records(self, group: ArrayGroup, ids: Any, records: Any, timeout: float | None = None) -> None:
        """See ArrayGroup.tell_records."""
        from fabric.record_post import RecordPost  # brings numpy

        RecordPost(self._switchboard, group, timeout).tell(ids, records)

    def ask_records(self, group: ArrayGroup, ids: Any, records: Any, timeout: float | None = None) -> Any:
        """See ArrayGroup.ask_records."""
        from fabric.record_post import RecordPost

        return RecordPost(self._switchboard, group, timeout).ask(ids, records)

    def _bodies_for(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> Any:
        if same:
            return self._switchboard.same(bodies, len(group), group._json, timeout)
        return self._matched(group, bodies)[1]


def _as_sequence(refs: Iterable[AgentRef]) -> Sequence[AgentRef]:
    return refs if isinstance(refs, (AgentGroup, list, tuple)) else list(refs)


def _json_of(refs: Sequence[AgentRef]) -> bool | None:
    """What the receivers' classes say of the encoding; references of several minds get the fabric's choice."""
    if isinstance(refs, AgentGroup):
        return refs._json
    choices = {ref._json for ref in refs}
    return choices.pop() if len(choices) == 1 else None
