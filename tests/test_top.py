"""`python -m fabric top`, as users start it: in a terminal with keys, in a pipe, and on what cannot be watched."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest

from fabric import Monitor, attaching
from fabric.top_view import View
from fabric.wording import rate, share, size, span, sparkline
from tests.waiting import until
from tests.watching import PATIENCE, ROOT, watched

TOP = [sys.executable, "-m", "fabric", "top"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOTHING = subprocess.DEVNULL
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


def top(*arguments, **options):
    """Run it to its end, not in a terminal."""
    command = [*TOP, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, **options
    )


class Terminal:
    """A terminal in which it runs."""

    def __init__(self, process, end):
        self.process = process
        self._end = end
        self.seen = ""

    def hit(self, keys):
        """Hit keys."""
        os.write(self._end, keys.encode())

    def wait_for(self, text, since=0):
        """Wait until a text is shown after that place; return all that was shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in ESCAPE.sub("", self.seen[since:]):
            assert time.monotonic() < deadline, f"{text!r} was never shown:\n{ESCAPE.sub('', self.seen[-4000:])}"
            if not self._read():
                assert text in ESCAPE.sub("", self.seen[since:]), f"it ended without {text!r}: {self.seen[-2000:]}"
        return self.seen

    def wait_ended(self):
        """Wait for its end; return its exit status."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def modes(self):
        """The modes of the terminal."""
        return termios.tcgetattr(self._end)

    def _read(self):
        if not select.select([self._end], [], [], PATIENCE)[0]:
            raise AssertionError("nothing is shown any more")
        try:
            read = os.read(self._end, 65536)
        except OSError:  # its other end is closed
            read = b""
        self.seen += read.decode("utf-8", "replace")
        return read


@contextmanager
def terminal(*arguments, columns=140, lines=40, **variables):
    """Run it in a terminal of this size."""
    end, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    process = subprocess.Popen(
        [*TOP, *map(str, arguments)],
        cwd=ROOT,
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment,
        start_new_session=True,
    )
    os.close(other)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)


@pytest.fixture(scope="module")
def program():
    """A program with a fabric, shared by those who only look."""
    with watched() as made:
        made.do("ask 20")
        yield made


# Once.


def test_once_prints_a_line_for_each_worker_and_leaves(program):
    done = top(program.pid, "--once", "--interval", 0.1)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"shm-fabric  process {program.pid}" in done.stdout
    assert re.search(r"^ +worker +pid  state +agents  messages/s", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^ +[12] +\d+  (?:idle|running) ", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^  Echo +\S.* 200 ", done.stdout, re.MULTILINE)


def test_once_as_json_has_the_figures_of_the_coordinator_and_who_waits(program):
    done = top(program.pid, "--once", "--json", "--interval", 0.1)
    found, own = json.loads(done.stdout), program.do("read")

    assert (done.returncode, done.stderr) == (0, "")
    assert (found["pid"], found["alive"]) == (program.pid, True)
    assert [one["messages"] for one in found["workers"]] == [one["messages"] for one in own["workers"]]
    assert found["coordinator"]["round_trip"] == own["coordinator"]["round_trip"]
    assert [one for one in found["waits"]["lanes"] if one["target"]] == []
    assert [one["slot"] for one in found["waits"]["workers"]] == [1, 2]
    assert 0.1 <= found["interval"] < PATIENCE
    assert set(found["usage"]) == {str(one["pid"]) for one in (found["coordinator"], *found["workers"])}


def test_without_a_pid_processes_that_run_a_fabric_are_found(program, tmp_path):
    assert program.pid in dict(attaching.running())
    with watched() as other:
        done = top("--once")
        assert done.returncode == 1
        assert "several processes run a fabric, name one:\n" in done.stderr
        assert re.search(rf"^  {other.pid}  .*tests\.watched", done.stderr, re.MULTILINE)
        workers = [worker["pid"] for worker in other.do("read")["workers"]]
        assert dict(attaching.running()).keys().isdisjoint(workers)


# In a terminal.


@pytest.mark.parametrize("options", [[], ["--plain"]], ids=["rich", "plain"])
@pytest.mark.parametrize("columns", [80, 140])
def test_a_terminal_shows_the_workers_and_its_stack_and_quits_by_keys(program, options, columns):
    with terminal(program.pid, "--interval", "0.1", *options, columns=columns) as shown:
        shown.wait_for("q quit")
        modes = shown.modes()
        shown.hit("s")
        shown.wait_for("most recent call first")
        at = len(shown.seen)
        shown.hit(" ")
        shown.wait_for("who waits for whom", at)
        shown.hit("q")
        assert shown.wait_ended() == 0

    lines = ESCAPE.sub("", shown.seen.rpartition(LEAVE)[2]).strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("stopped watching: 200 messages handled, 0 errors, 0 restarts; watched for ")
    assert shown.seen.count(ENTER) == shown.seen.count(LEAVE) == 1
    assert not modes[3] & termios.ICANON
    frames = [ESCAPE.sub("", line) for line in shown.seen.partition(LEAVE)[0].replace("\x1b[H", "\r\n").split("\r\n")]
    assert max(len(line.rstrip("\r")) for line in frames) <= columns
    assert ("\x1b[1m" in shown.seen) == (not options)


def test_without_rich_it_is_plain(program, tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('not installed')\n")
    with terminal(program.pid, "--interval", "0.1", PYTHONPATH=str(tmp_path)) as shown:
        shown.wait_for("q quit")
        shown.hit("q")
        assert shown.wait_ended() == 0
    assert "\x1b[1m" not in shown.seen
    assert "stopped watching" in shown.seen


def test_a_terminal_that_is_gone_ends_it(program):
    end, other = pty.openpty()
    process = subprocess.Popen(
        [*TOP, str(program.pid), "--interval", "0.05"], cwd=ROOT, stdin=other, stdout=other, stderr=NOTHING
    )
    os.close(other)
    os.read(end, 100)
    os.close(end)
    try:
        assert process.wait(PATIENCE) != 0
    finally:
        process.kill()
        process.wait()


def test_keys_sort_choose_and_pause(program):
    with terminal(program.pid, "--interval", "0.05", "--plain") as shown:
        shown.wait_for("q quit")
        shown.hit("p")
        shown.wait_for("PAUSED")
        shown.hit("jj")
        at = len(shown.seen)
        shown.hit("w")
        shown.wait_for(">      2", at)
        shown.hit("s")
        shown.wait_for("worker 2, the innermost call first")
        shown.hit("qq")
        assert shown.wait_ended() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_it_with_the_terminal_restored(program, number, status):
    with terminal(program.pid, "--interval", "0.1") as shown:
        shown.wait_for("q quit")
        shown.process.send_signal(number)
        assert shown.wait_ended() == status
    assert shown.seen.count(ENTER) == shown.seen.count(LEAVE) == 1
    assert "Traceback" not in shown.seen


@pytest.mark.parametrize("how", ["close", "kill"])
def test_it_ends_with_the_fabric(how):
    with watched() as program:
        program.do("ask 3")
        with terminal(program.pid, "--interval", "0.1") as shown:
            shown.wait_for("q quit")
            if how == "close":
                program.do("close")
            else:
                program.process.kill()
            assert shown.wait_ended() == 0
        ending = "has closed its fabric" if how == "close" else "has ended"
        assert f"process {program.pid} {ending}: 30 messages handled, 0 errors" in shown.seen.rpartition(LEAVE)[2]


def test_in_a_pipe_it_prints_frames_and_ends_with_the_fabric():
    with watched() as program:
        command = [*TOP, str(program.pid), "--interval", "0.1"]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            until(lambda: "who waits for whom" in process.stdout.readline())
            program.process.kill()
            rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert rest.splitlines()[-1].startswith(f"process {program.pid} has ended: 0 messages handled")
        assert "\x1b" not in rest


def test_json_goes_on_until_the_fabric_ends():
    with watched() as program:
        command = [*TOP, str(program.pid), "--json", "--interval", "0.1"]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert json.loads(process.stdout.readline())["alive"]
            program.process.kill()
            rest, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert not json.loads(rest.splitlines()[-1])["alive"]


# Bad input.


def test_what_cannot_be_watched_is_said_in_one_line(program):
    worker = program.do("read")["workers"][0]["pid"]
    for pid, text in (
        (2**22 + 1, "ProcessLookupError: there is no process"),
        (os.getpid(), "runs no fabric"),
        (worker, f"is worker 1 of the fabric that process {program.pid} runs: python -m fabric top {program.pid}"),
    ):
        done = top(pid, "--once")
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_fabric_is_refused(program):
    process = subprocess.Popen(["sleep", "60"], user=65534)
    try:
        done = top(process.pid, "--once")
        assert done.returncode == 1
        assert "PermissionError" in done.stderr
        assert "only who runs a fabric may watch it" in done.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "arguments",
    [
        ["x"],
        ["0"],
        ["-5"],
        ["1", "--interval", "0"],
        ["1", "--interval", "nan"],
        ["1", "--index", "-1"],
        ["1", "--identity", "x"],
    ],
)
def test_a_wrong_argument_is_a_wrong_call(arguments):
    done = top(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# What is shown.


def test_columns_that_do_not_fit_are_left_out_and_no_line_is_longer_than_the_width(program):
    view = View("a program", 1.0)
    with Monitor(program.pid) as monitor:
        for _ in range(2):
            view.take(monitor.sample(), monitor.waits())
    titles = {}
    for width in (60, 80, 100, 140, 200):
        lines = ["".join(text for text, _ in line) for line in view.lines(width)]
        assert max(map(len, lines)) <= width
        titles[width] = next(line for line in lines if "messages/s" in line and "state" in line).split()
    assert {"worker", "pid", "state", "messages/s", "queue", "p99", "CPU"} <= set(titles[80])
    assert len(titles[80]) < len(titles[140]) <= len(titles[200])


def test_what_does_not_fit_the_height_is_counted(program):
    view = View("a program", 1.0)
    with Monitor(program.pid) as monitor:
        view.take(monitor.sample(), monitor.waits())
    for height in (8, 12, 16, 20, 40):
        assert len(view.lines(100, height)) <= height
    shown = ["".join(text for text, _ in line) for line in view.lines(100, 16)]
    assert len([line for line in shown if " idle " in line]) == 2


@pytest.mark.parametrize(
    ("word", "value", "text"),
    [
        (rate, 0, "0"),
        (rate, 0.5, "0.5"),
        (rate, 950, "950"),
        (rate, 8123, "8.1 k"),
        (rate, 81_234, "81 k"),
        (rate, 999_999, "1.0 M"),
        (size, 0, "0 B"),
        (size, 1_234_567, "1.2 MB"),
        (span, 0, "-"),
        (span, 4.4e-6, "4.4 µs"),
        (span, 0.012, "12 ms"),
        (span, 59.99, "1:00"),
        (span, 3723, "1:02:03"),
        (share, 0.126, "13%"),
    ],
)
def test_figures_are_worded_short(word, value, text):
    assert word(value) == text


def test_a_sparkline_goes_from_zero_to_its_largest_value():
    assert sparkline([9, 0, 1, 2, 4], 4) == "▁▃▅█"
    assert sparkline([0, 0], 5) == "▁▁"
    assert sparkline([], 5) == ""
    assert sparkline([1, 2], 5, plain=True).isascii()
