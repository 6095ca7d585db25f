"""Let agents in and out of a host: make and install them, have them start and stop, and let go of them.

    order -> warm store or constructor -> what takes its messages, by its nature -> on_start

The host finds who takes a message in `receivers`, without a way round through here.
"""

import functools
import inspect
import pickle
import types
from array import array
from collections.abc import Sequence
from typing import Any

from fabric.agent import Agent
from fabric.errors import EncodingError
from fabric.messages import COORDINATOR, CURSOR_MAKING, ErrorInfo, PrewarmOrder, SpawnOrder
from fabric.remote_errors import describe, refusal
from fabric.workers.keeper import Kept
from fabric.workers.receivers import NOBODY, NOWHERE, Idler, OneByOne, Refuser, Yielder
from fabric.workers.warm import WarmPool, construct

_PLAIN, _COROUTINE, _GENERATOR = range(3)  # what on_message may be


class Residents:
    """The agents of one worker."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self.receivers: dict[int, Any] = {NOWHERE: Refuser, NOBODY: Idler}  # by address, who takes its messages
        self.batchers: dict[int, Any] = {}
        self.ranges: dict[int, Any] = {}  # workers.ranges.RangeReceiver, of array agents
        self.mailboxes: dict[int, Any] = {}
        self.once: set[int] = set()  # agents with on_crash="fail": no message is handled twice
        self.warm = WarmPool()

    def spawn(self, order: SpawnOrder) -> dict[int, ErrorInfo]:
        """Make the agents of an order; return those that failed, by position in it. The rest lives."""
        host, addresses = self._host, array("Q", order.addresses)
        failures: dict[int, ErrorInfo] = {}
        try:
            kind, args, kwargs = pickle.loads(order.recipe)
            warm = self.warm.take(order.recipe, len(addresses)) if order.each is None else []
            for position, address in enumerate(addresses):
                if host.barred and address in host.barred:
                    failures[position] = refusal(host.barred[address])
                    continue
                if address in self.receivers:
                    continue  # it is here: the order comes again, from a lane that a predecessor had not committed
                host.cursor[1] = address  # before the other word: what is said there is true at any moment
                host.cursor[0] = CURSOR_MAKING
                try:
                    given = args if order.ranges is None else (order.ranges.of(address), *args)
                    agent = warm.pop() if warm else construct(kind, given, self._arguments(order, kwargs, position))
                    self.install(address, agent, order)
                except BaseException as error:
                    self.remove(address)
                    failures[position] = host.describe(error, address)
        except BaseException as error:
            info = describe(error)
            text = f"the class or its arguments cannot be had in the worker: {info.message}\n{info.traceback}"
            failures = dict.fromkeys(range(len(addresses)), refusal(EncodingError(text)))
        host.cursor[0] = 0
        return failures

    def stop(self, addresses: Sequence[int]) -> None:
        """Stop these agents; those that are not here are passed over."""
        for address in addresses:
            self._stop_one(address)

    def stop_all(self) -> None:
        """Run on_stop of every agent: the worker is about to leave."""
        self.stop([address for address in self.receivers if address not in (NOWHERE, NOBODY)])

    def prewarm(self, order: PrewarmOrder) -> None:
        """Keep agents of this recipe in store."""
        kind, args, kwargs = pickle.loads(order.recipe)
        self.warm.want(order.recipe, order.share, lambda: construct(kind, args, kwargs))

    def install(self, address: int, agent: Agent, order: SpawnOrder) -> None:
        """Take an agent in: find who is to take its messages, and start it."""
        host = self._host
        agent._host = host
        agent._address = address
        if agent.encoding is not None:
            host.json_choices[address] = agent.encoding == "json"
        if order.once:
            self.once.add(address)
        handler = getattr(agent.on_message, "__func__", agent.on_message)
        nature = _known_nature(handler) if type(handler) is types.FunctionType else _nature_of(handler)
        coroutine = nature == _COROUTINE and not hasattr(agent, "on_batch")
        if order.keep and host.keeper is not None:
            host.keeper.add(address, Kept(agent, order.keep, coroutine, order.once))
        receiver: Any = agent
        if order.ranges is not None:
            from fabric.workers.ranges import RangeReceiver  # brings numpy

            receiver = self.ranges[address] = RangeReceiver(host, agent, order.ranges)
        elif hasattr(agent, "on_batch"):
            self.batchers[address] = agent
            receiver = OneByOne(agent)
        elif coroutine:
            from fabric.workers.mailbox import Mailbox  # brings asyncio, which most workers never need

            receiver = self.mailboxes[address] = Mailbox(host, agent)
        elif nature == _GENERATOR:
            receiver = Yielder(host, agent)
        self.receivers[address] = receiver
        if type(agent).on_start is not Agent.on_start:
            host._starting = address
            agent.on_start()

    def remove(self, address: int) -> Agent | None:
        """Let go of an agent, if it is here, and return it. Its coroutines are cancelled, and end soon."""
        host = self._host
        if host.streams:
            host.streams.stop(address)
        if host.reading:
            host.stop_reading(address)
        receiver = self.receivers.pop(address, None)
        batcher = self.batchers.pop(address, None)
        if self.ranges.pop(address, None) is not None:
            receiver = receiver.agent
        self.once.discard(address)
        if host.keeper is not None:
            host.keeper.discard(address)
        host.json_choices.pop(address, None)
        if isinstance(receiver, Yielder):
            return receiver.agent  # type: ignore[no-any-return]
        mailbox = self.mailboxes.get(address)
        if mailbox is None or receiver is None:
            return batcher or receiver  # type: ignore[no-any-return]
        mailbox.cancel(lambda: self.mailboxes.pop(address, None))
        return mailbox.agent  # type: ignore[no-any-return]

    def _arguments(self, order: SpawnOrder, kwargs: dict[str, Any], position: int) -> dict[str, Any]:
        if order.each is None:
            return kwargs
        return {**kwargs, **{name: values[position] for name, values in order.each.items()}}

    def _stop_one(self, address: int) -> None:
        host, agent = self._host, self.remove(address)
        if agent is None:
            return
        host._starting = address
        try:
            agent.on_stop()
        except BaseException as error:
            host.errors += 1
            host.failures.append((address, COORDINATOR, host.describe(error, address)))


def _nature_of(handler: Any) -> int:
    if inspect.iscoroutinefunction(handler):
        return _COROUTINE
    return _GENERATOR if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler) else _PLAIN


_known_nature = functools.lru_cache(maxsize=256)(_nature_of)  # asked for each agent, and inspect takes a microsecond
