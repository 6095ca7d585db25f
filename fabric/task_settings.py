"""Hold what an Executor or a Pool was made with, checked once."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fabric.config import FabricConfig
from fabric.task_runner import TaskRunner

_MANY = 16  # workers; beyond that each gets smaller lanes, so that the room that is reserved does not run out


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Describe a pool of workers for tasks. Durations are in seconds, sizes in bytes."""

    max_workers: int
    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    all_at_once: bool = False  # start all workers with the first, not as they are needed
    once: bool = False  # on_crash="fail": a task that was begun is not begun again
    strict: bool = False  # a worker that dies breaks the pool, as in the standard library
    max_tasks: int | None = None  # recycle a worker after so many tasks
    max_seconds: float | None = None  # ... after so long
    max_growth: int | None = None  # ... when its memory has grown by so much
    runner: type[TaskRunner] = TaskRunner
    config: FabricConfig = field(default_factory=FabricConfig)


def task_config(max_workers: int, start_method: str | None, given: dict[str, Any]) -> FabricConfig:
    """Return the settings of a fabric for tasks: no lanes between workers to speak of, and no state to keep."""
    method: Literal["forkserver", "spawn"] = "spawn" if start_method == "spawn" else "forkserver"
    small: dict[str, Any] = {
        "start_method": method,
        "workers": 1,
        "max_workers": max_workers,
        "lane_bytes": 4 << 20 if max_workers <= _MANY else 1 << 20,
        "peer_lane_bytes": 16 << 10,
        "journal_bytes": 64 << 10,
        "outbox_bytes": 1 << 20,
        "max_agents": 4 * max_workers + 64,
        "drain": False,
    }
    return FabricConfig(**{**small, **given})


def start_method_of(context: Any) -> str | None:
    """Return the start method of a multiprocessing context, None for none."""
    return None if context is None else context.get_start_method(allow_none=False)


def authkey() -> bytes:
    """Return the key by which this program's processes know each other, for proxies of managers."""
    return bytes(multiprocessing.current_process().authkey)
