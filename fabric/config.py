"""Hold the settings of a fabric, checked once, and find the CPUs and control groups it may count on."""

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fabric.threads import cpu_part

_KIB = 1024
_MIB = 1024 * _KIB
_PAGE_BYTES = 4096
_MOST_WORKERS = 256  # FAB_PROCESSES_MAX less the coordinator; a test holds them equal


@dataclass(frozen=True, slots=True)
class FabricConfig:
    """Describe a fabric.

    Sizes are bytes; durations are seconds, save the two that end in `_us` (microseconds). The values are
    checked here and nowhere else. An instance is frozen and picklable; `replace` makes a changed copy.

    Raises:
        TypeError: a setting has the wrong type; a bool is not a number here.
        ValueError: a setting is out of range, or two settings contradict each other.

    Example:
        >>> FabricConfig(workers=2).replace(batch_size=64).batch_size
        64
    """

    # Processes. None: see worker_counts().
    workers: int | None = None
    max_workers: int | None = None
    start_method: Literal["forkserver", "spawn"] = "forkserver"
    # What the fork server imports beside numpy: workers have it from their start. What cannot be imported is left
    # to the workers. Nothing that starts threads: they make forking unsafe.
    preload: tuple[str, ...] = ()
    # Of BLAS and OpenMP. None: the CPUs divided by max_workers or else workers, unless the environment says otherwise
    # (OMP_NUM_THREADS and the like); a number overrules that; 0: as they come.
    threads_per_worker: int | None = None
    # What workers log is handled by the coordinator's logging; what its levels, as they are at the start, do not let
    # pass is not sent. Handlers run in the supervisor thread. False: workers log for themselves.
    forward_logs: bool = True
    # Lines that workers, or C code in them, write to stdout and stderr are logged here: by the logger "fabric.output",
    # at INFO and WARNING. False: they go where the coordinator's go.
    capture_output: bool = False

    # The segment. Pages are taken as they are first touched, but a lane touches all of its bytes as it turns.
    lane_bytes: int = 8 * _MIB  # coordinator to worker and back, a power of two
    peer_lane_bytes: int = 256 * _KIB  # worker to worker, a power of two
    control_lane_bytes: int = 64 * _KIB  # stop, cancel, ping: a power of two
    outbox_bytes: int = 8 * _MIB  # what a worker's handlers sent and no lane had room for, a power of two
    journal_bytes: int = 16 * _MIB  # a worker's snapshots, and messages since; a power of two
    arena_bytes: int = 1024 * _MIB  # payloads too large for a lane, whole pages; 0 for none
    arena_threshold: int = 64 * _KIB  # bodies, and buffers in them, go through the arena from this size on
    arena_timeout: float = 30.0  # how long a sender that may wait waits for room in its arena
    max_agents: int = 2**21

    # Pace.
    batch_size: int = 256  # messages that cross into C in one call
    spin_us: float = 50.0  # the longest a waiter spins before it sleeps; 0 turns spinning off
    publish_after_us: float = 200.0  # the longest a finished reply waits for its batch to end
    target_queueing: float = 0.02  # what the send window aims to have queued in a lane

    # Metrics. Counters and histograms in the segment; Fabric.metrics turns them off and on again.
    metrics: bool = True
    metrics_interval: float = 30.0  # seconds from sample to sample, where somebody asks for samples

    # Messages.
    encoding: Literal["pickle", "json"] = "pickle"
    allow_pickle: bool = True  # False needs encoding="json"; bytes and arrays travel raw under either

    # Failures.
    on_crash: Literal["retry", "fail"] = "retry"
    snapshot_every: float = 1000  # agents with snapshot(): after so many messages (int), or seconds (float)
    max_restarts: int = 3  # without progress, within restart_window; one more gives the worker up
    restart_window: float = 5.0
    max_attempts: int = 3  # workers that one message may kill
    handler_timeout: float | None = None  # None: a handler may run for ever
    stopped_timeout: float | None = 30.0  # None: a worker stopped by a signal or debugger is left alone
    drain: bool = True  # close() first waits until all that was told has been handled

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            check(name, getattr(self, name))
        if self.workers is not None and self.max_workers is not None and self.workers > self.max_workers:
            raise ValueError(
                f"workers={self.workers} is more than max_workers={self.max_workers}; "
                "raise max_workers, or leave it None"
            )
        if not self.allow_pickle and self.encoding == "pickle":
            raise ValueError(
                'allow_pickle=False contradicts encoding="pickle"; add encoding="json" '
                "(bytes still travel raw, as they are)"
            )

    def replace(self, **changes: Any) -> "FabricConfig":
        """Return a copy with `changes`, checked like the original.

        Raises:
            TypeError: there is no setting of that name; names that are near are offered.
            ValueError: as for the constructor.
        """
        names = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise TypeError(f"FabricConfig has no setting {name!r}; {_near(name, names)}")
        return dataclasses.replace(self, **changes)

    def worker_counts(self, cpus: int | None = None) -> tuple[int, int]:
        """Return how many workers to start and how many slots to lay out for them, with each None settled.

        Call it once per fabric: `cpus` defaults to `usable_cpus()`, which may change while the process runs.
        Without settings that is a worker per CPU, and room to grow to four per CPU but not past 64.
        """
        cpus = usable_cpus() if cpus is None else cpus
        workers = self.workers
        if workers is None:
            workers = cpus if self.max_workers is None else min(cpus, self.max_workers)
        return workers, self.max_workers or max(workers, min(64, 4 * cpus))


