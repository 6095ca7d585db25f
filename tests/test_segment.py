"""The segment: who may write where, and what is refused as no segment of ours."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from array import array

import pytest

from fabric import ClosedError, FabricConfig, FabricError, LayoutError
from fabric.layout import TABLE_OFFSET
from fabric.ring import ALIVE
from fabric.segment import Segment
from tests.loopback import loopback

SMALL = FabricConfig(lane_bytes=2**16, peer_lane_bytes=2**14, outbox_bytes=2**16, arena_bytes=0, max_agents=100)
VERSION_OFFSET = 8  # in the header


@pytest.fixture
def segment():
    made = Segment.create(SMALL, 2)
    yield made
    made.close()


@pytest.fixture
def memfd():
    """An anonymous file that may be sealed."""
    descriptor = os.memfd_create("not a segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    yield descriptor
    os.close(descriptor)


def _copy(segment, memfd, size=None, at=0, change=b"", seal=True):
    """Make of an anonymous file a copy of the segment's header, with a change."""
    os.ftruncate(memfd, segment.layout.segment_bytes if size is None else size)
    os.pwrite(memfd, segment.layout.header_bytes, 0)
    os.pwrite(memfd, change, at)
    if seal:
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def test_what_one_process_writes_the_others_see():
    with loopback(2) as loop:
        coordinator, worker, other = loop.segments
        loop.peers[0].write_table(array("Q", [1 << 32 | 5]), array("H", [2]), ALIVE)
        worker.counters()[16] = 77
        worker.cursor()[0], worker.cursor()[1] = 3, 4
        coordinator.counters()[20] = 1

        assert memoryview(worker.whole)[TABLE_OFFSET + 40 : TABLE_OFFSET + 48].cast("Q")[0] == 1 << 32 | 2
        assert (coordinator.counters_of(1)[16], other.counters_of(1)[16]) == (77, 77)
        assert coordinator.counters_of(2)[16] == 0
        assert coordinator.cursor_of(1) == (3, 4)
        assert worker.counters_of(0)[20] == 1


def test_the_blocks_of_processes_do_not_overlap(segment):
    ranges = [segment.layout.writable_range(process) for process in range(3)]

    assert ranges[0][0] == 0
    assert [start + length for start, length in ranges] == [
        *(start for start, _ in ranges[1:]),
        segment.layout.segment_bytes,
    ]


def test_views_of_what_others_write_are_read_only(segment):
    with pytest.raises(TypeError):
        segment.whole[0] = 1
    for view in (segment.counters_of(1), segment.lane_data(1, 0), segment.lane_data(0, 1)):
        assert view.readonly
    assert not segment.counters().readonly


def test_the_kernel_kills_whoever_writes_to_the_read_only_mapping():
    program = (
        "import ctypes, resource\n"
        "from fabric.ring import ffi\n"
        "from tests.test_segment import SMALL, Segment\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "segment = Segment.attach(Segment.create(SMALL, 2).descriptor, 1)\n"
        "ctypes.memset(int(ffi.cast('uintptr_t', ffi.from_buffer(segment.whole))), 1, 1)\n"
    )
    root = os.path.dirname(os.path.dirname(__file__))
    died = subprocess.run([sys.executable, "-c", program], cwd=root, check=False)

    assert died.returncode == -signal.SIGSEGV


def test_a_segment_is_sealed_private_and_gone_when_it_is_closed(segment):
    for size in (0, segment.layout.segment_bytes - 4096, segment.layout.segment_bytes + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert not os.get_inheritable(segment.descriptor)
    segment.close()
    segment.close()
    with pytest.raises(ClosedError):
        segment.counters_of(1)


def test_each_segment_has_an_identity_of_its_own(segment):
    other = Segment.create(SMALL, 2)
    try:
        assert other.layout.identity != segment.layout.identity
    finally:
        other.close()


def test_a_monitor_may_attach_to_look_only(segment):
    monitor = Segment.attach(os.dup(segment.descriptor), None)
    segment.counters()[3] = 9

    assert monitor.counters_of(0)[3] == 9
    monitor.close()


def test_what_is_no_segment_is_refused(tmp_path, memfd):
    (tmp_path / "file").write_bytes(b"x" * 8192)
    reader, writer = os.pipe()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    for descriptor, text in (
        (file, "wrong magic number"),
        (reader, "is no segment: Illegal seek"),
        (memfd, "0 bytes are too few"),
        (10_000, "is no segment: Bad file descriptor"),
    ):
        with pytest.raises(LayoutError, match=text):
            Segment.attach(descriptor, 1)
    for descriptor in (file, reader, writer):
        os.close(descriptor)


def test_a_segment_of_another_version_is_refused(segment, memfd):
    _copy(segment, memfd, at=VERSION_OFFSET, change=b"\x01\0\0\0")
    with pytest.raises(LayoutError, match="laid out by another version"):
        Segment.attach(memfd, 1)


@pytest.mark.parametrize("field", range(2, 9))
def test_a_segment_whose_header_contradicts_itself_is_refused(segment, memfd, field):
    _copy(segment, memfd, at=8 * field, change=b"\x07\x07")
    with pytest.raises(LayoutError, match="contradict each other"):
        Segment.attach(memfd, 1)


@pytest.mark.parametrize("missing", [-4096, 4096])
def test_a_segment_of_another_length_than_it_says_is_refused(segment, memfd, missing):
    _copy(segment, memfd, size=segment.layout.segment_bytes - missing)
    with pytest.raises(LayoutError, match="contradict each other or its length"):
        Segment.attach(memfd, 1)


def test_a_header_cut_short_is_refused(segment, memfd):
    os.pwrite(memfd, segment.layout.header_bytes[:40], 0)
    with pytest.raises(LayoutError, match="40 bytes are too few"):
        Segment.attach(memfd, 1)


def test_a_segment_that_is_not_sealed_is_refused(segment, memfd):
    _copy(segment, memfd, seal=False)
    with pytest.raises(LayoutError, match="not sealed"):
        Segment.attach(memfd, 1)


@pytest.mark.parametrize("process", [3, -1, 10_000])
def test_a_process_that_the_segment_has_no_room_for_is_refused(segment, process):
    with pytest.raises(LayoutError, match=f"no process {process}; it has 3"):
        Segment.attach(segment.descriptor, process)


def test_a_kernel_before_6_3_does_without_the_seal_against_execution(monkeypatch):
    real, asked = os.memfd_create, []

    def memfd_create(name, flags):
        asked.append(flags)
        if len(asked) == 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    Segment.create(SMALL, 1).close()

    assert asked[0] & ~asked[1] == 8


@pytest.mark.parametrize("refusals", [[errno.EPERM], [errno.EINVAL, errno.ENOSYS]])
def test_a_kernel_without_anonymous_memory_is_told_from_a_mistake(monkeypatch, refusals):
    def memfd_create(name, flags):
        number = refusals.pop(0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", memfd_create)
    with pytest.raises(FabricError, match=r"memfd_create: .*seccomp"):
        Segment.create(SMALL, 1)


def test_a_segment_larger_than_the_address_space_is_refused_in_words():
    with pytest.raises(FabricError, match=r"cannot be made: .*lower arena_bytes"):
        Segment.create(SMALL.replace(arena_bytes=2**44), 8)
