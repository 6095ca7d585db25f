"""Word figures for people: short, with their unit. Pure."""

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = ".:-=+*#@"


def rate(value: float) -> str:
    """Word a number to two or three digits: 0, 0.5, 950, 8.1 k, 81 k, 1.2 M."""
    if 0 < value < 9.95:
        return f"{value:.1f}"
    return _scaled(value, ((" G", 1e9), (" M", 1e6), (" k", 1e3)), "")


def size(value: float) -> str:
    """Word a number of bytes: 0 B, 950 B, 8.1 kB, 1.2 MB."""
    return _scaled(value, ((" GB", 1e9), (" MB", 1e6), (" kB", 1e3)), " B")


def span(seconds: float) -> str:
    """Word a time: 850 ns, 4.4 µs, 12 ms, 3.1 s, 4:05, 1:02:03; "-" for none."""
    if seconds <= 0:
        return "-"
    if seconds < 59.95:
        return _scaled(seconds * 1e9, ((" s", 1e9), (" ms", 1e6), (" µs", 1e3)), " ns")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def share(value: float) -> str:
    """Word a part of 1 in percent."""
    return f"{value:.0%}"


def sparkline(values: Sequence[float], width: int, plain: bool = False) -> str:
    """Draw the last `width` values, from 0 to their largest."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    bars = _PLAIN_BARS if plain else _BARS
    if top <= 0:
        return bars[0] * len(shown)
    return "".join(bars[min(len(bars) - 1, int(value / top * len(bars)))] for value in shown)


def _scaled(value: float, units: Sequence[tuple[str, float]], base: str) -> str:
    for unit, scale in units:
        if value >= scale * 0.9995:
            return f"{value / scale:.1f}{unit}" if value < 9.95 * scale else f"{value / scale:,.0f}{unit}"
    return f"{value:.0f}{base}"
