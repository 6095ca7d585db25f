"""Write a report as one page that needs nothing else: style and pictures are in it, and no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.blocks import Block, Figure, Folded, Heading, Items, Table, Text
from bench.plot_style import THEME, inline

_WORDS = {"pass": "good", "better": "good", "MISSED": "bad", "REGRESSION": "bad", "FAILED": "bad", "worse": "bad"}
_LIGHT = " ".join(f"--{name}: {colour};" for colour, (name, _) in THEME.items())
_DARK = " ".join(f"--{name}: {dark};" for name, dark in THEME.values())
_STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} --soft: #f4f6f8; --good: #10704a; --bad: #b3400a; }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} --soft: #1c2229; --good: #57c99b; --bad: #f08a4b; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 6rem; background: var(--paper);
  color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.35rem; margin: 3.2rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--rule); }}
h3 {{ font-size: 1.05rem; margin: 2.2rem 0 .5rem; }}
h4 {{ font-size: .92rem; margin: 1.3rem 0 .3rem; font-weight: 600; color: var(--muted); }}
p {{ margin: .5rem 0; max-width: 52rem; }}
.muted, figcaption {{ color: var(--muted); font-size: .88rem; }}
a {{ color: var(--ours); text-decoration: none; }}
a:hover {{ text-decoration: underline; }}
ul {{ margin: .5rem 0; padding-left: 1.2rem; }}
li {{ margin: .15rem 0; }}
.contents {{ columns: 2 22rem; column-gap: 3rem; font-size: .92rem; }}
.scroll {{ overflow-x: auto; margin: .6rem 0; }}
table {{ border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }}
th {{ font-weight: 600; color: var(--muted); background: var(--soft); }}
td:first-child, th:first-child, td:last-child, th:last-child {{ text-align: left; }}
td:first-child, td:last-child {{ white-space: normal; min-width: 7rem; }}
.numbers td:last-child, .numbers th:last-child {{ text-align: right; }}
tr.ours td {{ font-weight: 600; }}
tr.ours td:first-child {{ box-shadow: inset 3px 0 0 var(--ours); }}
tr.ours td:last-child {{ font-weight: 400; }}
.good {{ color: var(--good); font-weight: 600; }}
.bad {{ color: var(--bad); font-weight: 700; }}
figure {{ margin: 1rem 0 1.4rem; }}
figure svg {{ display: block; width: 100%; max-width: 59rem; height: auto; }}
details {{ margin: .6rem 0; }}
summary {{ cursor: pointer; color: var(--muted); font-size: .9rem; }}
code {{ font: .92em ui-monospace, "DejaVu Sans Mono", monospace; }}
pre {{ background: var(--soft); padding: .9rem 1.1rem; overflow-x: auto; border-radius: 6px;
  font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }}
@media print {{ body {{ max-width: none; }} h2 {{ break-after: avoid; }} figure, table {{ break-inside: avoid; }} }}
"""


def write(blocks: Sequence[Block], file: Path) -> None:
    """Write the page."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(map(_written, blocks))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _written(block: Block) -> str:
    match block:
        case Heading():
            anchor = f' id="{block.anchor}"' if block.level == 2 else ""  # names of cases come more than once
            return f"<h{block.level}{anchor}>{escape(block.text)}</h{block.level}>"
        case Text():
            return f'<p class="{block.weight or "plain"}">{_marked(block.text)}</p>'
        case Items():
            return _items(block)
        case Table():
            table = _table(block)
            title = f"<summary>{escape(block.folded)}</summary>"
            return f"<details>{title}{table}</details>" if block.folded else table
        case Figure():
            picture = inline(block.svg, block.name).replace(
                "<svg", f'<svg role="img" aria-label="{escape(block.caption)}"', 1
            )
            return f"<figure>{picture}<figcaption>{escape(block.caption)}</figcaption></figure>"
        case Folded():
            return f"<details><summary>{escape(block.title)}</summary><pre>{escape(block.text)}</pre></details>"


def _items(block: Items) -> str:
    if block.links:
        linked = zip(block.lines, block.links, strict=True)
        lines = [f'<a href="#{Heading(2, link).anchor}">{_coded(line)}</a>' for line, link in linked]
        return f'<ul class="contents">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'
    return f"<ul>{''.join(f'<li>{_marked(line)}</li>' for line in block.lines)}</ul>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    lines = []
    for number, row in enumerate(table.rows):
        ours = ' class="ours"' if number == table.stressed else ""
        lines.append(f"<tr{ours}>{''.join(f'<td>{_marked(cell)}</td>' for cell in row)}</tr>")
    head = f"<thead><tr>{head}</tr></thead>" if any(table.header) else ""
    kind = "" if table.ends_in_words else ' class="numbers"'
    return f'<div class="scroll"><table{kind}>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _marked(text: str) -> str:
    """Return text whose first word, if it is a verdict, shows as one."""
    word, _, rest = text.partition(" ")
    colour = _WORDS.get(word.rstrip(":"))
    if colour is None and text.startswith("WE LOSE"):
        word, rest, colour = "WE LOSE", text.removeprefix("WE LOSE "), "bad"
    return f'<span class="{colour}">{escape(word)}</span> {_coded(rest)}' if colour else _coded(text)


def _coded(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))
