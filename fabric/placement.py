"""Decide which worker gets each agent of a batch. Pure: a load goes in, slots come out."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from fabric.errors import SpawnError

Policy = Literal["round_robin", "least_loaded", "hash"] | int | tuple[int, ...]
Key = str | int | bytes

_NAMED = ("round_robin", "least_loaded", "hash")

# One 64-byte digest of a key scores 16 slots.
_SCORES = struct.Struct("<16I")


@dataclass(frozen=True, slots=True)
class Load:
    """Describe the workers at one moment: the live slots, ascending, and how many agents each of them has.

    A slot is 1 or more, as slot 0 is the coordinator. `next` is the round-robin position: an index into
    `slots`, taken modulo their number, so it stays good when workers come and go.

    Raises:
        ValueError: the slots are not ascending from 1 on, or the counts do not match them.
    """

    slots: tuple[int, ...]
    agents: tuple[int, ...]
    next: int = 0

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.agents):
            raise ValueError(f"{len(self.slots)} slots but {len(self.agents)} counts; give one per slot")
        if list(self.slots) != sorted(set(self.slots)) or (self.slots and self.slots[0] < 1):
            raise ValueError(f"slots={self.slots} must be ascending, without repeats, from 1 on")
        if min(self.agents, default=0) < 0:
            raise ValueError(f"agents={self.agents} must not be negative")


@dataclass(frozen=True, slots=True)
class Placement:
    """Name the slot of each agent of a batch, in order, and the round-robin position after it."""

    slots: list[int]
    next: int


def place(count: int, policy: Policy, load: Load, keys: Sequence[Key] | None = None) -> Placement:
    """Choose a live slot for each of `count` agents.

    "round_robin" goes on from `load.next`. "least_loaded" gives each agent in turn to the worker with the
    fewest, the lowest slot among equals. "hash" goes by `keys`, one per agent: the same key gets the same
    slot in every process and run, and a new worker takes over only its share of them. A whole number pins all
    to that worker, counted from 0 among the live; a tuple of them, one for each agent, each to its own.

    Raises:
        TypeError: the policy or a key has the wrong type.
        ValueError: no such policy or worker, a negative count, or keys that do not match the count.
        SpawnError: no worker is alive.
    """
    if count < 0:
        raise ValueError(f"count={count} agents cannot be placed; give 0 or more")
    if not load.slots:
        raise SpawnError(f"no worker is alive to take {count:,} agents; wait for a restart, or resize()")
    if isinstance(policy, tuple):
        return Placement([_pinned(index, load.slots) for index in policy], load.next)
    if isinstance(policy, bool) or not isinstance(policy, int | str):
        raise TypeError(f"placement={policy!r} must be {', '.join(_NAMED)} or a worker's index")
    if isinstance(policy, int):
        return Placement([_pinned(policy, load.slots)] * count, load.next)
    if policy == "round_robin":
        return _round_robin(count, load)
    if policy == "least_loaded":
        return Placement(_least_loaded(count, load), load.next)
    if policy == "hash":
        return Placement(_by_hash(_checked_keys(count, keys), load.slots), load.next)
    raise ValueError(f"placement={policy!r} is not known; choose {', '.join(_NAMED)} or a worker's index")


def _pinned(index: int, slots: tuple[int, ...]) -> int:
    if not 0 <= index < len(slots):
        raise ValueError(f"placement={index} names no worker; the live ones are 0 to {len(slots) - 1}")
    return slots[index]


def _round_robin(count: int, load: Load) -> Placement:
    workers = len(load.slots)
    start = load.next % workers
    turn = [*load.slots[start:], *load.slots[:start]]
    rounds, rest = divmod(count, workers)
    return Placement(turn * rounds + turn[:rest], (start + count) % workers)


def _least_loaded(count: int, load: Load) -> list[int]:
    """Pour the batch over the workers as water: whoever is lowest rises, in rounds, to the level of the next.

    A round gives one agent to each worker at the level, so that whole levels are list repetition.
    """
    placed: list[int] = []
    level: list[int] = []
    by_height: dict[int, list[int]] = {}
    for height, slot in sorted(zip(load.agents, load.slots, strict=True)):
        by_height.setdefault(height, []).append(slot)
    beyond_reach = max(by_height) + count + 1
    for height, above in pairwise([*by_height, beyond_reach]):
        level = sorted([*level, *by_height[height]])
        rounds = min(above - height, (count - len(placed)) // len(level))
        placed += level * rounds
        if rounds < above - height:
            break
    return placed + level[: count - len(placed)]


def _checked_keys(count: int, keys: Sequence[Key] | None) -> Sequence[Key]:
    if keys is None or isinstance(keys, str | bytes):
        raise TypeError('placement="hash" needs keys, a sequence with one str, int or bytes for each agent')
    if len(keys) != count:
        raise ValueError(f"{len(keys)} keys for {count} agents; give one for each")
    return keys


def _by_hash(keys: Sequence[Key], slots: tuple[int, ...]) -> list[int]:
    """Give each key to the slot that scores highest for it (rendezvous hashing: Thaler, Ravishankar, 1998).

    A score depends on the key and its slot alone, so a slot that joins or leaves moves no key between the
    rest.
    """
    from hashlib import blake2b  # OpenSSL takes milliseconds to load, and few batches are placed by hash

    blocks = [index.to_bytes(2, "little") for index in range(slots[-1] // 16 + 1)]
    placed = []
    for key in keys:
        data = _key_bytes(key)
        scores: list[int] = []
        for block in blocks:
            scores += _SCORES.unpack(blake2b(data, salt=block).digest())
        placed.append(max(slots, key=scores.__getitem__))
    return placed


def _key_bytes(key: Key) -> bytes:
    """Encode a key so that 1, "1" and b"1" stay three keys."""
    if isinstance(key, str):
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, bytes):
        return b"b" + key
    if isinstance(key, int) and not isinstance(key, bool):
        return b"i%d" % key
    raise TypeError(f"key {key!r} is of type {type(key).__name__}; give a str, an int or bytes")
