import dataclasses
import math
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.config import FabricConfig, cgroup_folders, cpu_quota, usable_cpus

WHOLE = [
    "workers",
    "max_workers",
    "threads_per_worker",
    "max_agents",
    "batch_size",
    "max_restarts",
    "max_attempts",
    "arena_threshold",
]
POWERS_OF_TWO = {
    "lane_bytes": 64 * 1024,
    "peer_lane_bytes": 16 * 1024,
    "control_lane_bytes": 16 * 1024,
    "outbox_bytes": 64 * 1024,
    "journal_bytes": 64 * 1024,
}
DURATIONS = ["target_queueing", "metrics_interval", "restart_window", "handler_timeout", "stopped_timeout"]
MAYBE_ZERO = ["spin_us", "publish_after_us", "arena_timeout"]
CHOICES = ["start_method", "encoding", "on_crash"]
FLAGS = ["forward_logs", "capture_output", "allow_pickle", "drain", "metrics"]
OPTIONAL = ["workers", "max_workers", "threads_per_worker", "handler_timeout", "stopped_timeout"]
ALL = [*WHOLE, *POWERS_OF_TWO, "arena_bytes", "snapshot_every", "preload", *DURATIONS, *MAYBE_ZERO, *CHOICES, *FLAGS]


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_every_setting_is_listed_in_these_tests():
    assert sorted(ALL) == sorted(field.name for field in dataclasses.fields(FabricConfig))


def test_the_defaults_are_those_of_the_design():
    config = FabricConfig()

    assert (config.lane_bytes, config.peer_lane_bytes, config.control_lane_bytes) == (2**23, 2**18, 2**16)
    assert (config.outbox_bytes, config.arena_bytes, config.max_agents) == (2**23, 2**30, 2**21)
    assert (config.workers, config.max_workers, config.batch_size) == (None, None, 256)
    assert (config.start_method, config.encoding, config.on_crash) == ("forkserver", "pickle", "retry")


def test_a_config_is_frozen_and_has_no_room_for_other_names():
    config = FabricConfig()

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.batch_size = 1
    assert not hasattr(config, "__dict__")


def test_a_config_survives_pickling():
    config = FabricConfig(workers=3, encoding="json", handler_timeout=1.5)

    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("name", [*WHOLE, *POWERS_OF_TWO, "arena_bytes"])
@pytest.mark.parametrize("value", [True, 65536.0, "65536", b"1"])
def test_a_size_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=rf"^{name}=.*{type(value).__name__}.*give it"):
        FabricConfig(**{name: value})


@pytest.mark.parametrize("name", [name for name in ALL if name not in OPTIONAL])
def test_none_is_refused_where_it_has_no_meaning(name):
    with pytest.raises(TypeError, match=rf"^{name}=None"):
        FabricConfig(**{name: None})


@pytest.mark.parametrize("name", OPTIONAL)
def test_none_is_taken_where_it_has_a_meaning(name):
    assert getattr(FabricConfig(**{name: None}), name) is None


@pytest.mark.parametrize("name", [*WHOLE, *POWERS_OF_TWO, "arena_bytes", *DURATIONS, *MAYBE_ZERO])
def test_a_negative_setting_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"^{name}=-1 was asked for, but only .* is allowed; "):
        FabricConfig(**{name: -1})


@pytest.mark.parametrize("name", ["workers", "max_workers", "max_agents", "batch_size", "max_attempts"])
def test_zero_is_refused_where_one_is_the_least(name):
    with pytest.raises(ValueError, match=rf"^{name}=0 "):
        FabricConfig(**{name: 0})


@pytest.mark.parametrize(("name", "value"), [("batch_size", 1025), ("max_agents", 2**31 + 1)])
def test_a_setting_over_its_most_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value} .* to {value - 1} is allowed"):
        FabricConfig(**{name: value})
    assert getattr(FabricConfig(**{name: value - 1}), name) == value - 1


