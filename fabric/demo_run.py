"""Run the survey of a source tree with agents (fabric.demo), and check and time it against a single process.

The single process comes second and finds the files in the page cache: what bias there is, is against us.
"""

import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import psutil

from fabric import AgentGroup, AgentRef, Fabric, SpawnError
from fabric.demo import LINES, RESULT, SURVEY, FolderAgent, ImportsAgent, ModuleAgent
from fabric.demo_output import (
    Outcome,
    show_check,
    show_comparison,
    show_figures,
    show_spawned,
    show_start,
    show_survey,
)
from fabric.survey import Module, Survey, find_modules, survey
from fabric.tables import printable

_LEAST_ASKS = 100_000  # for the rate of messages as such; during the survey it is parsing that takes the time


class PathError(ValueError):
    """Refuse a path in which there is nothing to survey."""


class Options(NamedTuple):
    """Say how the demo is to run; see `python -m fabric demo --help`."""

    path: str | None = None
    workers: int | None = None
    wave_size: int = 500
    check: bool = True
    plain: bool = False


class Stopwatch:
    """Take the seconds that each named phase takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def run(options: Options) -> int:
    """Survey a tree, print what was found, check it. Returns the exit status.

    Raises:
        PathError: there is no such folder, or no Python file in it.
        FabricError: the fabric cannot be started, or broke.
    """
    root = _standard_library() if options.path is None else options.path
    modules, unreadable = _find(root, skip_installed=options.path is None)
    show_start(modules, os.path.abspath(root))
    outcome = survey_with_agents(modules, options)
    show_survey(outcome.survey, unreadable, options.plain)
    show_figures(outcome)
    if not options.check:
        return 1 if outcome.failures else 0
    began, cpu = time.perf_counter(), time.process_time()
    alone = survey_alone(modules)
    show_comparison(outcome, time.perf_counter() - began, time.process_time() - cpu)
    return 0 if show_check(outcome, alone) else 1


def survey_with_agents(modules: Sequence[Module], options: Options) -> Outcome:
    """Survey the files with an agent for each. Reports go from agent to agent; only sums come back."""
    watch = Stopwatch()
    cpu_before = _cpu_seconds()
    with watch.phase("start"):
        fab = Fabric(workers=options.workers)
    with fab:
        with watch.phase("spawn"):
            folders, imports, groups = _spawn(fab, modules, options.wave_size)
        show_spawned(len(modules) + len(folders) + 1, len(groups), watch.seconds["spawn"])
        with watch.phase("survey"):
            _tell(groups, len(modules))
            fab.drain()
        with watch.phase("collect"):
            tallies = fab.ask_many(list(folders.values()), [RESULT] * len(folders))
            found = Survey(dict(zip(folders, tallies, strict=True)), imports.ask(RESULT))
        cpu_seconds = _cpu_seconds() - cpu_before
        refs = [ref for group in groups for ref in group]
        refs *= -(-_LEAST_ASKS // len(refs))
        with watch.phase("ask"):
            replies = fab.ask_many(refs, [LINES] * len(refs))
        failures = [str(letter.error).partition("\n")[0] for letter in fab.dead_letters()]
        workers = len(fab.statistics().workers)
        with watch.phase("stop"):
            fab.close()
    return Outcome(
        survey=found,
        seconds=watch.seconds,
        cpu_seconds=cpu_seconds,
        workers=workers,
        messages=3 * len(modules),
        asks=len(refs),
        asked_lines=sum(replies) * len(modules) // len(refs),
        failures=failures,
    )


def survey_alone(modules: Sequence[Module]) -> Survey:
    """Survey the files one after the other, in this process."""
    found = Survey()
    for module in modules:
        found.add(module.folder, survey(module.path, module.name))
    return found


def _standard_library() -> str:
    return sysconfig.get_path("stdlib")


def _find(root: str, skip_installed: bool) -> tuple[list[Module], list[str]]:
    shown = printable(root)
    if not os.path.exists(root):
        raise PathError(f"there is no {shown!r}: give the path of a folder with Python files")
    if not os.path.isdir(root):
        raise PathError(f"{shown!r} is not a folder: give the path of a folder with Python files")
    modules, unreadable = find_modules(
        os.path.abspath(root), ("site-packages", "dist-packages") if skip_installed else ()
    )
    if not modules:
        why = "it cannot be read" if "." in unreadable else "no file in it or below ends in .py"
        raise PathError(f"nothing to survey in {shown!r}: {why}")
    return modules, unreadable


def _spawn(
    fab: Fabric, modules: Sequence[Module], wave_size: int
) -> tuple[dict[str, AgentRef], AgentRef, list[AgentGroup]]:
    """Make the agents: those that add up first, so that those of the modules can be told where to report."""
    names = sorted({module.folder for module in modules})
    folders = dict(zip(names, fab.spawn_batch(FolderAgent, len(names)), strict=True))
    imports = fab.spawn_batch(ImportsAgent, 1)[0]
    waves = fab.spawn_waves(
        ModuleAgent,
        len(modules),
        wave_size=wave_size,
        on_failure="stop",
        each={
            "path": [module.path for module in modules],
            "name": [module.name for module in modules],
            "folder": [folders[module.folder] for module in modules],
        },
        imports=imports,
    )
    groups = [cast(AgentGroup, wave.agents) for wave in waves]
    made = sum(map(len, groups))
    if made < len(modules):
        raise SpawnError(
            f"only {made:,} of {len(modules):,} agents could be made: free memory, or survey a smaller tree"
        )
    return folders, imports, groups


def _tell(groups: Sequence[AgentGroup], count: int) -> None:
    """Have all files surveyed; where someone looks on, say how far it is."""
    told = 0
    for group in groups:
        group.tell_all(SURVEY)
        told += len(group)
        _note(f"told {told:,} of {count:,} agents")
    _note("")


def _cpu_seconds() -> float:
    """Return the CPU time that this process and its descendants have used so far."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def _note(text: str) -> None:
    """Show a passing line on a terminal, in place of the one before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
