"""Spawn agents: place a batch, send each worker one order, collect what became of it.

    spawn_batch(C, 100_000)
      admit (table, memory) -> addresses -> place -> one SpawnOrder a worker -> SpawnReports -> AgentGroup

What was ordered is kept until the agents stop: the successor of a dead worker makes them again from it.
"""

import contextlib
import operator
import threading
import time
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fabric import inheriting
from fabric.admission import Budget, admit, available_bytes, estimate
from fabric.agent import Agent, AgentGroup, Messenger
from fabric.agent_checks import check_agent_class, prefers_json
from fabric.directory import Directory
from fabric.errors import EncodingError, FabricError, SpawnError
from fabric.messages import (
    PREWARM,
    SPAWN,
    STOP_AGENTS,
    ErrorInfo,
    PrewarmOrder,
    Ranges,
    SpawnOrder,
    SpawnReport,
    StopOrder,
)
from fabric.orders import encode_order
from fabric.pending import One, error_in
from fabric.placement import Load, Policy, place
from fabric.remote_errors import revive
from fabric.switchboard import Switchboard

_SAMPLE = 1_000  # agents made first of a larger batch, to see how much memory one takes
_ALWAYS_FITS = 64 << 20  # bytes
_ORDERS_KEPT = 64  # of a worker, before it is looked whose agents have stopped


class Care(NamedTuple):
    """What is done for agents in case their worker dies."""

    once: bool = False  # a message that was begun is not begun again
    keep: float = 0  # state is kept: messages (int) or seconds (float) from snapshot to snapshot; 0: it is not


NO_CARE = Care()


class Recipe(NamedTuple):
    """What to make: checked, and encoded once for all workers."""

    kind: type[Agent]
    data: bytes
    each: dict[str, list[Any]] | None
    policy: Policy
    keys: list[Any] | None
    care: Care
    bounds: tuple[int, ...] = ()  # of the ranges of array agents, one more than objects


class Made(NamedTuple):
    """What became of some of a batch."""

    addresses: "array[int]"
    failures: dict[int, BaseException | str]  # by position
    bytes_grown: int


