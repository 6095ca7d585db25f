"""`python -m fabric doctor`: what it says of a machine that lacks something."""

import errno
import os
import platform
import re
import resource
import subprocess
import sys

import pytest

from fabric import doctor

PATIENCE = 50
LIMITED = (
    "import resource as r, sys; r.setrlimit(r.{0}, ({1},) * 2); from fabric.__main__ import main; sys.exit(main())"
)


def run_doctor(*program):
    program = program or (sys.executable, "-m", "fabric")
    return subprocess.run([*program, "doctor"], capture_output=True, text=True, timeout=PATIENCE)


UNBUILT = "import sys; sys.modules['fabric._native'] = None; from fabric.__main__ import main; sys.exit(main())"


def refuse(*_):
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_machine_that_runs_these_tests_has_no_problem():
    done = run_doctor()

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for subject in (*doctor._CHECKS, "start, spawn", "start, forkserver", "round trip", "messages"):
        assert re.search(rf"^(ok|warning) +{subject}  ", done.stdout, re.MULTILINE), subject
    assert re.search(r"[\d.]+ µs, the median of 2,000 asks", done.stdout)
    assert re.search(r"[\d,]+ k/s, 64 bytes asked of 1,000 agents", done.stdout)
    assert done.stdout.splitlines()[-1].startswith("no problems, ")


@pytest.mark.parametrize(
    ("limit", "value", "subject"),
    [("RLIMIT_NOFILE", 20, "descriptor limit"), ("RLIMIT_AS", 2 * 2**30, "address space")],
)
def test_a_limit_that_is_too_low_is_a_problem_and_no_traceback(limit, value, subject):
    done = run_doctor(sys.executable, "-c", LIMITED.format(limit, value))

    assert done.returncode == 1
    assert f"problem  {subject}" in done.stdout
    assert done.stdout.splitlines()[-4].split() == ["warning", "start", "not", "tried"]
    assert done.stderr == ""


def test_a_library_without_its_c_core_is_named_in_one_line():
    done = run_doctor(sys.executable, "-c", UNBUILT)

    assert done.returncode == 1
    assert re.fullmatch(r"python -m fabric doctor: .*fabric\._native.*pip install .*\n", done.stderr)


@pytest.mark.parametrize(
    ("target", "name", "check"),
    [
        (os, "memfd_create", doctor.check_memfd),
        (os, "pidfd_open", doctor.check_pidfd),
        (os, "eventfd", doctor.check_eventfd),
    ],
)
def test_what_the_kernel_refuses_or_python_lacks_is_a_problem(monkeypatch, target, name, check):
    assert check() == doctor.Finding("ok", name, "works")
    monkeypatch.setattr(target, name, refuse)
    assert check()[:3] == ("problem", name, "refused: Operation not permitted")
    assert check().advice
    monkeypatch.delattr(target, name)
    assert check()[:3] == ("problem", name, "not in this Python")


@pytest.mark.parametrize(
    ("release", "level"),
    [("5.2.9-generic", "problem"), ("5.3", "ok"), ("5.10-rc1", "ok"), ("6.1.0+", "ok"), ("3.10.0-957.el7", "problem")],
)
def test_an_old_kernel_is_a_problem(monkeypatch, release, level):
    monkeypatch.setattr(platform, "release", lambda: release)

    assert doctor.check_kernel().level == level


def test_another_system_is_a_problem(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Plan9")

    assert doctor.check_kernel().level == "problem"


@pytest.mark.parametrize(("implementation", "level"), [("CPython", "ok"), ("PyPy", "warning")])
def test_another_python_is_a_warning(monkeypatch, implementation, level):
    monkeypatch.setattr(platform, "python_implementation", lambda: implementation)

    assert doctor.check_python().level == level


@pytest.mark.parametrize(
    ("check", "facts", "level", "found"),
    [
        (doctor.check_cores, {"usable_cpus": 1}, "warning", "1 of "),
        (doctor.check_cores, {"usable_cpus": 8}, "ok", "8 of "),
        (doctor.check_memory, {"available_bytes": 2**20}, "warning", "1.0 MiB available"),
        (doctor.check_memory, {"available_bytes": 2**40}, "ok", "1.0 TiB available"),
        (doctor.check_groups, {"cpu_quota": None, "cgroup_available": None}, "ok", "no CPU limit, no memory limit"),
        (doctor.check_groups, {"cpu_quota": 0.5, "cgroup_available": None}, "warning", "0.5 CPUs' time"),
        (doctor.check_groups, {"cpu_quota": None, "cgroup_available": 2**20}, "warning", "1.0 MiB of memory left"),
    ],
)
def test_little_of_something_is_a_warning(monkeypatch, check, facts, level, found):
    for name, value in facts.items():
        monkeypatch.setattr(doctor, name, lambda value=value: value)
    finding = check()

    assert finding.level == level
    assert found in finding.found
    assert bool(finding.advice) == (level != "ok")


@pytest.mark.parametrize(("load", "level"), [(0.1, "ok"), (9.0, "warning")])
def test_a_busy_machine_is_a_warning(monkeypatch, load, level):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(doctor, "usable_cpus", lambda: 2)

    assert doctor.check_load().level == level


def test_a_low_descriptor_limit_says_how_to_raise_it(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 4_096))
    assert re.fullmatch(r"raise it \(ulimit -n \d+\), or .*", doctor.check_descriptors().advice)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    assert "a higher hard limit" in doctor.check_descriptors().advice


def test_a_missing_dev_shm_is_fine(monkeypatch):
    monkeypatch.setattr(os, "statvfs", refuse)

    assert doctor.check_dev_shm() == ("ok", "/dev/shm", "none, and not needed: segments are anonymous", "")


def test_a_check_that_fails_itself_is_a_problem_and_the_others_follow(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_CHECKS", {"first": refuse, "second": doctor.check_eventfd})

    assert doctor.run() == 1
    assert capsys.readouterr().out.splitlines() == [
        "problem  first              PermissionError: [Errno 1] Operation not permitted",
        "                            -> this should work: see the lines above for the reason",
        "ok       eventfd            works",
        "warning  start              not tried",
        "                            -> mend the problems above first",
        "",
        "1 problem, 1 warning",
    ]


def test_a_fabric_that_does_not_start_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "_start", refuse)
    findings = list(doctor._fabric_findings())

    assert [finding.subject for finding in findings] == ["start, spawn", "start, forkserver"]
    assert {finding.level for finding in findings} == {"problem"}
