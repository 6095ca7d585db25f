"""Every process that cannot be watched is refused in words; a fabric that ends, or is closed, ends the watching."""

import os
import struct
import subprocess
import sys

import pytest

from fabric import ClosedError, Fabric, FabricConfig, FabricError, LayoutError, Monitor, attaching
from fabric.segment import Segment, memfd, seal
from tests.waiting import until
from tests.watching import ROOT, watched

NOBODY = 65534
NO_PID = 2**22 + 1  # above any that Linux gives


@pytest.fixture
def fabric():
    """A fabric of two workers."""
    with Fabric(workers=2, drain=False, on_error=lambda letter: None) as made:
        yield made


def test_a_process_that_is_not_there_is_refused():
    with pytest.raises(ProcessLookupError, match=f"there is no process {NO_PID}"):
        Monitor(NO_PID)


def test_a_process_that_has_ended_and_was_not_waited_for_is_refused():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessLookupError, match="has ended"):
        Monitor(process.pid)
    process.wait()


def test_a_process_without_a_fabric_is_refused():
    with pytest.raises(FabricError, match=rf"process {os.getpid()} \(.*\) runs no fabric"):
        Monitor(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_process_of_another_user_is_refused():
    process = subprocess.Popen(["sleep", "60"], user=NOBODY)
    try:
        with pytest.raises(PermissionError, match=f"process {process.pid} is .*'s and you are root: only who runs"):
            Monitor(process.pid)
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused_by_the_kernel_too(fabric):
    script = (
        "import os, sys; from fabric import attaching; pid = int(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "attaching.os.geteuid = lambda: 0\n"
        "try: attaching.attach(pid)\n"
        "except PermissionError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(os.getpid())], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "only who runs a fabric may watch it" in done.stdout, done.stderr


def test_a_fabric_of_another_version_is_refused():
    ours = Segment.create(FabricConfig(), 2)
    header = bytearray(ours.layout.header_bytes)
    header[8:12] = struct.pack("=I", 99)
    other = memfd("shm-fabric")
    try:
        os.ftruncate(other, ours.layout.segment_bytes)
        os.pwrite(other, header, 0)
        seal(other)
        ours.close()
        with pytest.raises(LayoutError, match=f"process {os.getpid()}: .* another version .* with the Python that"):
            Monitor(os.getpid())
    finally:
        os.close(other)


def test_a_worker_and_the_fork_server_are_refused_and_the_coordinator_named(fabric):
    worker, server = fabric.statistics().workers[1].pid, fabric._supervisor.crew.server.pid
    with pytest.raises(FabricError, match=rf"{worker} is worker 2 .* process {os.getpid()} runs: python -m fabric top"):
        Monitor(worker)
    with pytest.raises(FabricError, match=rf"{server} is the fork server.* process {os.getpid()} runs"):
        Monitor(server)


def test_of_several_fabrics_one_is_chosen_by_index_or_identity(fabric):
    with Fabric(workers=1) as other:
        with pytest.raises(FabricError, match=r"runs 2 fabrics, .*--index 0: 2 workers, identity [0-9a-f]{16};"):
            Monitor(os.getpid())
        with Monitor(os.getpid(), index=1) as second, Monitor(os.getpid(), identity=fabric.identity) as first:
            assert {second.identity, first.identity} == {other.identity, fabric.identity}
        with pytest.raises(FabricError, match="has no fabric 2: --index 0"):
            Monitor(os.getpid(), index=2)
        with pytest.raises(FabricError, match="runs no fabric 0000000000000005: it runs"):
            Monitor(os.getpid(), identity=5)


def test_a_coordinator_that_is_killed_ends_the_watching_and_leaves_the_last_figures():
    with watched() as program, Monitor(program.pid) as monitor:
        program.do("ask 3")
        assert monitor.alive
        program.process.kill()
        until(lambda: not monitor.alive)
        until(lambda: monitor.process_ended)

        assert monitor.sample().statistics.messages == 30
        with pytest.raises(FabricError, match="nobody runs in slot 1"):
            monitor.stack(1)


def test_a_fabric_that_is_closed_while_it_is_opened_is_none(fabric, monkeypatch):
    opened = os.open

    def too_late(path, *rest):
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(path)
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", too_late)
    with pytest.raises(FabricError, match="runs no fabric"):
        Monitor(os.getpid())


def test_a_descriptor_that_is_used_for_something_else_meanwhile_is_not_taken_for_the_fabric(tmp_path):
    (tmp_path / "file").touch()
    place = attaching.Place(str(tmp_path / "file"), (0, 0))
    assert not place.is_held()


def test_a_closed_monitor_says_so():
    with Fabric(workers=1), Monitor(os.getpid()) as monitor:
        monitor.close()
        monitor.close()
        assert not monitor.alive
        for look in (monitor.statistics, monitor.sample, monitor.waits):
            with pytest.raises(ClosedError):
                look()


def test_an_unclosed_monitor_is_complained_of(fabric):
    with pytest.warns(ResourceWarning, match=f"unclosed <Monitor of process {os.getpid()}: fabric "):
        Monitor(os.getpid()).__del__()
