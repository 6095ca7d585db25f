"""A terminal for a live view: frames of styled lines, keys one by one, and all as it was when it is over.

With rich the lines are coloured; without it, or where it is not wanted, they are plain. What is no terminal gets
the frames below one another.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_CLEAR_LINE = "\x1b[K"
_CLEAR_REST = "\x1b[J"
_WIDTH = 120  # of what is no terminal
_ARROWS = {"\x1b[A": "k", "\x1b[B": "j", "\x1bOA": "k", "\x1bOB": "j"}


class Screen:
    """Shows frames on stdout and reads keys from stdin, as far as they are terminals."""

    def __init__(self, plain: bool = False) -> None:
        self.live = sys.stdout.isatty()
        self._rich = None if plain or not self.live else _console()
        self._keys = sys.stdin.fileno() if self.live and _is_terminal(sys.stdin) else -1

    @property
    def size(self) -> tuple[int, int | None]:
        """Columns and lines; no lines where it is no terminal."""
        if not self.live:
            return _WIDTH, None
        found = shutil.get_terminal_size()
        return found.columns, found.lines

    @property
    def takes_keys(self) -> bool:
        """Can somebody hit keys?"""
        return self._keys >= 0

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Have the terminal as a live view needs it; restore it whatever happens, SIGTERM included."""
        if not self.live:
            yield
            return
        before = termios.tcgetattr(self._keys) if self.takes_keys else None
        handler = signal.signal(signal.SIGTERM, _leave)
        try:
            if self.takes_keys:
                tty.setcbreak(self._keys)
            self._write(_ENTER)
            yield
        finally:
            self._write(_LEAVE)
            if before is not None:
                termios.tcsetattr(self._keys, termios.TCSADRAIN, before)
            signal.signal(signal.SIGTERM, handler)

    def show(self, lines: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Show a frame in place of the one before, or below it."""
        if self._rich is not None:
            texts = _rendered(self._rich, lines)
        else:
            texts = ["".join(text for text, _ in line).rstrip() for line in lines]
        if self.live:
            self._write(_HOME + "\r\n".join(f"{text}{_CLEAR_LINE}" for text in texts) + _CLEAR_REST)
        else:
            self._write("\n".join(texts) + "\n\n")

    def wait(self, seconds: float, also: int) -> tuple[list[str], bool]:
        """Wait for keys, or until `also` is readable, at most so long. Return (keys, is it?)."""
        poller = select.poll()
        poller.register(also, select.POLLIN)
        if self.takes_keys:
            poller.register(self._keys, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)}
        keys: list[str] = []
        if self._keys in ready:
            keys = self._read()
        return keys, also in ready

    def _read(self) -> list[str]:
        try:
            read = os.read(self._keys, 64).decode("utf-8", "replace")
        except OSError:  # the terminal is gone
            read = ""
        if not read:
            return ["q"]
        return [_ARROWS[read]] if read in _ARROWS else list(read)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=sys.stdout, markup=False, highlight=False)


def _rendered(console: Any, lines: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """Return the lines with the escape sequences of their styles, as this terminal knows colours."""
    from rich.text import Text

    with console.capture() as captured:
        console.print(Text("\n").join(Text.assemble(*line) for line in lines), end="", soft_wrap=True)
    text: str = captured.get()
    return text.split("\n")
