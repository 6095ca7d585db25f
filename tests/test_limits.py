"""Memory, descriptors or room for files run out: a clear error before, never SIGBUS, never a hang, and it goes on."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fabric.config import cgroup_folders

PATIENCE = 50


def _run(name, *arguments, command=()):
    """Run a program of tests/limit_victims.py; return the lines it printed. It ends well, with its family."""
    program = subprocess.Popen(
        [*command, sys.executable, "-m", "tests.limit_victims", name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[1],
    )
    try:
        out, err = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
    left = [process for process in psutil.process_iter() if _in_session(process, program.pid)]
    _, alive = psutil.wait_procs(left, timeout=5)
    assert (program.returncode, alive) == (0, []), err
    assert "SIGBUS" not in err
    return out.splitlines()


def _in_session(process, session):
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_a_fabric_starts_when_there_is_address_space_enough_and_else_says_so():
    lines = _run("start_in_little_address_space")

    assert lines[0].startswith("FabricError: a segment of ")
    assert lines[-1] == "works"
    assert {line for line in lines if "ulimit -v" not in line} == {"works"}


def test_a_handler_that_gets_no_memory_is_an_error_of_its_agent_and_the_next_message_is_handled():
    assert _run("hungry_agent") == ["AgentError: agent 1 raised MemoryError: ", "1048576"]


def test_a_coordinator_that_gets_no_memory_for_a_call_can_make_smaller_ones():
    assert _run("hungry_coordinator") == ["MemoryError: ", "works"]


def test_a_limit_on_file_sizes_is_named_where_it_hinders_and_does_not_hinder_later():
    [refused] = _run("small_file_size")
    assert "File too large" in refused
    assert "ulimit -f" in refused
    assert _run("small_file_size_once_started") == ["works"]


def test_a_fabric_starts_when_there_are_descriptors_enough_and_else_says_so():
    lines = _run("full_table_at_start")

    assert lines[0].startswith(
        "FabricError: there is no anonymous memory to be had (memfd_create: Too many open files)"
    )
    assert lines[-1] == "works"
    assert {line for line in lines if "ulimit -n" not in line} == {"works"}


def test_a_worker_that_cannot_be_watched_for_want_of_a_descriptor_is_given_up_and_the_others_go_on():
    lost, other, later = _run("full_table_at_a_death")

    assert lost.startswith("WorkerLostError: worker 1 could not be started: there is no descriptor left")
    assert (other, later) == ("works", "works")


def test_a_worker_is_replaced_when_there_are_descriptors_again():
    assert _run("full_table_for_a_moment") == ["works"]


def test_an_error_is_told_though_nothing_can_be_imported_any_more():
    raised, stopped = _run("errors_on_a_full_table")

    assert raised.startswith("AgentError: agent 1 raised TypeError")
    assert stopped.startswith("AgentNotFoundError")


def test_nothing_goes_through_dev_shm():
    private = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    try:
        subprocess.run([*private, "true"], check=True, stderr=subprocess.PIPE)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"A SMALL /dev/shm IS NOT TRIED: no mount namespace to be had here ({error})")
    assert _run("large_messages", command=private) == ["works"]


@pytest.fixture
def group():
    """A control group of 160 MiB, to be entered by a process of root's."""
    folder = Path(cgroup_folders("memory")[0]) / f"shm-fabric-test-{os.getpid()}"
    v1 = (folder.parent / "memory.limit_in_bytes").exists()
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"A SMALL CONTROL GROUP IS NOT TRIED: none can be made here ({error})")
    try:
        for name in (
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if v1 else ("memory.max", "memory.swap.max")
        ):
            with contextlib.suppress(OSError):  # without swap accounting
                (folder / name).write_text("0" if "swap.max" in name else str(160 * 2**20))
        if not (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).exists():
            pytest.skip("A SMALL CONTROL GROUP IS NOT TRIED: the memory controller is not enabled here")
        yield str(folder)
    finally:
        deadline = time.monotonic() + 5
        while folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # busy, until the kernel has let go of who was in it
                folder.rmdir()


def test_a_handler_that_takes_more_than_its_control_group_has_is_put_aside(group):
    poison, next_message, other = _run("hungry_agent_in_a_control_group", group)

    assert poison.startswith("PoisonMessageError")
    assert "SIGKILL" in poison
    assert (next_message, other) == ("1048576", "works")


def test_more_agents_than_a_control_group_has_room_for_are_refused_before(group):
    refused, works = _run("agents_in_a_control_group", group)

    assert refused.startswith("SpawnError: asked for ")
    assert "raise the container's limit" in refused
    assert works == "works"


def test_lanes_that_a_control_group_has_no_room_for_are_refused_before(group):
    refused, works = _run("lanes_in_a_control_group", group)

    assert refused.startswith("FabricError: the lanes of 2 workers take up to 536,870,912 bytes")
    assert works == "works"