@pytest.mark.parametrize(("name", "least"), POWERS_OF_TWO.items())
def test_a_lane_is_a_power_of_two_from_its_least_size_on(name, least):
    assert getattr(FabricConfig(**{name: least}), name) == least
    for value in (0, least // 2, least - 1, least + 1, 3 * least):
        with pytest.raises(ValueError, match=rf"^{name}={value} .*power of two, {least} bytes or more"):
            FabricConfig(**{name: value})


@given(st.integers(min_value=-(2**70), max_value=2**70))
def test_a_lane_size_is_taken_exactly_when_it_is_a_large_enough_power_of_two(value):
    right = value >= 2**16 and math.log2(value).is_integer() and 2 ** int(math.log2(value)) == value
    try:
        taken = FabricConfig(lane_bytes=value).lane_bytes == value
    except ValueError:
        taken = False

    assert taken == right


def test_arenas_are_whole_pages_and_may_be_left_out():
    assert FabricConfig(arena_bytes=0).arena_bytes == 0
    assert FabricConfig(arena_bytes=4096 * 3).arena_bytes == 4096 * 3
    with pytest.raises(ValueError, match=r"^arena_bytes=4097 .*multiple of 4096"):
        FabricConfig(arena_bytes=4097)


@pytest.mark.parametrize("name", [*DURATIONS, *MAYBE_ZERO])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_duration_must_be_finite(name, value):
    with pytest.raises(ValueError, match=rf"^{name}={value} "):
        FabricConfig(**{name: value})


@pytest.mark.parametrize("name", [*DURATIONS, *MAYBE_ZERO])
@pytest.mark.parametrize("value", [True, "1", 1j])
def test_a_duration_of_the_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=rf"^{name}="):
        FabricConfig(**{name: value})


@pytest.mark.parametrize("name", DURATIONS)
def test_a_duration_of_zero_is_refused_where_it_has_no_meaning(name):
    with pytest.raises(ValueError, match=rf"^{name}=0 .*over 0"):
        FabricConfig(**{name: 0})


@pytest.mark.parametrize("name", MAYBE_ZERO)
def test_zero_microseconds_turn_spinning_and_late_publishing_off(name):
    assert getattr(FabricConfig(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_is_not_offered_is_refused_with_those_that_are(name):
    default = getattr(FabricConfig(), name)
    with pytest.raises(ValueError, match=rf"^{name}='fork' .*'{default}'"):
        FabricConfig(**{name: "fork"})
    with pytest.raises(TypeError, match=rf"^{name}=1 "):
        FabricConfig(**{name: 1})


@pytest.mark.parametrize(("value", "error"), [("numpy", TypeError), (["numpy"], TypeError), ((1,), ValueError)])
def test_what_is_preloaded_is_a_tuple_of_names(value, error):
    with pytest.raises(error, match=r"preload=.* a tuple of names of modules"):
        FabricConfig(preload=value)


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_a_bool_and_nothing_like_it(name):
    with pytest.raises(TypeError, match=rf"^{name}=1 .*True or False"):
        FabricConfig(**{name: 1})


def test_refusing_pickles_needs_the_json_encoding():
    with pytest.raises(ValueError, match=r'allow_pickle=False.*encoding="json"'):
        FabricConfig(allow_pickle=False)
    assert not FabricConfig(allow_pickle=False, encoding="json").allow_pickle


def test_more_workers_than_there_may_be_is_a_contradiction():
    with pytest.raises(ValueError, match="workers=5 is more than max_workers=4"):
        FabricConfig(workers=5, max_workers=4)


def test_replace_changes_a_copy_and_checks_it():
    config = FabricConfig()

    assert config.replace(batch_size=8, workers=2) == FabricConfig(batch_size=8, workers=2)
    assert config == FabricConfig()
    with pytest.raises(ValueError, match="batch_size=0"):
        config.replace(batch_size=0)


def test_replace_answers_an_unknown_name_with_near_ones():
    with pytest.raises(TypeError, match=r"no setting 'lane_byte'; did you mean lane_bytes"):
        FabricConfig().replace(lane_byte=65536)
    with pytest.raises(TypeError, match=r"no setting 'zzz'; there are workers, max_workers, "):
        FabricConfig().replace(zzz=1)


@pytest.mark.parametrize(
    ("workers", "max_workers", "cpus", "expected"),
    [
        (None, None, 2, (2, 8)),
        (None, None, 16, (16, 64)),
        (None, None, 32, (32, 64)),
        (None, None, 128, (128, 128)),
        (None, 3, 8, (3, 3)),
        (None, 9, 8, (8, 9)),
        (5, None, 1, (5, 5)),
        (5, None, 2, (5, 8)),
        (5, 6, 1, (5, 6)),
    ],
)
def test_worker_counts_settle_what_was_left_open(workers, max_workers, cpus, expected):
    assert FabricConfig(workers=workers, max_workers=max_workers).worker_counts(cpus) == expected


def test_worker_counts_follow_this_machine_by_default():
    assert FabricConfig().worker_counts()[0] == usable_cpus()


@pytest.fixture
def sixteen_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


@pytest.mark.usefixtures("sixteen_cpus")
@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("9900000 100000", 16),
        ("", 16),
        ("nonsense", 16),
        ("100000 0", 16),
    ],
)
def test_a_quota_of_control_groups_v2_is_rounded_up_and_bounds_the_cpus(tmp_path, quota, cpus):
    write(tmp_path / "proc/self", cgroup="0::/user/job")
    write(tmp_path / "sys/fs/cgroup/user/job", cpu__max=quota)

    assert usable_cpus(str(tmp_path)) == cpus


