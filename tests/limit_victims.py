"""Programs that run out of something; tests/test_limits.py starts each in a process of its own.

Each prints what it saw, one line a step. A step that ends with an error prints its type and text.
"""

import faulthandler
import os
import resource
import sys
import time

from fabric import Fabric
from tests.agents import Echo
from tests.crash_agents import Hog

MIB = 2**20
SMALL = {
    "lane_bytes": MIB,
    "peer_lane_bytes": 2**16,
    "outbox_bytes": MIB,
    "journal_bytes": MIB,
    "arena_bytes": 0,
    "max_agents": 1000,
}
PATIENCE = 30  # seconds


def step(function):
    """Print what a function returns, or the error it ends with."""
    try:
        print(function(), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".partition("\n")[0], flush=True)


def limit(what, value):
    """Set the soft limit."""
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def address_space(more):
    """Leave this process, and those it starts, so many bytes of addresses more than it has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        limit(resource.RLIMIT_AS, int(file.read().split()[0]) * resource.getpagesize() + more)


def _whole_life(**settings):
    with Fabric(workers=2, **settings) as fab:
        return fab.spawn_batch(Echo, 4).ask_all("works", timeout=PATIENCE)[0]


def start_in_little_address_space():
    """Start fabrics in more and more address space."""
    for mib in (1, 32, 40, 48, 96, 512):
        address_space(mib * MIB)
        step(lambda: _whole_life(**SMALL))
        limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def hungry_agent():
    """An agent asks for more than its address space has."""
    address_space(1024 * MIB)
    with Fabric(workers=1, **SMALL) as fab:
        hog = fab.spawn_batch(Hog, 1)[0]
        step(lambda: hog.ask(4096 * MIB, timeout=PATIENCE))
        step(lambda: hog.ask(MIB, timeout=PATIENCE))


def hungry_coordinator():
    """A call needs more memory than the coordinator has left."""
    with Fabric(workers=1, **SMALL) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        address_space(64 * MIB)
        body = bytes(MIB // 4)
        step(lambda: len(fab.ask_many([echo] * 4096, [body] * 4096, timeout=PATIENCE)))
        step(lambda: echo.ask("works", timeout=PATIENCE))


def small_file_size():
    """No file may grow past 1 MiB, and the segment is one."""
    limit(resource.RLIMIT_FSIZE, MIB)
    step(_whole_life)


def small_file_size_once_started():
    """The limit comes when the segment is there: it is no hindrance any more."""
    with Fabric(workers=1, **SMALL) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        limit(resource.RLIMIT_FSIZE, 0)
        fab._supervisor.crew.kill(1)
        assert fab.ask_many([echo] * 1000, ["x" * 1000] * 1000, timeout=PATIENCE) == ["x" * 1000] * 1000
        limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)  # stdout may be a file
        print("works")


def full_table_at_start():
    """Start fabrics with more and more free descriptors."""
    for free in (*range(0, 30, 3), 29, 39):
        limit(resource.RLIMIT_NOFILE, 3 + free)
        step(lambda: _whole_life(max_workers=2, **SMALL))
        limit(resource.RLIMIT_NOFILE, 256)


def full_table_at_a_death():
    """The table is full when a worker dies: its successor cannot be watched, so the slot is given up."""
    with Fabric(workers=2, **SMALL) as fab:
        first, second = fab.spawn_batch(Echo, 2)
        limit(resource.RLIMIT_NOFILE, 64)
        held = _fill_table()
        fab._supervisor.crew.kill(1)
        step(lambda: first.ask("works", timeout=PATIENCE))
        step(lambda: second.ask("works", timeout=PATIENCE))
        for descriptor in held:
            os.close(descriptor)
        step(lambda: fab.spawn_batch(Echo, 2).ask_all("works", timeout=PATIENCE)[0])


def full_table_for_a_moment():
    """As before, but there is room again before the slot is given up."""
    with Fabric(workers=1, **SMALL, max_restarts=100) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        limit(resource.RLIMIT_NOFILE, 64)
        held = _fill_table()
        fab._supervisor.crew.kill(1)
        deadline = time.monotonic() + PATIENCE
        while not fab._supervisor._obstacle and time.monotonic() < deadline:
            time.sleep(0.001)
        for descriptor in held:
            os.close(descriptor)
        step(lambda: echo.ask("works", timeout=PATIENCE))


def errors_on_a_full_table():
    """Errors are told that were never told before, when nothing more can be imported."""
    with Fabric(workers=1, **SMALL) as fab:
        hog = fab.spawn_batch(Hog, 1)[0]
        limit(resource.RLIMIT_NOFILE, 64)
        held = _fill_table()
        step(lambda: hog.ask("not a number", timeout=PATIENCE))
        hog.stop()
        step(lambda: hog.ask(1, timeout=PATIENCE))
        assert "orjson" not in sys.modules, "its import may fail by a SIGSEGV here"
        for descriptor in held:
            os.close(descriptor)


def _fill_table():
    held = []
    while True:
        try:
            held.append(os.dup(0))
        except OSError:
            return held


def hungry_agent_in_a_control_group(group):
    """An agent takes more than its control group has; the kernel kills its process."""
    with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    with Fabric(workers=2, max_attempts=2, **SMALL) as fab:
        hog, echo = fab.spawn_batch(Hog, 1, placement=0)[0], fab.spawn_batch(Echo, 1, placement=1)[0]
        step(lambda: hog.ask(512 * MIB, timeout=PATIENCE))
        step(lambda: hog.ask(MIB, timeout=PATIENCE))
        step(lambda: echo.ask("works", timeout=PATIENCE))


def agents_in_a_control_group(group):
    """More agents are asked for than the control group has room for."""
    with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    with Fabric(workers=1, **SMALL) as fab:
        fab.spawn_batch(Hog, 4, ballast=MIB)
        step(lambda: fab.spawn_batch(Hog, 500, ballast=MIB))
        step(lambda: fab.spawn_batch(Echo, 4).ask_all("works", timeout=PATIENCE)[0])


def lanes_in_a_control_group(group):
    """The lanes are larger than the control group; smaller ones are not, and may be filled."""
    with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    step(lambda: Fabric(workers=2, lane_bytes=128 * MIB))
    with Fabric(workers=1, lane_bytes=32 * MIB) as fab:
        echo, body = fab.spawn_batch(Echo, 1)[0], bytes(MIB)
        for _ in range(200):
            fab.tell_many([echo], [body])
        step(lambda: echo.ask("works", timeout=PATIENCE))


def large_messages():
    """64 MiB go through the segment; /dev/shm has no room for them."""
    sizes = os.statvfs("/dev/shm")
    assert sizes.f_bsize * sizes.f_blocks <= MIB
    with Fabric(workers=1, arena_bytes=0) as fab:
        echo, body = fab.spawn_batch(Echo, 1)[0], bytes(MIB)
        assert fab.ask_many([echo] * 64, [body] * 64, timeout=PATIENCE) == [body] * 64
        print("works")


if __name__ == "__main__":
    faulthandler.dump_traceback_later(40)
    globals()[sys.argv[1]](*sys.argv[2:])
