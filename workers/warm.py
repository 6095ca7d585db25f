"""Keep agents constructed in advance, so that a spawn from the store constructs nothing."""

from collections.abc import Callable
from typing import Any

from fabric.agent import Agent


def construct(kind: type[Agent], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Agent:
    """Make one agent; it has no address yet."""
    return kind(*args, **kwargs)


class WarmPool:
    """Agents in store, by recipe (the pickled class and arguments): equal bytes make equal agents."""

    def __init__(self) -> None:
        self.wanted: dict[bytes, tuple[int, Callable[[], Agent]]] = {}  # how many to keep, how to make one
        self._store: dict[bytes, list[Agent]] = {}

    def want(self, recipe: bytes, count: int, make: Callable[[], Agent]) -> None:
        """Keep `count` agents of this recipe from now on, and make them now; 0 forgets the recipe."""
        if count == 0:
            self.wanted.pop(recipe, None)
            self._store.pop(recipe, None)
            return
        self.wanted[recipe] = count, make
        store = self._store.setdefault(recipe, [])
        try:
            while len(store) < count:
                store.append(make())
        except BaseException:
            self.want(recipe, 0, make)
            raise

    def take(self, recipe: bytes, count: int) -> list[Agent]:
        """Return up to `count` agents from the store."""
        store = self._store.get(recipe)
        if not store:
            return []
        taken = store[-count:]
        del store[-count:]
        return taken

    def refill_one(self) -> bool:
        """Make one agent that is missing. False: nothing is missing. For when there is nothing else to do."""
        for recipe, (count, make) in self.wanted.items():
            store = self._store[recipe]
            if len(store) < count:
                try:
                    store.append(make())
                except Exception:  # it failed in the background: the spawn that wants it will say so
                    self.wanted[recipe] = len(store), make
                return True
        return False

    @property
    def stored(self) -> int:
        """How many agents are in store."""
        return sum(map(len, self._store.values()))
