"""The bodies that all contestants carry, and the checks of what came of them.

Each body is distinct, so that a lost, doubled, reordered or swapped one shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from bench.sample import WrongAnswerError

SIZE = 64
KILOBYTE = 1_000
_FILL = bytes(range(SIZE - 8))
KINDS = {"64-byte bytes": "bytes", "ints": "ints", "3-key dicts": "dicts"}


def make(kind: str, count: int) -> list[Any]:
    """Return `count` distinct bodies: "bytes" (64 of them), "kilobytes", "ints" (not cached ones), "dicts" (3 keys)."""
    if kind == "bytes":
        return [index.to_bytes(8, "little") + _FILL for index in range(count)]
    if kind == "kilobytes":
        fill = bytes(KILOBYTE - 8)
        return [index.to_bytes(8, "little") + fill for index in range(count)]
    if kind == "ints":
        return list(range(1_000_000, 1_000_000 + count))
    if kind == "dicts":
        return [{"step": index, "kind": "move", "weight": index * 0.5} for index in range(count)]
    raise ValueError(f"no kind of body is called {kind!r}: choose from {', '.join(KINDS.values())}")


def sized(count: int, size: int) -> list[bytes]:
    """Return `count` distinct bodies of so many bytes, 8 or more."""
    if size == SIZE:
        return make("bytes", count)
    fill = bytes(size - 8)
    return [index.to_bytes(8, "little") + fill for index in range(count)]


def expect(found: Sequence[Any], wanted: Sequence[Any], what: str) -> None:
    """Check count, contents and order.

    Raises: WrongAnswerError, naming the first place that differs.
    """
    if len(found) != len(wanted):
        raise WrongAnswerError(f"{what}: {len(found):,} arrived, {len(wanted):,} were due")
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if one != other:
            raise WrongAnswerError(f"{what}: number {place:,} is {short(one)}, not {short(other)}")


def digest(bodies: Iterable[bytes]) -> str:
    """Return a digest of the bodies in their order: what a consumer hands back instead of all it got."""
    state = hashlib.blake2b(digest_size=16)
    for body in bodies:
        state.update(body)
    return state.hexdigest()


def short(value: Any) -> str:
    """Return a repr that fits a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