class Spawner:
    """Makes and stops agents for a fabric. One batch at a time; other threads wait for their turn."""

    def __init__(self, switchboard: Switchboard, directory: Directory, messenger: Messenger) -> None:
        self._switchboard = switchboard
        self._directory = directory
        self._messenger = weakref.ref(messenger)  # the supervisor thread holds us, and must not hold the fabric
        self._turn = threading.Lock()
        self.resizing = threading.Lock()  # one change of the number of workers at a time
        self._next = 0
        self._orders: dict[int, list[SpawnOrder]] = {}
        self._orders_lock = threading.Lock()  # the supervisor thread reads them
        self._orders_most: dict[int, int] = {}  # with more than so many, those of stopped agents are dropped
        self._once: set[int] = set()
        self.slots: tuple[int, ...] = ()
        self.classify: Callable[[type, array[int]], None] = _unclassified
        self.arrays: dict[str, tuple[Any, ...]] = {}  # array agents by name: what makes their ArrayGroup
        self.now: Callable[[], float] = time.monotonic  # what waves go by
        self.sleep: Callable[[float], None] = time.sleep

    def recipe(
        self,
        kind: type[Agent],
        count: int,
        each: Mapping[str, Iterable[Any]] | None,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        placement: Any = "round_robin",
        keys: Iterable[Any] | None = None,
        care: Care = NO_CARE,
    ) -> Recipe:
        """Check what is asked for, before anything is started.

        Raises:
            TypeError, ValueError: the class handles no messages, or an argument list has the wrong length.
            EncodingError: the class or an argument cannot be sent.
        """
        check_agent_class(kind)
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise TypeError(f"count={count!r} must be a whole number")
        count = operator.index(count)
        if count < 0:
            raise ValueError(f"count={count} must be 0 or more")
        values = None if each is None else {name: list(items) for name, items in each.items()}
        for name, items in (values or {}).items():
            if len(items) != count:
                raise ValueError(
                    f"each={{{name!r}: ...}} has {len(items):,} values for {count:,} agents; give one for each"
                )
        keys = None if keys is None else list(keys)
        if keys is not None and len(keys) != count:
            raise ValueError(f"{len(keys):,} keys for {count:,} agents; give one for each")
        slots = self.slots  # which may change at any moment
        place(0, placement, Load(slots, (0,) * len(slots)), None if keys is None else [])
        return Recipe(kind, inheriting.dumps((kind, args, dict(kwargs))), values, placement, keys, care)

    def spawn(self, recipe: Recipe, count: int, name: str | None = None) -> AgentGroup:
        """Make a batch, all or none.

        Raises:
            SpawnError: there is no room, or some could not be made; the others are stopped again.
        """
        if name is None:
            return self._spawn_all(recipe, count)
        with self._directory.reserve(name) as give:
            group = self._spawn_all(recipe, count)
            give(group.addresses, prefers_json(recipe.kind))
        return self._group(recipe, group.addresses, lambda i: f"{name}-{i}")

    def _spawn_all(self, recipe: Recipe, count: int) -> AgentGroup:
        group, failures = self.spawn_some(recipe, count)
        if failures:
            self.stop(group.addresses, None)
            raise SpawnError(
                f"{len(failures):,} of {count:,} agents of {recipe.kind.__name__} could not be made", failures
            )
        return group

    def spawn_some(
        self, recipe: Recipe, count: int, first: int = 0
    ) -> tuple[AgentGroup, dict[int, BaseException | str]]:
        """Make a batch as far as it goes; return those that live, and why the others do not, by index.

        `first` is the index of the first in a larger whole: where its values in `each` begin.
        """
        with self._turn:
            admit(count, 0, Budget(0, self._directory.room))
            sample = count if recipe.bounds else _sample_of(count)  # ranges of one group know each other
            made = self._make(recipe, first, sample)
            if sample < count:
                try:
                    self._admit_rest(made, count - sample)
                    more = self._make(recipe, first + sample, count - sample)
                except Exception:
                    self._withdraw(made.addresses)
                    raise
                made.addresses.extend(more.addresses)
                made.failures.update({sample + i: why for i, why in more.failures.items()})
        alive = made.addresses
        if made.failures:
            alive = array("Q", [a for i, a in enumerate(made.addresses) if i not in made.failures])
        return self._group(recipe, alive), made.failures

    def _group(self, recipe: Recipe, addresses: "array[int]", names: Callable[[int], str] | None = None) -> AgentGroup:
        messenger = self._messenger()
        assert messenger is not None  # it is our caller's caller
        return AgentGroup(messenger, addresses, prefers_json(recipe.kind), names)

    def _admit_rest(self, made: Made, rest: int) -> None:
        """Refuse the rest of a batch that would not fit, by what its first agents took."""
        needed = estimate(0, made.bytes_grown, len(made.addresses))
        if needed * rest >= _ALWAYS_FITS:  # below that, looking at the machine's memory takes longer than it is worth
            admit(rest, needed, Budget(available_bytes(), self._directory.room))

    def _make(self, recipe: Recipe, first: int, count: int) -> Made:
        directory = self._directory
        workers = self.slots
        loads = tuple(directory.count(slot) for slot in workers)
        keys = None if recipe.keys is None else recipe.keys[first : first + count]
        placed = place(count, recipe.policy, Load(workers, loads, self._next), keys)
        addresses = directory.allocate(count)
        self._next = placed.next
        slots = array("H", placed.slots)
        self.classify(recipe.kind, addresses)
        directory.open(addresses, slots)
        if recipe.care.once:
            self._once.update(addresses)
        waiting: list[tuple[One, SpawnOrder]] = []
        try:
            for slot, positions in self._switchboard.peer.partition(slots):
                for order in self._orders_for(recipe, first, addresses, list(positions), slot):
                    entry = One(slot)
                    self._remember(slot, order)
                    self._switchboard.order(slot, SPAWN, order, entry)
                    waiting.append((entry, order))
        except Exception:  # an argument that cannot be sent, or is too large for a message
            self._withdraw(addresses)
            raise
        return self._outcome(addresses, waiting)

    def _outcome(self, addresses: "array[int]", waiting: list[tuple[One, SpawnOrder]]) -> Made:
        """Wait for the reports; take back the addresses of those that were not made."""
        position_of = {address: i for i, address in enumerate(addresses)} if waiting else {}
        failures: dict[int, BaseException | str] = {}
        grown = 0
        for entry, order in waiting:
            report = self._report(entry, order)
            ordered = array("Q", order.addresses)
            failures.update({position_of[ordered[i]]: self._why(info) for i, info in report.failures.items()})
            grown += report.bytes_grown
        if failures:
            self._directory.close(array("Q", [addresses[i] for i in failures]))
        return Made(addresses, failures, grown)

    def _withdraw(self, addresses: "array[int]") -> None:
        """Stop what was made of a batch that failed as a whole."""
        with contextlib.suppress(FabricError):  # closed meanwhile: they are stopped
            self.stop(addresses, None)

    def _report(self, entry: One, order: SpawnOrder) -> SpawnReport:
        self._switchboard.replies.wait(entry, None)
        error = error_in(entry.value, self._switchboard.codec.allow_pickle)
        if error is None:
            try:
                return SpawnReport.from_plain(entry.value).checked(len(order.addresses) // 8)
            except Exception as problem:  # no worker of ours answers so
                error = EncodingError(f"the report of worker {entry.slots[0]} cannot be read: {problem!r}")
        info = ErrorInfo("agent", str(error), "", 0, None)
        return SpawnReport(dict.fromkeys(range(len(order.addresses) // 8), info), 0)

    def _why(self, info: ErrorInfo) -> BaseException | str:
        error = revive(info, self._switchboard.codec.allow_pickle)
        return error.__cause__ or error

    def _orders_for(
        self, recipe: Recipe, first: int, addresses: "array[int]", positions: list[int], slot: int
    ) -> Iterator[SpawnOrder]:
        """One order, or more when the arguments are too large for one message."""
        each = recipe.each
        if each is not None:
            each = {name: [values[first + i] for i in positions] for name, values in each.items()}
        ranges = Ranges(recipe.bounds, tuple(addresses)) if recipe.bounds else None
        own = array("Q", [addresses[i] for i in positions]).tobytes()
        order = SpawnOrder(own, recipe.data, each, *recipe.care, ranges)
        rough = len(recipe.data) + 8 * len(positions)
        if len(positions) == 1 or (
            rough < self._switchboard.order_limit(slot)
            and (each is None or len(encode_order(order)) <= self._switchboard.order_limit(slot))
        ):
            yield order
            return
        half = len(positions) // 2
        yield from self._orders_for(recipe, first, addresses, positions[:half], slot)
        yield from self._orders_for(recipe, first, addresses, positions[half:], slot)

    def retire(self, going: Sequence[int], release: Callable[[Sequence[int]], None]) -> list[int]:
        """Spawn no more into these slots, which `release` sees to; if some have agents do nothing, and return those."""
        with self._turn:
            occupied = [slot for slot in going if self._directory.count(slot)]
            if not occupied:
                release(going)
            return occupied

    def runs_once(self, address: int) -> bool:
        """Is a message to this agent handled once at the most (on_crash="fail")?"""
        return address in self._once

    def orders_of(self, slot: int) -> list[SpawnOrder]:
        """What a successor in this slot has to make: the agents that live there."""
        with self._orders_lock:
            orders = self._orders[slot] = self._still_wanted(self._orders.get(slot, []))
            return list(orders)

    def _remember(self, slot: int, order: SpawnOrder) -> None:
        with self._orders_lock:
            orders = self._orders.setdefault(slot, [])
            orders.append(order)
            if len(orders) > self._orders_most.get(slot, _ORDERS_KEPT):
                orders[:] = self._still_wanted(orders)
                self._orders_most[slot] = max(_ORDERS_KEPT, 2 * len(orders))

    def _still_wanted(self, orders: list[SpawnOrder]) -> list[SpawnOrder]:
        kept = []
        for order in orders:
            alive = self._directory.alive(array("Q", order.addresses))
            if 8 * len(alive) == len(order.addresses):
                kept.append(order)
            elif alive:
                kept.append(_without_the_stopped(order, set(alive)))
        return kept

    def stop(self, addresses: "array[int]", deadline: float | None) -> None:
        """Stop agents, each after the messages sent to it before; wait until their on_stop has run.

        Raises:
            TimeoutError
        """
        alive, slots = self._directory.locate(addresses)
        if not alive:
            return
        self._once.difference_update(alive)
        # What is sent from now on is refused, what lies in the lanes is handled. Before they are ordered to stop: when
        # somebody hears from their on_stop, they are not alive.
        self._directory.close(alive)
        waiting = []
        for slot, positions in self._switchboard.peer.partition(slots):
            there = array("Q", [alive[i] for i in positions])
            entry = One(slot)
            correlation = self._switchboard.order(slot, STOP_AGENTS, StopOrder(there.tobytes()), entry)
            waiting.append((entry, correlation))
        for entry, correlation in waiting:
            if not self._switchboard.replies.wait(entry, deadline):
                self._switchboard.replies.forget(correlation)
                raise TimeoutError("some agents are still busy; they stop when they come to it")

    def prewarm(self, recipe: Recipe, count: int) -> None:
        """Have each worker keep its share of agents of this recipe constructed.

        Raises:
            SpawnError: the class cannot be constructed like this.
        """
        waiting = []
        slots = self.slots
        share = -(-count // len(slots))  # rounded up: the next spawn may begin with any of them
        for slot in slots:
            entry = One(slot)
            self._switchboard.order(slot, PREWARM, PrewarmOrder(recipe.data, share), entry)
            waiting.append(entry)
        for entry in waiting:
            self._switchboard.replies.wait(entry, None)
            error = error_in(entry.value, self._switchboard.codec.allow_pickle)
            if error is not None:
                raise SpawnError(f"{recipe.kind.__name__} cannot be prewarmed: {error}") from error.__cause__

    def undo(self, groups: Iterable[AgentGroup]) -> None:
        """Stop agents of a spawn that is taken back."""
        for group in groups:
            with contextlib.suppress(FabricError):
                self.stop(group.addresses, None)


def _unclassified(kind: type, addresses: "array[int]") -> None:
    """Where nothing is measured."""


def _sample_of(count: int) -> int:
    """How many agents of a batch are made first: all of a small one, else a tenth, and 1,000 at most."""
    return count if count < 100 else min(_SAMPLE, count // 10)


def _without_the_stopped(order: SpawnOrder, alive: set[int]) -> SpawnOrder:
    kept = [i for i, address in enumerate(array("Q", order.addresses)) if address in alive]
    addresses = array("Q", order.addresses)
    each = order.each
    if each is not None:
        each = {name: [values[i] for i in kept] for name, values in each.items()}
    return order._replace(addresses=array("Q", [addresses[i] for i in kept]).tobytes(), each=each)
