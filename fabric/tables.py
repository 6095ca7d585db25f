"""Print tables: with rich where it is installed, in plain ASCII where it is not or is not wanted."""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

_MOST_WIDTH = 24  # of a cell; longer ones lose their middle
_FILE_WIDTH = 120  # of what is no terminal


class Table(NamedTuple):
    """Describe a table. Cells are texts, or numbers, which are shown with separators and to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int]]
    footer: Sequence[str | int] = ()


def show(table: Table, plain: bool = False) -> None:
    """Print a blank line and a table to stdout."""
    console = None if plain else _console()
    if console is None:
        print(f"\n{render(table)}", flush=True)
    else:
        console.print(f"\n{table.title}\n", style="bold")
        console.print(_rich_table(table))


def render(table: Table) -> str:
    """Return a table as plain text: the title, aligned columns, rules of dashes."""
    body = [[_cell(value) for value in row] for row in (*table.rows, *([table.footer] if table.footer else []))]
    lines = [list(table.columns), *body]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(table.columns))]
    right = _right(table)
    texts = ["  ".join(map(_padded, line, widths, right)).rstrip() for line in lines]
    rule = "  ".join("-" * width for width in widths)
    texts.insert(1, rule)
    if table.footer:
        texts.insert(-1, rule)
    return "\n".join([table.title, "", *texts])


def printable(text: str) -> str:
    """Return a name from outside as a terminal may have it: what is no printable character becomes a "?"."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _right(table: Table) -> list[bool]:
    """Say for each column whether it holds numbers."""
    return [bool(table.rows) and isinstance(table.rows[0][i], int) for i in range(len(table.columns))]


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    text = printable(value)
    half = (_MOST_WIDTH - 3) // 2
    return text if len(text) <= _MOST_WIDTH else f"{text[:half]}...{text[-half:]}"


def _width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )


def _padded(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _width(text))
    return gap + text if right else text + gap


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    width = None if sys.stdout.isatty() else _FILE_WIDTH
    return Console(file=sys.stdout, width=width, markup=False, highlight=False)


def _rich_table(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        box=box.SIMPLE,
        show_edge=False,
        show_footer=bool(table.footer),
        header_style="bold cyan",
        footer_style="bold",
        pad_edge=False,
    )
    footer = [_cell(value) for value in table.footer] or [""] * len(table.columns)
    for name, last, right in zip(table.columns, footer, _right(table), strict=True):
        drawn.add_column(Text(name), Text(last), justify="right" if right else "left", no_wrap=right)
    for row in table.rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    return drawn
