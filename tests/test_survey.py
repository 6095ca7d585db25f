"""What is counted in a file, how counts add up, and which files are found."""

import gc
import os
import random

import pytest

from fabric.survey import TOP, Report, Survey, Tally, Totals, find_modules, survey

SAMPLE = b"""\
import os, os.path
from collections import abc, Counter
from . import sibling
from ..up import other

class Outer:
    def method(self):
        def nested():
            return lambda: None
        return nested

    class Inner:
        async def coroutine(self):
            import json
"""


@pytest.fixture
def surveyed(tmp_path):
    """Survey a source text."""

    def survey_text(source):
        path = tmp_path / "file.py"
        path.write_bytes(source)
        return survey(str(path), "file.py")

    return survey_text


def test_a_report_counts_functions_classes_imports_and_lines(surveyed):
    assert surveyed(SAMPLE) == Report(
        "file.py",
        lines=14,
        functions=3,
        classes=2,
        branches=0,
        imports=6,
        imported=("os", "collections", "json"),
    )


@pytest.mark.parametrize(
    ("source", "branches"),
    [
        ("if a:\n  pass\nelif b:\n  pass\nelse:\n  pass", 2),
        ("x = 1 if a else 2", 1),
        ("for x in y:\n  pass\nelse:\n  pass", 1),
        ("while x:\n  pass", 1),
        ("async def f():\n  async for x in y:\n    pass", 1),
        ("try:\n  pass\nexcept A:\n  pass\nexcept B:\n  pass\nelse:\n  pass\nfinally:\n  pass", 2),
        ("try:\n  pass\nexcept* A:\n  pass", 1),
        ("match x:\n  case 1:\n    pass\n  case True:\n    pass\n  case _:\n    pass", 3),
        ("[x for x in y if a if b]", 2),
        ("{x: x for x in y}", 0),
        ("with a:\n  assert b and c or d", 0),
        ("def f(x=1 if a else 2, *, y=(3 if b else 4)) -> (5 if c else 6): pass", 3),
        ("@d(1 if a else 2)\nclass C(B, m=3 if b else 4): pass", 2),
        ("f'{1 if a else 2:{3 if b else 4}}'", 2),
        ("lambda: 1 if a else 2", 1),
    ],
)
def test_branches_are_where_the_way_parts(surveyed, source, branches):
    report = surveyed(source.encode())

    assert report.problem == ""
    assert report.branches == branches


@pytest.mark.parametrize(
    ("source", "lines"),
    [(b"", 0), (b"x", 1), (b"x\n", 1), (b"x\r\ny\r\n", 2), (b"\n\n", 2), (b"# \xc3\xa9\n'''\n'''", 3)],
)
def test_lines_count_with_or_without_a_last_newline(surveyed, source, lines):
    assert surveyed(source) == Report("file.py", lines=lines)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"x = 1\ndef\n", "invalid syntax (line 2)"),
        (b"print 'old'", "Missing parentheses"),
        (b"x = '\xff'", "utf-8"),
        (b"# coding: klingon\n", "klingon"),
        (b"x = 1\0", "null bytes"),
        (b"(" * 500, "too many nested parentheses"),
        (b"-" * 100_000 + b"1", ""),
        (b"x" + b".x" * 100_000, ""),
        (b"x = [" + b"[], " * 10 + b"\n", "'[' was never closed"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_reported_with_the_reason(surveyed, source, problem):
    report = surveyed(source)

    assert problem in report.problem
    assert report == Report("file.py", problem=report.problem or "none")


def test_a_file_that_cannot_be_read_is_reported_with_the_reason(tmp_path):
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "nowhere.py").symlink_to("missing")
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    with open(tmp_path / "huge.py", "wb") as file:
        file.truncate(2**40)
    problems = {path.name: survey(str(path), path.name).problem for path in tmp_path.iterdir()}

    assert problems == {
        "loop.py": "Too many levels of symbolic links",
        "nowhere.py": "No such file or directory",
        "folder.py": "not a regular file",
        "pipe.py": "not a regular file",
        "huge.py": "over 32 MiB",
    }


