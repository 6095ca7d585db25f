"""Types of the public names; fabric/__init__.py loads each when it is first used."""

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
from fabric.executor import Executor
from fabric.messages import DeadLetter
from fabric.monitor import Monitor
from fabric.pool import Pool
from fabric.queue import JoinableQueue, Queue, ShutDown, SimpleQueue
from fabric.seeds import rng, task_generator
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
    "Executor",
    "Fabric",
    "FabricConfig",
    "FabricError",
    "JoinableQueue",
    "LayoutError",
    "MessageTooLargeError",
    "Monitor",
    "PoisonMessageError",
    "Pool",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "SpawnError",
    "Statistics",
    "Wave",
    "WorkerLostError",
    "WorkerStatistics",
    "rng",
    "task_generator",
]
