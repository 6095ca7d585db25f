"""Send for the coordinator's program: what a Fabric, and the references that it gave out, do with messages."""

import time
from array import array
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from fabric.agent import AgentGroup, AgentRef, addresses_of
from fabric.channel import as_sequence
from fabric.config import FabricConfig
from fabric.errors import FabricError
from fabric.pending import Promise, settle
from fabric.replies import Replies
from fabric.spawning import Spawner
from fabric.switchboard import Switchboard


class CoordinatorMessenger:
    """Messages of one fabric; a fabric.agent.Messenger. Any thread may call any method."""

    config: FabricConfig
    identity: int
    _switchboard: Switchboard
    _replies: Replies
    _spawner: Spawner

    def ask_many(
        self,
        refs: Iterable[AgentRef],
        bodies: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Send body i to agent i, all at once; return the replies in order.

        Raises:
            ValueError: unequal lengths, or a reference of another fabric.
            AgentError: an agent raised (the first, in order), unless `return_exceptions` puts the errors
                among the replies.
            TimeoutError: not all replies came in time.
        """
        addresses, sequence = self._matched(refs, bodies)
        return self._collect(addresses, sequence, timeout, return_exceptions, _json_of(refs))

    def tell_many(self, refs: Iterable[AgentRef], bodies: Iterable[Any], timeout: float | None = None) -> None:
        """Send body i to agent i; wait only for room."""
        addresses, sequence = self._matched(refs, bodies)
        self._switchboard.tell_many(addresses, sequence, timeout, _json_of(refs))

    def drain(self, timeout: float | None = None) -> None:
        """Wait until all that was told has been handled, and all that followed from it.

        Raises:
            TimeoutError: messages are still in flight after `timeout` seconds.
        """
        self._switchboard.check_open()
        if not self._switchboard.wait_quiet(_deadline(timeout)):
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
        addresses, sequence = self._matched(refs, bodies)
        json = _json_of(refs)
        import asyncio  # 16 ms, and most programs never need it

        return await asyncio.to_thread(self._collect, addresses, sequence, timeout, return_exceptions, json)

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
    ) -> list[Any]:
        replies, failed = self._switchboard.ask_many(addresses, bodies, timeout, json)
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

    def ask(self, ref: AgentRef, body: Any, timeout: float | None) -> Any:
        """See AgentRef.ask."""
        return self._switchboard.ask(ref, body, timeout)

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

        future = asyncio.wrap_future(self.submit(ref, body, True))
        return await (future if timeout is None else asyncio.wait_for(future, timeout))

    def tell_group(self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None) -> None:
        """See AgentGroup.tell_all and tell_each."""
        sequence = self._bodies_for(group, bodies, same)
        self._switchboard.tell_many(group.addresses, sequence, timeout, group._json)

    def ask_group(
        self, group: AgentGroup, bodies: Any, same: bool, timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        """See AgentGroup.ask_all and ask_each."""
        sequence = self._bodies_for(group, bodies, same)
        return self._collect(group.addresses, sequence, timeout, return_exceptions, group._json)

    def stop_agents(self, addresses: "array[int]", timeout: float | None) -> None:
        """See AgentRef.stop."""
        self._switchboard.check_open()
        self._spawner.stop(addresses, _deadline(timeout))

    def _bodies_for(self, group: AgentGroup, bodies: Any, same: bool) -> Any:
        if same:
            return self._switchboard.same(bodies, len(group), group._json)
        return self._matched(group, bodies)[1]


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _json_of(refs: Any) -> bool | None:
    """What the receivers' classes say of the encoding; references of several minds get the fabric's choice."""
    if isinstance(refs, AgentGroup):
        return refs._json
    choices = {ref._json for ref in refs} if isinstance(refs, (list, tuple)) else {None}
    return choices.pop() if len(choices) == 1 else None
