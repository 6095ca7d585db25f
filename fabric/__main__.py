"""Run the commands: `python -m fabric COMMAND`.

A command returns its exit status: 0, 1 when what it looked for is wrong, 2 when it was called wrongly, 130
after Ctrl-C. What it raises of the fabric's errors is shown in one line.
"""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fabric.errors import FabricError

_PROGRAM = "python -m fabric"
_INTERRUPTED = 128 + signal.SIGINT


class ShowVersion(argparse.Action):
    """Print the installed version and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> NoReturn:
        from importlib import metadata  # takes longer to import than everything else here

        parser.exit(message=f"shm-fabric {metadata.version('shm-fabric')}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the command line by default. Returns the exit status."""
    before = signal.signal(signal.SIGINT, _interrupt_once)
    try:
        options = _parser().parse_args(arguments)
        return _run(options)
    except KeyboardInterrupt:
        print(f"\n{_PROGRAM}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)


def _run(options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for what the terminal's encoding lacks
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (FabricError, OSError) as error:
        print(f"{_PROGRAM} {options.command}: {type(error).__name__}: {error}", file=sys.stderr)
        status = 1
    except ImportError as error:
        advice = "the installation is damaged: pip install --force-reinstall shm-fabric"
        print(f"{_PROGRAM} {options.command}: {error}; {advice}", file=sys.stderr)
        status = 1
    return status


def _interrupt_once(number: int, frame: object) -> None:
    """Make the first Ctrl-C a KeyboardInterrupt; the next ones would only hurt the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _demo(options: argparse.Namespace) -> int:
    from fabric.demo_run import Options, PathError, run

    try:
        return run(Options(options.path, options.workers, options.wave_size, not options.no_check, options.plain))
    except PathError as error:
        print(f"{_PROGRAM} demo: {error}", file=sys.stderr)
        return 2


def _top(options: argparse.Namespace) -> int:
    from fabric.top import Options, run

    chosen = (options.index, options.identity)
    return run(Options(options.pid, options.once, options.json, options.interval, *chosen, options.plain))


def _doctor(options: argparse.Namespace) -> int:
    from fabric.doctor import run

    return run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Agents on many processes of one machine.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = _command(commands, "demo", _demo, "survey a tree of Python files with an agent for each file")
    demo.add_argument("path", metavar="PATH", nargs="?", help="a folder; by default Python's own standard library")
    demo.add_argument("--workers", metavar="N", type=_positive, help="worker processes; by default one a CPU")
    demo.add_argument("--wave-size", metavar="N", type=_positive, default=500, help="agents spawned at a time (500)")
    demo.add_argument("--no-check", action="store_true", help="leave out the single-process pass")
    demo.add_argument("--plain", action="store_true", help="plain text, even where rich is installed")
    top = _command(commands, "top", _top, "watch a fabric that runs in another process of yours")
    top.add_argument(
        "pid",
        metavar="PID",
        type=_positive,
        nargs="?",
        help="the process that made the fabric; by default the only one there is",
    )
    top.add_argument("--once", action="store_true", help="look for one interval, print that, and leave")
    top.add_argument("--json", action="store_true", help="print JSON, one object an interval")
    top.add_argument("--interval", metavar="S", type=_seconds, default=1.0, help="seconds from look to look (1)")
    top.add_argument("--index", metavar="N", type=_number, help="which of several fabrics of the process, from 0 on")
    top.add_argument("--identity", metavar="HEX", type=_hex, help="likewise, by what it is called in the error")
    top.add_argument("--plain", action="store_true", help="plain text, even where rich is installed")
    _command(commands, "doctor", _doctor, "say what this machine offers, and what to do about what it lacks")
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number over 0")
    return int(text)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no hexadecimal number") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.05 to 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
