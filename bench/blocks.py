"""What a report is made of, whatever it is written as: bench.report makes these, two renderers write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """The title of a part. `level` 1 is that of the report."""

    level: int
    text: str

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return "-".join("".join(sign if sign.isalnum() or sign == "_" else " " for sign in self.text.lower()).split())


@dataclass(frozen=True)
class Text:
    """A paragraph. `weight` is "" or "muted"."""

    text: str
    weight: str = ""


@dataclass(frozen=True)
class Items:
    """A list of lines; `links` are the headings that they lead to, if they do."""

    lines: Sequence[str]
    links: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """A table. The first column reads from the left, and so does the last if it is words; the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    stressed: int | None = None  # the row of ours
    ends_in_words: bool = True  # else the last column is numbers too
    folded: str = ""  # the title under which it is hidden until a reader opens it


@dataclass(frozen=True)
class Figure:
    """A picture, as SVG, with what it shows in words."""

    name: str  # of its file, without the ending
    svg: str
    caption: str


@dataclass(frozen=True)
class Folded:
    """Plain text of fixed width that a reader opens when it is wanted."""

    title: str
    text: str


Block = Heading | Text | Items | Table | Figure | Folded
