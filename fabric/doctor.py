"""Look at what this machine offers a fabric, and say what to do about what it lacks.

Each check returns a Finding. The last ones start a small fabric and measure it, and tell more than all limits.
"""

import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from fabric import Agent
from fabric.admission import available_bytes, cgroup_available
from fabric.config import FabricConfig, cpu_quota, usable_cpus
from fabric.errors import FabricError
from fabric.segment import Segment

Level = Literal["ok", "warning", "problem"]

_OLDEST_KERNEL = (5, 3)  # pidfd_open
_TESTED_PYTHONS = ((3, 11), (3, 14))
_LOW_MEMORY = 512 * 2**20
_OTHER_DESCRIPTORS = 32  # a fabric's own beside two for each worker, with some to spare
_PATIENCE = 20.0  # seconds for what takes milliseconds
_SLOW_START = 1.0  # seconds
_ROUND_TRIPS = 2_000
_SLOW_ROUND_TRIP = 100e-6  # seconds; 4 to 17 µs are usual, 60 with a sleeping worker
_AGENTS = 1_000
_ASKS = 100_000
_LOW_RATE = 200_000  # a second; 1.6 million are usual


class Finding(NamedTuple):
    """Say what was found of a subject, and, unless that is fine, what to do."""

    level: Level
    subject: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<9}{self.subject:<19}{self.found}"
        return f"{line}\n{'':28}-> {self.advice}" if self.advice else line


class Echo(Agent):
    """Answers with what it is sent."""

    def on_message(self, body: Any) -> Any:
        """Return the message."""
        return body


def run() -> int:
    """Print a line for each finding as it is made. Returns the exit status: 1 when there is a problem."""
    levels: list[Level] = []
    for finding in _machine_findings():
        print(finding, flush=True)
        levels.append(finding.level)
    for finding in _fabric_findings() if "problem" not in levels else [_NOT_TRIED]:
        print(finding, flush=True)
        levels.append(finding.level)
    problems, warnings = levels.count("problem"), levels.count("warning")
    print(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}")
    return 1 if problems else 0


_NOT_TRIED = Finding("warning", "start", "not tried", "mend the problems above first")


def _machine_findings() -> Iterable[Finding]:
    """Make one finding after the other, whatever becomes of each."""
    for subject, check in _CHECKS.items():
        try:
            yield check()
        except Exception as error:  # whatever is wrong with this machine: the next checks can tell more
            yield Finding("problem", subject, _worded(error), "this should work: see the lines above for the reason")


def check_python() -> Finding:
    """Which Python is this, and do our tests run with it?"""
    found = f"{platform.python_implementation()} {platform.python_version()}"
    oldest, newest = _TESTED_PYTHONS
    if platform.python_implementation() != "CPython" or not oldest <= sys.version_info[:2] <= newest:
        tested = f"CPython {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        return Finding("warning", "Python", found, f"tested with {tested} only; expect surprises with others")
    return Finding("ok", "Python", found)


def check_kernel() -> Finding:
    """Is this Linux, and recent enough?"""
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    needed = ".".join(map(str, _OLDEST_KERNEL))
    if platform.system() != "Linux" or _version(platform.release()) < _OLDEST_KERNEL:
        return Finding("problem", "kernel", found, f"Linux {needed} or later is needed")
    return Finding("ok", "kernel", found)


def check_cores() -> Finding:
    """How many CPUs may this process use?"""
    usable, there = usable_cpus(), os.cpu_count() or 1
    found = f"{usable} of {there} usable"
    if usable == 1:
        return Finding("warning", "CPUs", found, "coordinator and worker take turns: every answer waits for a switch")
    return Finding("ok", "CPUs", found)


def check_load() -> Finding:
    """Do other programs keep the CPUs busy?"""
    load, usable = os.getloadavg()[0], usable_cpus()
    found = f"{load:.1f} in the last minute, on {_counted(usable, 'CPU')}"
    if load > usable / 2:
        return Finding("warning", "load", found, "the figures below are lower than on an idle machine")
    return Finding("ok", "load", found)


def check_groups() -> Finding:
    """Do control groups (a container, a service) limit CPU time or memory?"""
    quota, left = cpu_quota(), cgroup_available()
    parts = ["no CPU limit" if quota is None else f"{quota:.2g} CPUs' time"]
    parts.append("no memory limit" if left is None else f"{_size(left)} of memory left")
    found = ", ".join(parts)
    if left is not None and left < _LOW_MEMORY:
        return Finding("warning", "control groups", found, "raise the container's memory limit, or spawn few agents")
    if quota is not None and quota < len(os.sched_getaffinity(0)):
        advice = "the kernel halts all workers when the time is used up: answers come late then; raise the CPU limit"
        return Finding("warning", "control groups", found, advice)
    return Finding("ok", "control groups", found)


def check_memory() -> Finding:
    """How much memory is left?"""
    left = available_bytes()
    if left < _LOW_MEMORY:
        return Finding("warning", "memory", f"{_size(left)} available", "close other programs, or spawn few agents")
    return Finding("ok", "memory", f"{_size(left)} available")


def check_memfd() -> Finding:
    """Can anonymous shared memory be made?"""
    advice = "a container's seccomp profile may forbid it; without it there is no shared memory"
    return _tried("memfd_create", lambda: os.close(os.memfd_create("doctor", os.MFD_ALLOW_SEALING)), advice)