@pytest.mark.usefixtures("sixteen_cpus")
@pytest.mark.parametrize(("quota", "cpus"), [("-1", 16), ("250000", 3), ("50000", 1)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_control_groups_v1_bounds_the_cpus_under_either_mount(tmp_path, quota, cpus, mount):
    write(tmp_path / "proc/self", cgroup="5:memory:/job\n4:cpu,cpuacct:/job\n0::/")
    write(tmp_path / f"sys/fs/cgroup/{mount}/job", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")

    assert usable_cpus(str(tmp_path)) == cpus


@pytest.mark.usefixtures("sixteen_cpus")
def test_the_tightest_quota_on_the_way_up_binds(tmp_path):
    write(tmp_path / "proc/self", cgroup="0::/pod/job")
    write(tmp_path / "sys/fs/cgroup/pod/job", cpu__max="max 100000")
    write(tmp_path / "sys/fs/cgroup/pod", cpu__max="350000 100000")
    write(tmp_path / "sys/fs/cgroup", cpu__max="800000 100000")

    assert cpu_quota(str(tmp_path)) == 3.5
    assert usable_cpus(str(tmp_path)) == 4


def test_a_container_that_sees_the_hosts_path_finds_its_quota_at_the_mount_point(tmp_path):
    write(tmp_path / "proc/self", cgroup="4:cpu,cpuacct:/docker/0123abcd")
    write(tmp_path / "sys/fs/cgroup/cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="50000")

    assert cpu_quota(str(tmp_path)) == 2


def test_a_group_outside_of_the_namespace_cannot_lead_out_of_the_mount(tmp_path):
    write(tmp_path / "proc/self", cgroup="0::/../../other")

    top = f"{tmp_path}/sys/fs/cgroup"
    assert cgroup_folders("cpu", str(tmp_path)) == [
        f"{top}/other",
        top,
        f"{top}/unified/other",
        f"{top}/unified",
    ]


@pytest.mark.usefixtures("sixteen_cpus")
def test_in_a_worker_no_more_cpus_are_usable_than_are_its_part(tmp_path, monkeypatch):
    monkeypatch.setenv("SHM_FABRIC_CPUS", "3 OMP_NUM_THREADS")

    assert usable_cpus(str(tmp_path)) == 3
    assert FabricConfig().worker_counts()[0] <= 3


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(str(tmp_path)) is None
    assert usable_cpus(str(tmp_path)) == len(os.sched_getaffinity(0))
