"""Own the agent table: hand out addresses, take them back, and find agents by name.

An address is used once: when an index is used again its generation is one higher, so a reference to a
stopped agent never reaches its successor.
"""

import contextlib
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator

from fabric.errors import SpawnError
from fabric.ring import ALIVE, LOST, STOPPED, Peer

_NAMES_KEPT = 64  # so few are not worth a look


class Directory:
    """The coordinator's view of all agents: the shared table and the names. Any thread."""

    def __init__(self, peer: Peer, max_agents: int) -> None:
        self._peer = peer
        self._max_agents = max_agents
        self._lock = threading.Lock()
        self._next = 1  # indexes from here on were never used; 0 is the coordinator
        self._free: deque[int] = deque()  # addresses to be used next, generation raised
        self._slots = array("H", [0])  # worker of each index, for those that live
        self._counts = [0] * peer.processes
        self._names: dict[str, tuple[list[int], bool | None]] = {}  # addresses, and what their class says of JSON
        self._many_names = _NAMES_KEPT  # from so many on those of the dead are looked for
        self._reserved: set[str] = set()

    def allocate(self, count: int) -> "array[int]":
        """Return unused addresses.

        Raises:
            SpawnError: the table has no room for so many.
        """
        with self._lock:
            room = self._max_agents - self._next + 1 + len(self._free)
            if count > room:
                raise SpawnError(
                    f"{count:,} agents were asked for and max_agents={self._max_agents:,} leaves room for {room:,}: "
                    "stop some, or raise max_agents"
                )
            fresh = min(count, self._max_agents - self._next + 1)
            addresses = array("Q", range(self._next | 1 << 32, (self._next + fresh) | 1 << 32))
            self._next += fresh
            self._slots.extend([0] * fresh)
            addresses.extend(self._free.popleft() for _ in range(count - fresh))
            return addresses

    def open(self, addresses: "array[int]", slots: "array[int]") -> None:
        """Say that these agents live, each in its worker's slot."""
        with self._lock:
            for address, slot in zip(addresses, slots, strict=True):
                self._slots[address & 0xFFFFFFFF] = slot
                self._counts[slot] += 1
            self._peer.write_table(addresses, slots, ALIVE)

    def close(self, addresses: "array[int]") -> None:
        """Say that these agents are no more; their indexes may be used again. Unknown ones are passed over."""
        with self._lock:
            closed = self._mark(addresses, STOPPED)
            self._free.extend(address + (1 << 32) for address in closed)

    def lose(self, slot: int) -> int:
        """Say that all agents of a worker are lost; return how many."""
        with self._lock:
            indexes = [index for index, there in enumerate(self._slots) if there == slot]
            table = self._peer.table
            return len(self._mark(array("Q", [table[index] >> 32 << 32 | index for index in indexes]), LOST))

    def _mark(self, addresses: "array[int]", state: int) -> "array[int]":
        found = self.alive(addresses)  # a later generation at the same index is another agent
        slots = array("H", [self._slots[address & 0xFFFFFFFF] for address in found])
        self._peer.write_table(found, slots, state)
        for address, slot in zip(found, slots, strict=True):
            self._slots[address & 0xFFFFFFFF] = 0
            self._counts[slot] -= 1
        return found

    def locate(self, addresses: "array[int]") -> "tuple[array[int], array[int]]":
        """Return those of these addresses whose agents live, and the slot of each."""
        with self._lock:
            alive = self.alive(addresses)
            return alive, array("H", [self._slots[address & 0xFFFFFFFF] for address in alive])

    def alive(self, addresses: "array[int]") -> "array[int]":
        """Return those of these addresses whose agents live."""
        table, slots = self._peer.table, self._slots
        return array("Q", [a for a in addresses if slots[a & 0xFFFFFFFF] and table[a & 0xFFFFFFFF] >> 32 == a >> 32])

    def count(self, slot: int) -> int:
        """How many agents a worker has."""
        return self._counts[slot]

    @property
    def total(self) -> int:
        """How many agents live."""
        return sum(self._counts)

    @property
    def room(self) -> int:
        """How many more agents the table takes."""
        return self._max_agents - self._next + 1 + len(self._free)

    @contextlib.contextmanager
    def reserve(self, prefix: str) -> Iterator[Callable[["array[int]", bool | None], None]]:
        """Hold a name while its agents are being made; call what this yields to give it to them.

        They are then called prefix-0, prefix-1, ...

        Raises:
            ValueError: living agents have the name, or some that another thread is making.
        """
        with self._lock:
            holders, _ = self._names.get(prefix, ([], None))
            if prefix in self._reserved or len(self.alive(array("Q", holders))):
                count = len(holders) or "other"
                raise ValueError(f"name={prefix!r} is taken by {count} agents: stop them, or choose another")
            self._reserved.add(prefix)

        def give(addresses: "array[int]", json: bool | None) -> None:
            with self._lock:
                self._names[prefix] = list(addresses), json
                if len(self._names) > self._many_names:
                    self._forget_the_dead()

        try:
            yield give
        finally:
            with self._lock:
                self._reserved.discard(prefix)

    def _forget_the_dead(self) -> None:
        """Drop the names of which no agent lives, and look again when there are twice as many."""
        self._names = {name: held for name, held in self._names.items() if len(self.alive(array("Q", held[0])))}
        self._many_names = max(_NAMES_KEPT, 2 * len(self._names))

    def find(self, name: str) -> tuple[int, bool | None] | None:
        """Return the agent of this name, its address and what its class says of JSON; None when none lives."""
        prefix, _, number = name.rpartition("-")
        with self._lock:
            addresses, json = self._names.get(prefix, ([], None))
        if not number.isdecimal() or int(number) >= len(addresses):
            return None
        alive = self.alive(array("Q", [addresses[int(number)]]))
        return (alive[0], json) if alive else None
