"""How plots look, and how they become SVG for a page that is light or dark. The only user of matplotlib's machinery.

Colours are Okabe and Ito's, which stay apart for the colour-blind; ours is blue and drawn thicker, another setting of
ours is light blue, and what the colour says is said by marker, hatch or text too. A plot is drawn in the colours of the
light page; in the HTML each of them becomes a variable of the style sheet, which knows the dark one.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INK, MUTED, RULE, PAPER = "#1b1f24", "#636c76", "#d5dae1", "#ffffff"
OURS, SETTING, PEER, LOST = "#0072b2", "#56b4e9", "#8b949e", "#d55e00"
OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7a5195", "#8b949e")
MARKERS = ("s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
THEME = {  # name in the style sheet, and what it is on the dark page
    INK: ("ink", "#e6e9ed"),
    MUTED: ("muted", "#9aa4af"),
    RULE: ("rule", "#333b45"),
    PAPER: ("paper", "#14181d"),
    OURS: ("ours", "#4da9ea"),
    SETTING: ("setting", "#9bd3f5"),
    PEER: ("peer", "#7f8994"),
    LOST: ("lost", "#f08a4b"),
    "#009e73": ("green", "#2fc79a"),
    "#cc79a7": ("pink", "#e19cc4"),
    "#e69f00": ("yellow", "#f0b840"),
    "#7a5195": ("purple", "#b08bd0"),
}
WIDTH = 8.2  # inches
EXTRA = "pip install 'shm-fabric[plot]'"
_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the layout was made with these letters: a page's own might not fit
    "svg.hashsalt": "bench",
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}


def is_there() -> bool:
    """Return whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


class Canvas:
    """One figure of some panels, one below the other."""

    def __init__(self, heights: list[float]) -> None:
        """Take the heights of the panels in inches."""
        figure: Any = importlib.import_module("matplotlib.figure")
        self.figure = figure.Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
        self.figure.get_layout_engine().set(hspace=0.06)
        places = self.figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)
        self.panels: list[Any] = list(places[:, 0])

    def svg(self) -> str:
        """Return the picture."""
        file = io.BytesIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue().decode()
        return text[text.index("<svg") :]


@contextmanager
def style() -> Iterator[None]:
    """Have what is drawn within look like this."""
    matplotlib: Any = importlib.import_module("matplotlib")
    with matplotlib.rc_context(_SETTINGS):
        yield


def label(axis: Any, low: float, high: float, shown: Callable[[float], str], *, logarithmic: bool) -> None:
    """Write numbers along an axis; along a logarithmic one of less than two decades also between the powers of ten."""
    if logarithmic and high < 100 * low:
        ticker: Any = importlib.import_module("matplotlib.ticker")
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: shown(value))
    axis.set_minor_formatter(lambda value, _: "")


def cut(text: str, most: int) -> str:
    """Return the text, shortened to so many letters."""
    return text if len(text) <= most else f"{text[: most - 2].rstrip()} …"


def inline(svg: str, name: str) -> str:
    """Return the picture as a part of a page: with colours of its style sheet, and names that no other picture has."""
    for colour, (variable, _) in THEME.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("url(#", f"url(#{name}-")
