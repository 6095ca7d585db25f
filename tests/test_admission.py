from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.admission import Budget, admit, available_bytes, cgroup_available, estimate
from fabric.errors import SpawnError

GIB = 2**30


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def version_2(tmp_path):
    """A machine's root whose process is in the v2 group /pod/job."""
    write(tmp_path / "proc/self", cgroup="0::/pod/job")
    return tmp_path


@pytest.fixture
def version_1(tmp_path):
    """A machine's root whose process is in the v1 group /docker/abc, and in an empty v2 group beside it."""
    write(tmp_path / "proc/self", cgroup="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/")
    return tmp_path


def test_what_fits_exactly_is_admitted():
    admit(10, 1_000, Budget(available_bytes=10_000, table_free=10))


def test_one_agent_too_many_for_the_memory_is_refused_with_the_room_there_is():
    with pytest.raises(SpawnError, match=r"asked for 11 agents, room for 10.*11,000 bytes.*free memory"):
        admit(11, 1_000, Budget(available_bytes=10_999, table_free=100))


def test_one_agent_too_many_for_the_table_is_refused_with_the_setting_to_raise():
    with pytest.raises(SpawnError, match=r"asked for 11 agents, room for 10 in the agent table.*raise max_agents"):
        admit(11, 1_000, Budget(available_bytes=GIB, table_free=10))


def test_agents_of_no_known_size_are_bounded_by_the_table_alone():
    admit(10, 0, Budget(available_bytes=0, table_free=10))


def test_a_budget_already_overdrawn_has_room_for_none():
    with pytest.raises(SpawnError, match="room for 0"):
        admit(1, 1_000, Budget(available_bytes=-5, table_free=10))
    with pytest.raises(SpawnError, match="room for 0"):
        admit(1, 1_000, Budget(available_bytes=GIB, table_free=-5))


@given(st.integers(0, 10**7), st.integers(0, 10**5), st.integers(0, 10**11), st.integers(0, 10**7))
def test_a_batch_is_admitted_exactly_when_both_bounds_hold(count, each, available, free):
    try:
        admit(count, each, Budget(available, free))
        admitted = True
    except SpawnError:
        admitted = False

    assert admitted == (count <= free and count * each <= available)


@pytest.mark.parametrize(
    ("before", "after", "sample", "each"),
    [
        (1_000_000, 1_100_000, 100, 1_000),
        (1_000_000, 1_100_001, 100, 1_001),
        (1_000_000, 1_000_000, 100, 256),
        (1_000_000, 900_000, 100, 256),
    ],
)
def test_an_estimate_is_rounded_up_and_never_nothing(before, after, sample, each):
    assert estimate(before, after, sample) == each


def test_an_empty_sample_is_refused():
    with pytest.raises(ValueError, match="sample=0"):
        estimate(0, 1, 0)


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert cgroup_available(str(tmp_path)) is None


def test_version_2_has_its_limit_less_its_usage(version_2):
    write(version_2 / "sys/fs/cgroup/pod/job", memory__max=4 * GIB, memory__current=GIB)

    assert cgroup_available(str(version_2)) == 3 * GIB


def test_page_cache_that_would_be_dropped_first_is_not_usage(version_2):
    stat = f"anon 1\nfile 2\ninactive_file {GIB}\ntotal junk line"
    write(version_2 / "sys/fs/cgroup/pod/job", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)

    assert cgroup_available(str(version_2)) == 2 * GIB


@pytest.mark.parametrize("limits", [{}, {"memory__max": "max"}, {"memory__max": "max", "memory__high": "max"}])
def test_version_2_without_a_limit_has_none(version_2, limits):
    write(version_2 / "sys/fs/cgroup/pod/job", memory__current=GIB, **limits)

    assert cgroup_available(str(version_2)) is None


def test_the_threshold_at_which_version_2_throttles_counts_as_a_limit(version_2):
    write(version_2 / "sys/fs/cgroup/pod/job", memory__max="max", memory__high=2 * GIB, memory__current=GIB)

    assert cgroup_available(str(version_2)) == GIB


def test_the_tightest_group_on_the_way_up_binds(version_2):
    groups = version_2 / "sys/fs/cgroup"
    write(groups / "pod/job", memory__max=4 * GIB, memory__current=GIB)
    write(groups / "pod", memory__max=5 * GIB, memory__current=4 * GIB)
    write(groups, memory__max="max", memory__current=8 * GIB)

    assert cgroup_available(str(version_2)) == GIB


def test_a_group_over_its_limit_has_nothing_left(version_2):
    write(version_2 / "sys/fs/cgroup/pod/job", memory__max=GIB, memory__current=2 * GIB)

    assert cgroup_available(str(version_2)) == 0


def test_version_1_has_its_limit_less_its_usage_with_that_of_the_groups_below(version_1):
    write(
        version_1 / "sys/fs/cgroup/memory/docker/abc",
        memory__limit_in_bytes=4 * GIB,
        memory__usage_in_bytes=3 * GIB,
        memory__stat=f"inactive_file 5\ntotal_inactive_file {GIB}",
    )

    assert cgroup_available(str(version_1)) == 2 * GIB


def test_version_1_without_a_limit_has_none(version_1):
    write(
        version_1 / "sys/fs/cgroup/memory/docker/abc",
        memory__limit_in_bytes=9223372036854771712,
        memory__usage_in_bytes=GIB,
    )

    assert cgroup_available(str(version_1)) is None


def test_a_container_that_sees_the_hosts_path_finds_its_limit_at_the_mount_point(version_1):
    write(version_1 / "sys/fs/cgroup/memory", memory__limit_in_bytes=GIB, memory__usage_in_bytes=0)

    assert cgroup_available(str(version_1)) == GIB


@pytest.mark.parametrize(("machine", "available"), [(GIB, GIB), (8 * GIB, 3 * GIB)])
def test_the_lesser_of_machine_and_control_group_is_available(version_2, monkeypatch, machine, available):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=machine))
    write(version_2 / "sys/fs/cgroup/pod/job", memory__max=4 * GIB, memory__current=GIB)

    assert available_bytes(str(version_2)) == available


def test_the_machine_alone_binds_where_no_control_group_does(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GIB))

    assert available_bytes(str(tmp_path)) == GIB


def test_this_machine_has_something_available():
    assert available_bytes() > 0
