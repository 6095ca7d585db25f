"""`python -m fabric demo`, as users start it, and what it says when something is wrong."""

import os
import re
import signal
import subprocess
import sys

import pytest

from fabric.demo_output import Outcome, show_check, show_comparison
from fabric.survey import Report, Survey

DEMO = [sys.executable, "-m", "fabric", "demo"]
PATIENCE = 40

GOOD = {
    "top.py": "import os\n\ndef f():\n    return 1 if os else 2\n",
    "pkg/__init__.py": "",
    "pkg/one.py": "import os, re\n\nclass C:\n    def m(self):\n        for x in y:\n            pass\n",
    "pkg/deep/two.py": "from re import sub\nfrom . import three\n\nasync def g():\n    pass\n",
    "other/three.py": "x = [y for y in z if y if not y]\n",
}
BROKEN = {
    "pkg/syntax.py": b"def f(:\n",
    "pkg/old.py": b"print 'old'\n",
    "other/undecodable.py": b"x = '\xff'\n",
    "other/nul.py": b"\0",
}


@pytest.fixture
def tree(tmp_path):
    """Make a small tree with files that cannot be parsed or read."""
    for name, source in (GOOD | BROKEN).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(source if isinstance(source, bytes) else source.encode())
    (tmp_path / "other" / "loop.py").symlink_to("loop.py")
    (tmp_path / "\x1b[31m\udcff.py").touch()
    return tmp_path


def demo(*arguments, program=DEMO):
    return subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE)


def with_fault(code):
    """Return a command line for the demo with something wrong in the coordinator; workers import afresh."""
    script = f"import sys; from fabric import demo_run; from fabric.__main__ import main; {code}"
    return [sys.executable, "-c", f"{script}; sys.exit(main(['demo', *sys.argv[1:]]))"]


def test_the_demo_counts_a_tree_and_checks_its_totals(tree):
    done = demo(tree, "--plain", "--workers", 2)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {line.split("  ")[0]: line.split()[-6:] for line in done.stdout.splitlines()}
    assert rows["folder"] == ["files", "lines", "functions", "classes", "branches", "imports"]
    assert rows["(top level)"] == ["2", "4", "1", "0", "1", "1"]
    assert rows["pkg"] == ["5", "11", "2", "1", "1", "4"]
    assert rows["other"] == ["4", "1", "0", "0", "2", "0"]
    assert rows["all"] == ["11", "16", "3", "1", "4", "5"]
    assert done.stdout.endswith("check: totals equal those of a single-process pass (11 files)\n")


def test_the_demo_names_the_most_imported_modules_and_the_files_it_could_not_parse(tree):
    shown = demo(tree, "--plain", "--workers", 2).stdout

    assert re.search(r"\nos +2\nre +2\n", shown)
    assert "\nnot parsed: 5\n" in shown
    assert "  other/loop.py: Too many levels of symbolic links\n" in shown
    assert "  and 1 more\n" in shown
    assert "\nempty: 2\n  ?[31m?.py\n  pkg/__init__.py\n" in shown


def test_the_demo_prints_its_speed_beside_that_of_a_single_process(tree):
    shown = demo(tree, "--plain", "--workers", 1, "--wave-size", 5).stdout

    assert re.search(r"^spawned +15 agents in 3 waves, .* agents/s$", shown, re.MULTILINE)
    assert re.search(r"^messages +33 during the survey, .* messages/s", shown, re.MULTILINE)
    assert re.search(r"^fabric +[\d.]+ m?s on 1 worker \(start ", shown, re.MULTILINE)
    assert re.search(r"^one process +[\d.]+ ms: the fabric LOSES", shown, re.MULTILINE)
    assert "so few files are read before the workers have started; one worker does the same work" in shown


def test_without_the_check_there_is_no_single_process_pass(tree):
    done = demo(tree, "--no-check", "--plain")

    assert done.returncode == 0
    assert "one process" not in done.stdout
    assert "check:" not in done.stdout


