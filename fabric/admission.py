"""Decide whether lanes and agents fit: a shortage is to be an error, not the kernel's SIGKILL."""

from dataclasses import dataclass

from fabric.config import cgroup_folders, read_text
from fabric.errors import FabricError, SpawnError

_LEAST_AGENT_BYTES = 256

# Groups v1 write no limit as the largest whole number of pages, near 2**63.
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Budget:
    """Say what is left for new agents: bytes of memory and free entries of the agent table."""

    available_bytes: int
    table_free: int


def admit(count: int, bytes_per_agent: int, budget: Budget) -> None:
    """Return if `count` agents fit the budget; nothing is reserved by it.

    Raises:
        SpawnError: they do not fit; it names how many do, what is short and what to do.
    """
    if count > budget.table_free:
        raise SpawnError(
            f"asked for {count:,} agents, room for {max(0, budget.table_free):,} in the agent table: "
            "raise max_agents, or stop agents that are done"
        )
    needed = count * bytes_per_agent
    if needed > budget.available_bytes:
        room = max(0, budget.available_bytes) // bytes_per_agent
        raise SpawnError(
            f"asked for {count:,} agents, room for {room:,}: at {bytes_per_agent:,} bytes each they need "
            f"{needed:,} bytes and {max(0, budget.available_bytes):,} are available: free memory, raise the "
            "container's limit, or make the agents smaller"
        )


def admit_lanes(workers: int, lane_bytes: int, root: str = "/") -> None:
    """Return if a fabric's lanes fit what its control groups leave; else they would end in SIGKILL as they fill.

    A lane touches all of its bytes as it turns. `root` stands in for the file system's root in tests.

    Raises:
        FabricError: they do not fit.
    """
    needed, left = 2 * workers * lane_bytes, cgroup_available(root)
    if left is not None and needed > left:
        raise FabricError(
            f"the lanes of {workers} workers take up to {needed:,} bytes, and this process's control group has "
            f"{left:,} left: lower lane_bytes or workers, or raise the container's limit"
        )


def estimate(before_bytes: int, after_bytes: int, sample: int) -> int:
    """Return the bytes an agent takes, by a process's memory before and after it made `sample` of them.

    Rounded up, and never less than 256: an allocator with room to spare can hide a small sample whole.

    Raises:
        ValueError: the sample is empty.
    """
    if sample < 1:
        raise ValueError(f"sample={sample} agents tell nothing; make 1 or more")
    return max(_LEAST_AGENT_BYTES, -(-(after_bytes - before_bytes) // sample))


def available_bytes(root: str = "/") -> int:
    """Return the bytes this process may still take: the machine's or its control groups', the lesser.

    `root` stands in for the file system's root in tests. Reads a dozen small files: once per batch, not per
    agent.
    """
    import psutil  # takes tens of milliseconds to import, and not every process asks

    machine: int = psutil.virtual_memory().available
    groups = cgroup_available(root)
    return machine if groups is None else min(machine, groups)


def cgroup_available(root: str = "/") -> int | None:
    """Return the limit less the usage of the tightest memory control group, v1 or v2; None without a limit.

    Page cache that the kernel would drop first (inactive_file) does not count as used: a group that reads
    files is otherwise always full.
    """
    left = []
    for folder in cgroup_folders("memory", root):
        limits = [
            int(text)
            for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
            if (text := read_text(f"{folder}/{name}")).isdecimal() and int(text) < _NO_LIMIT  # v2: "max"
        ]
        usage = read_text(f"{folder}/memory.current") or read_text(f"{folder}/memory.usage_in_bytes")
        if limits and usage.isdecimal():
            left.append(max(0, min(limits) - max(0, int(usage) - _inactive_file(folder))))
    return min(left, default=None)


def _inactive_file(folder: str) -> int:
    """Return the bytes of page cache in a group and those below it that are first to go."""
    lines = read_text(f"{folder}/memory.stat").splitlines()
    counts = dict(line.split(" ", 1) for line in lines if line.count(" ") == 1)
    # v1 has both names, and the plain one leaves out the groups below; v2 has the plain one for all.
    text = counts.get("total_inactive_file") or counts.get("inactive_file", "")
    return int(text) if text.isdecimal() else 0
