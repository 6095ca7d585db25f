"""shm-fabric: agents on many processes of one machine, messages through lock-free rings in shared memory.

    from fabric import Agent, Fabric

Layers; a module imports lower rows only (tests/test_layering.py holds the table and enforces it):

    native/                                        the C core
    errors config messages counters                what everybody knows
    ring                                           the only user of the C core
    segment codec wire                             memory, and bytes for bodies
    channel                                        messages over lanes
    agent placement waves window admission restart what users hold; decisions, pure
    workers.host ... | crew, replies, directory    the worker's side | the coordinator's side
    workers.loop     | coordinator                 the two loops
"""

from fabric.agent import Agent, AgentGroup, AgentRef
from fabric.config import FabricConfig
from fabric.coordinator import Fabric
from fabric.errors import (
    AgentError,
    AgentNotFoundError,
    BackpressureError,
    ClosedError,
    EncodingError,
    FabricError,
    LayoutError,
    MessageTooLargeError,
    PoisonMessageError,
    SpawnError,
    WorkerLostError,
)
from fabric.messages import DeadLetter
from fabric.statistics import Statistics, WorkerStatistics
from fabric.waves import Wave

__all__ = [
    "Agent",
    "AgentError",
    "AgentGroup",
    "AgentNotFoundError",
    "AgentRef",
    "BackpressureError",
    "ClosedError",
    "DeadLetter",
    "EncodingError",
    "Fabric",
    "FabricConfig",
    "FabricError",
    "LayoutError",
    "MessageTooLargeError",
    "PoisonMessageError",
    "SpawnError",
    "Statistics",
    "Wave",
    "WorkerLostError",
    "WorkerStatistics",
]
