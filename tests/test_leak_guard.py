"""The guard of conftest.py can fail: a session of its own, in which each test leaves one thing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).with_name("conftest.py")

LEAKS = {  # kind: what a test does, and what the guard says of it
    "child": ("kept.append(subprocess.Popen(['sleep', '9']))", "sleeping, sleep 9"),
    "orphan": ("subprocess.run(['sh', '-c', 'sleep 8 &'])", "sleeping, sleep 8"),
    "zombie": ("kept.append(os.posix_spawn('/bin/true', ['true'], os.environ))", "zombie, true"),
    "thread": ("Thread(target=Event().wait, name='forgotten', daemon=True).start()", "forgotten"),
    "descriptor": ("os.eventfd(0)", "[eventfd]: still open"),
    "mapping": ("kept.append(mapped_memfd())", "still mapped, /memfd:lane"),
    "file": ("kept.append(tempfile.NamedTemporaryFile(dir='/dev/shm', prefix='lane-'))", "/dev/shm/lane-"),
}
PREAMBLE = """
import mmap, os, subprocess, tempfile
from threading import Event, Thread
kept = []
def mapped_memfd():
    fd = os.memfd_create("lane")
    os.truncate(fd, 4096)
    try:
        return mmap.mmap(fd, 4096)
    finally:
        os.close(fd)
"""
CLEAN = "t = Thread(target=int); t.start(); t.join(); subprocess.run('true'); os.close(os.eventfd(0))"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Run the leaking tests under the guard; return what pytest says of each, by kind."""
    folder = tmp_path_factory.mktemp("leaks")
    guard = GUARD.read_text(encoding="utf-8")
    hasty = re.sub(r"^SETTLE_SECONDS = .*$", "SETTLE_SECONDS = 0.2", guard, flags=re.MULTILINE)
    assert hasty != guard
    leaks = {kind: body for kind, (body, _) in LEAKS.items()}
    bodies = {"clean": CLEAN, **leaks, "at_the_end": "pass"}  # at which the session's guard looks
    tests = PREAMBLE + "".join(f"def test_{kind}():\n    {body}\n" for kind, body in bodies.items())
    (folder / "conftest.py").write_text(hasty, encoding="utf-8")
    (folder / "test_leaks.py").write_text(tests, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "test_leaks.py"]
    output = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout
    assert f"{len(bodies)} passed" in output, output
    sections = re.split(r"_+ ERROR at teardown of test_(\w+) _+", output)
    return dict(zip(sections[1::2], sections[2::2], strict=True))


@pytest.mark.parametrize("kind", LEAKS)
def test_the_guard_names_what_a_test_leaves(kind, reports):
    assert LEAKS[kind][1] in reports[kind]


def test_the_guard_is_content_with_a_test_that_cleans_up(reports):
    assert "clean" not in reports


def test_the_guard_of_the_session_names_what_is_left_at_its_end(reports):
    assert all(said in reports["at_the_end"] for _, said in LEAKS.values())
