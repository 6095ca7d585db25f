"""Say what a class of agents may be, before any is spawned, and what it says of its encoding."""

import inspect
from typing import Any

from fabric.agent import Agent


def check_agent_class(kind: Any) -> None:
    """Refuse what cannot be spawned, before anything is sent.

    Raises:
        TypeError: not a subclass of Agent, or one that handles no messages.
    """
    if not isinstance(kind, type) or not issubclass(kind, Agent):
        raise TypeError(f"spawn wants a subclass of fabric.Agent, not {kind!r}")
    if hasattr(kind, "on_records"):
        raise TypeError(f"{kind.__name__} hosts a range of agents: spawn it with spawn_array(), and no prewarm()")
    if kind.on_message is Agent.on_message and not hasattr(kind, "on_batch"):
        raise TypeError(f"{kind.__name__} has neither on_message nor on_batch: it could handle nothing")
    check_handlers(kind)


def check_handlers(kind: type[Agent]) -> None:
    """Refuse what agents of any kind may not have. TypeError, ValueError as for check_agent_class."""
    if kind.encoding not in (None, "json", "pickle"):
        raise ValueError(f'{kind.__name__}.encoding is {kind.encoding!r}; it may be "json" or "pickle"')
    if not isinstance(kind.max_concurrency, int) or kind.max_concurrency < 1:
        raise ValueError(f"{kind.__name__}.max_concurrency is {kind.max_concurrency!r}; it may be 1 or more")
    for name in ("on_start", "on_stop", "on_batch", "snapshot", "restore"):
        if inspect.iscoroutinefunction(getattr(kind, name, None)):
            raise TypeError(f"{kind.__name__}.{name} is an async def, which nobody would await: only on_message may be")
    if hasattr(kind, "snapshot") != hasattr(kind, "restore"):
        raise TypeError(f"{kind.__name__} has only one of snapshot() and restore(state): its state is kept with both")
    if hasattr(kind, "snapshot") and kind.max_concurrency > 1:
        raise ValueError(
            f"{kind.__name__} has snapshot() and max_concurrency={kind.max_concurrency}: with several messages in hand "
            "there is no moment at which its state belongs to a position"
        )


def prefers_json(kind: type[Agent]) -> bool | None:
    """What a class says of its encoding: True for JSON, False for pickle, None for the fabric's choice."""
    return None if kind.encoding is None else kind.encoding == "json"