def usable_cpus(root: str = "/") -> int:
    """Count the CPUs this process may use: by its affinity or by its control groups' quota, the lesser.

    In a worker no more than are its part, so that a fabric opened there does not take the whole machine again.
    A quota is rounded up, so half a CPU is one. `root` stands in for the file system's root in tests.
    """
    allowed = len(os.sched_getaffinity(0))
    quota, part = cpu_quota(root), cpu_part()
    if quota is not None:
        allowed = max(1, min(allowed, math.ceil(quota)))
    return allowed if part is None else min(allowed, part)


def cpu_quota(root: str = "/") -> float | None:
    """Return how many CPUs' time control groups v1 and v2 grant this process, or None without a limit."""
    quotas = []
    for folder in cgroup_folders("cpu", root):
        quota, _, period = read_text(f"{folder}/cpu.max").partition(" ")  # v2: "150000 100000", "max 100000"
        if not quota:
            quota = read_text(f"{folder}/cpu.cfs_quota_us")  # v1: -1 is no limit
            period = read_text(f"{folder}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def cgroup_folders(controller: str, root: str = "/") -> list[str]:
    """List the folders, own group first, whose files may limit this process; v1 and v2, existing or not.

    Every ancestor counts, as a limit above binds those below. Inside a container the paths in
    /proc/self/cgroup may be the host's, which do not exist there; the mount point at the end of each walk is
    then the container's own group.
    """
    folders = []
    for line in read_text(f"{root}/proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if hierarchy == "0" and not names:  # v2, at the top or, beside v1 groups, in a folder of its own
            mounts = ["", "unified"]
        elif controller in names.split(","):
            mounts = list(dict.fromkeys([names, controller]))
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            top = f"{root.rstrip('/')}/sys/fs/cgroup/{mount}".rstrip("/")
            folders += ["/".join([top, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return folders


def read_text(path: str) -> str:
    """Return a small file's text without the space around it, or "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _near(name: str, names: list[str]) -> str:
    import difflib  # only needed to word an error

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"


_Check = Callable[[str, Any], None]
_Kinds = type | tuple[type, ...]


def _rule(kinds: _Kinds, allowed: str, accepts: Callable[[Any], bool], advice: str) -> _Check:
    """Make a check of one setting; a bool passes only where bool itself is asked for."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise TypeError(f"{name}={value!r} is of type {type(value).__name__}; give it {allowed}")
        if not accepts(value):
            raise ValueError(f"{name}={value!r} was asked for, but only {allowed} is allowed; {advice}")

    return check


def _whole(least: int, most: int | None = None) -> _Check:
    top = math.inf if most is None else most
    wanted = f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
    return _rule(int, wanted, lambda value: least <= value <= top, "choose a number in that range")


def _power_of_two(least: int) -> _Check:
    return _rule(
        int,
        f"a power of two, {least} bytes or more,",
        lambda value: value >= least and value.bit_count() == 1,
        f"take {least} doubled as often as you need",
    )


def _seconds(*, zero: bool = False) -> _Check:
    wanted = "a finite number, 0 or more," if zero else "a finite number over 0"
    return _rule(
        (int, float),
        wanted,
        lambda value: math.isfinite(value) and (value > 0 or (zero and value == 0)),
        "choose a number in that range",
    )


def _one_of(*choices: str) -> _Check:
    return _rule(str, " or ".join(map(repr, choices)), lambda value: value in choices, "choose one of them")


def _optional(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


_PAGES = _rule(
    int,
    f"0 or a multiple of {_PAGE_BYTES} bytes",
    lambda value: value >= 0 and value % _PAGE_BYTES == 0,
    f"round it up to whole pages of {_PAGE_BYTES}",
)
_FLAG = _rule(bool, "True or False", lambda value: value in (True, False), "choose one of them")

_CHECKS: dict[str, _Check] = {
    "workers": _optional(_whole(1, _MOST_WORKERS)),
    "max_workers": _optional(_whole(1, _MOST_WORKERS)),
    "start_method": _one_of("forkserver", "spawn"),
    "preload": _rule(
        tuple,
        "a tuple of names of modules",
        lambda value: all(isinstance(name, str) for name in value),
        'name them as in ("scipy.signal",)',
    ),
    "threads_per_worker": _optional(_whole(0)),
    "forward_logs": _FLAG,
    "capture_output": _FLAG,
    "lane_bytes": _power_of_two(64 * _KIB),
    "peer_lane_bytes": _power_of_two(16 * _KIB),
    "control_lane_bytes": _power_of_two(16 * _KIB),
    "outbox_bytes": _power_of_two(64 * _KIB),
    "journal_bytes": _power_of_two(64 * _KIB),
    "arena_bytes": _PAGES,
    "arena_threshold": _whole(_PAGE_BYTES),
    "arena_timeout": _seconds(zero=True),
    "max_agents": _whole(1, 2**31),
    "batch_size": _whole(1, 1024),
    "spin_us": _seconds(zero=True),
    "publish_after_us": _seconds(zero=True),
    "target_queueing": _seconds(),
    "metrics": _FLAG,
    "metrics_interval": _seconds(),
    "encoding": _one_of("pickle", "json"),
    "allow_pickle": _FLAG,
    "on_crash": _one_of("retry", "fail"),
    "snapshot_every": _rule(
        (int, float),
        "messages (a whole number, 1 or more) or seconds (a float over 0)",
        lambda value: math.isfinite(value) and value > 0,
        "choose 1000 for each thousandth message, 5.0 for each 5 s",
    ),
    "max_restarts": _whole(0),
    "restart_window": _seconds(),
    "max_attempts": _whole(1),
    "handler_timeout": _optional(_seconds()),
    "stopped_timeout": _optional(_seconds()),
    "drain": _FLAG,
}
