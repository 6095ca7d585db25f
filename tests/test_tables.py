"""Tables, with rich and without."""

import sys

import pytest

from fabric.tables import Table, printable, render, show

TABLE = Table(
    "animals",
    ("name", "legs", "weight"),
    [("ant", 6, 1), ("millipede", 1_000, 20)],
    ("all", 1_006, 21),
)


def test_plain_columns_are_aligned_texts_to_the_left_and_numbers_to_the_right():
    assert render(TABLE).splitlines() == [
        "animals",
        "",
        "name        legs  weight",
        "---------  -----  ------",
        "ant            6       1",
        "millipede  1,000      20",
        "---------  -----  ------",
        "all        1,006      21",
    ]


def test_a_table_without_rows_or_footer_is_its_head():
    assert render(Table("none", ("name", "legs"), [])).splitlines() == ["none", "", "name  legs", "----  ----"]


def test_wide_and_combining_letters_are_aligned_by_what_they_take_on_the_screen():
    lines = render(Table("", ("name", "n"), [("日本", 1), ("e\u0301t\u0301", 2), ("x", 3)])).splitlines()

    assert lines[-3:] == ["日本  1", "e\u0301t\u0301    2", "x     3"]


def test_a_long_text_loses_its_middle():
    name = "a" * 100 + "b" * 100
    last = render(Table("", ("name",), [(name,)])).splitlines()[-1]

    assert len(last) <= 24
    assert last.startswith("aaa")
    assert "..." in last
    assert last.endswith("bbb")


@pytest.mark.parametrize("name", ["\x1b[31mred", "two\nlines", "\udcff", "tab\t"])
def test_a_name_cannot_talk_to_the_terminal(name):
    assert printable(name).isprintable()
    assert len(printable(name)) == len(name)


def test_rich_shows_what_plain_text_shows(capsys):
    pytest.importorskip("rich")
    show(TABLE)
    rich = capsys.readouterr().out
    show(TABLE, plain=True)
    plain = capsys.readouterr().out

    assert plain == f"\n{render(TABLE)}\n"
    assert "─" in rich
    assert "─" not in plain
    assert [word for word in rich.split() if word.isalnum()] == [word for word in plain.split() if word.isalnum()]


def test_rich_takes_square_brackets_for_what_they_are(capsys):
    pytest.importorskip("rich")
    show(Table("[bold]", ("[red]name",), [("[link]x",)]))
    shown = capsys.readouterr().out

    assert all(text in shown for text in ("[bold]", "[red]name", "[link]x"))


def test_without_rich_the_text_is_plain(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    show(TABLE)

    assert capsys.readouterr().out == f"\n{render(TABLE)}\n"
