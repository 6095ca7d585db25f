"""shm-fabric: agents on many processes of one machine, messages through lock-free rings in shared memory.

    from fabric import Agent, Fabric

Layers; a module imports lower rows only (tests/test_layering.py holds the table and enforces it):

    native/                                        the C core
    errors config messages counters                what everybody knows
    layout ring columns batch lending ...          the only users of the C core: lanes, arenas
    segment codec wire chunk records               memory, and bytes for bodies
    sender receiver                                messages over lanes
    agent array_agents flow placement waves ...    what users hold; decisions, pure
    workers.host ... | crew, replies, directory    the worker's side | the coordinator's side
    workers.loop     | coordinator                 the two loops
"""

from importlib import import_module
from typing import Any

# Where each public name lives. They load when first used: a worker needs Agent and nothing of the
# coordinator, and is up 50 ms earlier without it.
_HOME = {
    "Agent": "fabric.agent",
    "AgentError": "fabric.errors",
    "AgentGroup": "fabric.agent",
    "AgentNotFoundError": "fabric.errors",
    "AgentRef": "fabric.agent",
    "ArrayAgents": "fabric.array_agents",
    "ArrayGroup": "fabric.array_agents",
    "BackpressureError": "fabric.errors",
    "ClosedError": "fabric.errors",
    "DeadLetter": "fabric.messages",
    "EncodingError": "fabric.errors",
    "Executor": "fabric.executor",
    "Fabric": "fabric.coordinator",
    "FabricConfig": "fabric.config",
    "FabricError": "fabric.errors",
    "JoinableQueue": "fabric.queue",
    "LayoutError": "fabric.errors",
    "MessageTooLargeError": "fabric.errors",
    "Monitor": "fabric.monitor",
    "PoisonMessageError": "fabric.errors",
    "Queue": "fabric.queue",
    "Pool": "fabric.pool",
    "Shared": "fabric.loans",
    "ShutDown": "fabric.queue",
    "SimpleQueue": "fabric.queue",
    "SpawnError": "fabric.errors",
    "Statistics": "fabric.statistics",
    "StreamChunk": "fabric.messages",
    "Wave": "fabric.waves",
    "WorkerLostError": "fabric.errors",
    "WorkerStatistics": "fabric.statistics",
    "rng": "fabric.seeds",
    "task_generator": "fabric.seeds",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fabric' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