def test_a_file_without_permission_is_reported(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)

    assert survey(__file__, "me").problem == "Permission denied"


def test_warnings_about_the_surveyed_code_are_not_ours(surveyed):
    assert surveyed(rb"x = '\d' is 1") == Report("file.py", lines=1)  # pytest makes errors of warnings


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_is_left_as_it_was(surveyed, collects):
    (gc.enable if collects else gc.disable)()
    try:
        surveyed(b"x = (")
        assert gc.isenabled() == collects
    finally:
        gc.enable()


def test_totals_add_up_and_files_with_a_problem_count_as_files_only():
    tally = Tally()
    tally.add(Report("a.py", 10, 1, 2, 3, 4, ("os",)))
    tally.add(Report("b.py", 20, 5, 6, 7, 8))
    tally.add(Report("empty.py"))
    tally.add(Report("bad.py", problem="invalid syntax"))

    assert tally.totals == Totals(files=4, lines=30, functions=6, classes=8, branches=10, imports=12)
    assert tally.empty == {"empty.py"}
    assert tally.problems == {"bad.py": "invalid syntax"}
    assert tally.totals.joined(tally.totals).lines == 60


def _survey_of(reports):
    found = Survey()
    for report in reports:
        found.add(report.name.partition("/")[0], report)
    return found


REPORTS = [
    Report("a/1.py", 10, 1, 2, 3, 4, ("os", "re")),
    Report("a/2.py", 20, 5, 6, 7, 8, ("os",)),
    Report("b/1.py"),
    Report("b/2.py"),
    Report("c/1.py", problem="invalid syntax"),
]


def test_the_order_of_reports_makes_no_difference():
    shuffled = random.Random(5).sample(REPORTS, len(REPORTS))
    one, other = _survey_of(REPORTS), _survey_of(shuffled)

    assert one == other
    assert one.differences(other) == []
    assert one.totals.lines == 30
    assert one.imported == {"os": 2, "re": 1}


@pytest.mark.parametrize(
    ("index", "changes", "where"),
    [
        (0, {"branches": 4}, ["a: "]),
        (1, {"imported": ("os", "sys")}, ["files that import sys: 0, but 1"]),
        (2, {"problem": "unreadable"}, ["b: "]),
        (4, {"name": "d/1.py"}, ["c: ", "d: nothing, but"]),
    ],
)
def test_a_difference_names_the_place(index, changes, where):
    reports = list(REPORTS)
    reports[index] = reports[index]._replace(**changes)
    differences = _survey_of(REPORTS).differences(_survey_of(reports))

    assert len(differences) == len(where)
    assert all(part in found for part, found in zip(where, differences, strict=True))


def test_modules_are_found_the_largest_first_with_their_folder(tmp_path):
    for name, size in {"top.py": 3, "a/one.py": 9, "a/b/two.py": 5, "a/notes.txt": 7, "c/three.pyi": 8}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"#" * size)
    (tmp_path / "loop.py").symlink_to("loop.py")
    modules, unreadable = find_modules(str(tmp_path))

    assert [(module.name, module.folder, module.bytes) for module in modules] == [
        ("a/one.py", "a", 9),
        ("a/b/two.py", "a", 5),
        ("top.py", TOP, 3),
        ("loop.py", TOP, 0),
    ]
    assert modules[0].path == str(tmp_path / "a/one.py")
    assert unreadable == []


def test_caches_hidden_folders_links_to_folders_and_those_to_skip_are_passed_over(tmp_path):
    for folder in ("kept", "__pycache__", ".git", "site-packages", "kept/site-packages"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").touch()
    (tmp_path / "kept" / "again").symlink_to(tmp_path)

    assert [module.name for module in find_modules(str(tmp_path), ["site-packages"])[0]] == ["kept/x.py"]
    assert len(find_modules(str(tmp_path))[0]) == 3


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "x.py").touch()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse_one(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)
    modules, unreadable = find_modules(str(tmp_path))

    assert [module.name for module in modules] == ["open/x.py"]
    assert unreadable == ["closed"]
