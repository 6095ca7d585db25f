"""Write a report as Markdown, with its pictures in files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.blocks import Block, Figure, Folded, Heading, Items, Table, Text

PICTURES = "plots"


def write(blocks: Sequence[Block], file: Path) -> None:
    """Write the file and its pictures, in place of those of an earlier report."""
    folder = file.parent / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for block in blocks:
        if isinstance(block, Figure):
            (folder / f"{block.name}.svg").write_text(block.svg)
    file.write_text("\n\n".join(map(_written, blocks)) + "\n")


def _written(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {block.text}"
        case Text():
            return _escaped(block.text)
        case Items(links=[]) | Items(links=()):
            return "\n".join(f"- {_escaped(line)}" for line in block.lines)
        case Items():
            linked = zip(block.lines, block.links, strict=True)
            return "\n".join(f"- [{_escaped(line)}](#{Heading(2, link).anchor})" for line, link in linked)
        case Table():
            table = _table(block)
            title = f"<details><summary>{block.folded}</summary>"
            return f"{title}\n\n{table}\n\n</details>" if block.folded else table
        case Figure():
            return f"![{_escaped(block.caption)}]({PICTURES}/{block.name}.svg)\n\n*{_escaped(block.caption)}*"
        case Folded():
            fence = "````" if "```" in block.text else "```"
            return f"<details><summary>{block.title}</summary>\n\n{fence}text\n{block.text}\n{fence}\n\n</details>"


def _table(table: Table) -> str:
    last = len(table.header) - 1
    words = (0, last) if table.ends_in_words else (0,)
    marks = [":--" if place in words else "--:" for place in range(last + 1)]
    lines = [list(map(_cell, table.header)), marks]
    for number, row in enumerate(table.rows):
        cells = list(map(_cell, row))
        if number == table.stressed:
            cells[0] = f"**{cells[0]}**"
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return _escaped(text).replace("\n", " ")


def _escaped(text: str) -> str:
    """Keep signs of Markdown that stand in names from being read as such; what is in backticks stays as it is."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_<|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