def check_pidfd() -> Finding:
    """Can processes be watched and signalled through descriptors?"""

    def attempt() -> None:
        descriptor = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(descriptor, 0)
        finally:
            os.close(descriptor)

    return _tried("pidfd_open", attempt, "Linux 5.3 has it; a container's seccomp profile or gVisor may forbid it")


def check_eventfd() -> Finding:
    """Can a sleeping process be woken?"""
    advice = "every Linux has it; a container's seccomp profile may forbid it"
    return _tried("eventfd", lambda: os.close(os.eventfd(0, os.EFD_NONBLOCK)), advice)


def check_descriptors() -> Finding:
    """May this process open as many files as a fabric with the default settings needs?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + 2 * FabricConfig().worker_counts()[1] + _OTHER_DESCRIPTORS
    found = f"{_limit(soft)}, a fabric with the default settings needs {needed:,}"
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = f"ulimit -n {needed}" if hard == resource.RLIM_INFINITY or hard >= needed else "a higher hard limit"
        return Finding("problem", "descriptor limit", found, f"raise it ({wanted}), or give a lower max_workers")
    return Finding("ok", "descriptor limit", found)


def check_address_space() -> Finding:
    """Does the segment of a fabric with the default settings fit the address space?"""
    config = FabricConfig()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limit = "no limit" if soft == resource.RLIM_INFINITY else f"limit {_size(soft)}"
    try:
        segment = Segment.create(config, config.worker_counts()[1])
    except FabricError as error:
        return Finding("problem", "address space", limit, str(error))
    size = segment.layout.segment_bytes
    segment.close()
    return Finding("ok", "address space", f"{limit}, a segment reserves {_size(size)} (used only when touched)")


def check_dev_shm() -> Finding:
    """How large is /dev/shm? Others ask for it; we do not."""
    try:
        facts = os.statvfs("/dev/shm")
        found = _size(facts.f_blocks * facts.f_frsize)
    except OSError:
        found = "none"
    return Finding("ok", "/dev/shm", f"{found}, and not needed: segments are anonymous")


_CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": check_python,
    "kernel": check_kernel,
    "CPUs": check_cores,
    "load": check_load,
    "control groups": check_groups,
    "memory": check_memory,
    "memfd_create": check_memfd,
    "pidfd_open": check_pidfd,
    "eventfd": check_eventfd,
    "descriptor limit": check_descriptors,
    "address space": check_address_space,
    "/dev/shm": check_dev_shm,
}


def _fabric_findings() -> Iterable[Finding]:
    """Start fabrics and measure."""
    for method in ("spawn", "forkserver"):
        try:
            yield from _start(method, measure=method == "forkserver")
        except Exception as error:
            advice = "see what the worker printed; PYTHONFAULTHANDLER=1 shows where it crashed"
            yield Finding("problem", f"start, {method}", _worded(error), advice)


def _start(method: Any, measure: bool) -> Iterable[Finding]:
    from fabric import Fabric  # here: workers import this module too, for Echo, and need no Fabric

    began = time.perf_counter()
    with Fabric(workers=1, start_method=method) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        echo.ask(b"", timeout=_PATIENCE)
        seconds = time.perf_counter() - began
        advice = "the disk, or a busy machine? Python's own start is most of it: see python -X importtime"
        yield _judged(f"start, {method}", f"first reply after {seconds * 1e3:.0f} ms", seconds <= _SLOW_START, advice)
        if measure:
            yield _round_trip(echo)
            yield _rate(fab.spawn_batch(Echo, _AGENTS))


def _round_trip(echo: Any) -> Finding:
    body, times = bytes(64), []
    for _ in range(_ROUND_TRIPS):
        began = time.perf_counter()
        echo.ask(body, timeout=_PATIENCE)
        times.append(time.perf_counter() - began)
    median = sorted(times)[_ROUND_TRIPS // 2]
    found = f"{median * 1e6:.1f} µs, the median of {_ROUND_TRIPS:,} asks"
    return _judged("round trip", found, median <= _SLOW_ROUND_TRIP, "other programs, or a slow virtual machine?")


def _rate(echoes: Any) -> Finding:
    bodies = [bytes(64)] * _AGENTS
    echoes.ask_each(bodies, timeout=_PATIENCE)
    began = time.perf_counter()
    for _ in range(_ASKS // _AGENTS):
        echoes.ask_each(bodies, timeout=_PATIENCE)
    rate = _ASKS / (time.perf_counter() - began)
    found = f"{rate / 1e3:,.0f} k/s, 64 bytes asked of {_AGENTS:,} agents in one worker, and answered"
    return _judged("messages", found, rate >= _LOW_RATE, "other programs, or a slow virtual machine?")


def _judged(subject: str, found: str, fine: bool, advice: str) -> Finding:
    return Finding("ok", subject, found) if fine else Finding("warning", subject, found, advice)


def _tried(subject: str, attempt: Callable[[], object], advice: str) -> Finding:
    """Report on what the kernel, or the way Python was built, may refuse."""
    try:
        attempt()
    except AttributeError:
        return Finding("problem", subject, "not in this Python", "use a Python that was built on a newer system")
    except OSError as error:
        return Finding("problem", subject, f"refused: {error.strerror}", advice)
    return Finding("ok", subject, "works")


def _worded(error: Exception) -> str:
    """Return an error in one line."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _version(release: str) -> tuple[int, ...]:
    """Return the two first numbers of a kernel's release."""
    numbers = release.replace("-", ".").replace("+", ".").split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdecimal())


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else f"{value:,}"


def _size(count: int) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:,} bytes"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count or 'no'} {noun}s"