def test_rich_and_plain_text_show_the_same_figures(tree):
    pytest.importorskip("rich")
    rich, plain = (demo(tree, "--no-check", *options).stdout.split("messages ")[0] for options in ([], ["--plain"]))

    assert "─" in rich
    assert plain.isascii()
    rich, plain = (re.sub(r"spawned.*", "", text) for text in (rich, plain))
    assert re.findall(r"[\w.]+", rich) == re.findall(r"[\w.]+", plain)


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        ("real = demo_run.survey; demo_run.survey = lambda *file: real(*file)._replace(classes=7)", "pkg: "),
        ("real = demo_run.survey_alone; demo_run.survey_alone = lambda files: real(files[1:])", "files that import os"),
        (
            "real = demo_run.survey; demo_run.survey = lambda *file: real(*file)._replace(lines=1)",
            "lines: asked agents",
        ),
    ],
)
def test_totals_that_differ_end_in_status_1_and_name_the_place(tree, fault, place):
    done = demo(tree, "--plain", program=with_fault(fault))

    assert done.returncode == 1
    assert "check: totals DIFFER from those of a single-process pass" in done.stdout
    assert f"\n  {place}" in done.stdout
    assert "Traceback" not in done.stderr


def _outcome(**changes):
    survey = Survey()
    survey.add("a", Report("a/x.py", lines=10))
    seconds = dict.fromkeys(("start", "spawn", "survey", "collect", "ask", "stop"), 0.5)
    whole = Outcome(survey, seconds, 5.0, workers=2, messages=3, asks=1, asked_lines=10, failures=[])
    return whole._replace(**changes), survey


def test_a_failed_message_fails_the_check(capsys):
    assert show_check(*_outcome())
    assert not show_check(*_outcome(failures=["agent 7 raised KeyError"]))
    assert "a message failed: agent 7 raised KeyError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "cpu", "workers", "verdict"),
    [
        (5.0, 5.0, 2, "5.00 s: the fabric is 2.00 times as fast\n"),
        (2.0, 5.0, 2, "2.00 s: the fabric LOSES, it takes 1.25 times as long\n"),
        (0.01, 5.0, 2, "so few files are read before the workers have started"),
        (2.4, 2.4, 1, "one worker does the same work, and the messages come on top"),
        (5.0, 1.0, 2, "other programs were busy too, the fabric got 0.4 of"),
    ],
)
def test_the_comparison_says_who_won_and_why(capsys, seconds, cpu, workers, verdict):
    outcome, _ = _outcome(cpu_seconds=cpu, workers=workers)
    show_comparison(outcome, seconds, cpu)

    assert verdict in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "there is no "),
        (lambda path: path.symlink_to(path), "there is no "),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), "no file in it or below ends in .py"),
        (lambda path: (path / ".git").mkdir(parents=True) or (path / ".git/x.py").touch(), "no file in it"),
    ],
    ids=["missing", "loop", "file", "empty", "hidden"],
)
def test_a_path_with_nothing_to_survey_is_refused_in_one_line(tmp_path, make, complaint):
    path = tmp_path / "x\x1b"
    make(path)
    done = demo(path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("python -m fabric demo: ")
    assert complaint in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--workers", "two"], ["--wave-size", "-1"], ["a", "b"]])
def test_wrong_options_are_refused(arguments):
    done = demo(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_demo_quietly(tree):
    with subprocess.Popen([*DEMO, str(tree)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        _, errors = process.communicate(timeout=PATIENCE)

    assert errors == ""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("moment", "presses"),
    [("spawned", 1), ("spawned", 3), ("fabric", 1)],
    ids=["in the survey", "in the survey, impatiently", "in the check"],
)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the process", "from a terminal"])
def test_one_interrupt_ends_it_all_without_a_traceback(moment, send, presses):
    command = [sys.executable, "-u", *DEMO[1:], "--plain"]  # the standard library, which takes seconds
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **streams) as process:
        assert any(line.startswith(moment) for line in process.stdout)
        for _ in range(presses):
            send(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)  # the ends of the pipes are with its workers too

    assert process.returncode == 130
    dropped = r"(\d[\d,]* messages were dropped: they were not handled when the fabric was closed\n)?"
    assert re.fullmatch(dropped + r"\npython -m fabric: interrupted\n", errors)
    assert "check:" not in rest
