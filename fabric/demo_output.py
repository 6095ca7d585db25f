"""Print what the demo found, how fast it was, and whether that is right."""

from collections.abc import Sequence
from typing import NamedTuple

from fabric.config import usable_cpus
from fabric.survey import Module, Survey, Totals
from fabric.tables import Table, printable, show

_FOLDERS_SHOWN = 14
_IMPORTS_SHOWN = 8
_NAMES_SHOWN = 4
_DIFFERENCES_SHOWN = 10


class Outcome(NamedTuple):
    """What the fabric found, and how fast it was.

    `seconds` by phase: start, spawn, survey, collect, ask, stop. `cpu_seconds`: of all processes, until the
    sums were collected. `messages` were told during the survey, one to each file's agent and two by it.
    `asks` came after it, for a rate without the parsing; their replies are the files' lines, `asked_lines` in
    sum, once over all files. `failures`: what went wrong with told messages.
    """

    survey: Survey
    seconds: dict[str, float]
    cpu_seconds: float
    workers: int
    messages: int
    asks: int
    asked_lines: int
    failures: list[str]

    @property
    def wall_seconds(self) -> float:
        """What the survey took from first to last: all phases save the asking."""
        return sum(self.seconds.values()) - self.seconds["ask"]


def show_survey(survey: Survey, unreadable: Sequence[str], plain: bool) -> None:
    """Print the tables, and which files could not be counted."""
    show(_folder_table(survey), plain)
    imports = sorted(survey.imported.items(), key=lambda item: (-item[1], item[0]))[:_IMPORTS_SHOWN]
    if imports:
        show(Table("most imported modules", ("module", "imported by files"), imports), plain)
    problems = {name: why for tally in survey.folders.values() for name, why in tally.problems.items()}
    _show_names("not parsed", [f"{printable(name)}: {printable(why)}" for name, why in sorted(problems.items())])
    _show_names("empty", [printable(name) for tally in survey.folders.values() for name in tally.empty])
    _show_names("folders that cannot be read", [printable(name) for name in unreadable])


def show_start(modules: Sequence[Module], root: str) -> None:
    """Print what is going to be surveyed."""
    size = sum(module.bytes for module in modules) / 1e6
    _show_line("surveying", f"{_counted(len(modules), 'file')} ({size:,.1f} MB) in {printable(root)}")


def show_spawned(agents: int, waves: int, seconds: float) -> None:
    """Print how fast the agents were made."""
    found = f"{_counted(agents, 'agent')} in {_counted(waves, 'wave')}, {_time(seconds)}"
    _show_line("spawned", f"{found}: {_rate(agents, seconds)} agents/s")


def show_figures(outcome: Outcome) -> None:
    """Print the speeds."""
    seconds = outcome.seconds
    print()
    _show_line(
        "messages",
        f"{outcome.messages:,} during the survey, {_time(seconds['survey'])}: "
        f"{_rate(outcome.messages, seconds['survey'])} messages/s, as fast as files are parsed",
    )
    _show_line(
        "asked",
        f"{outcome.asks:,} times for the lines of a file, {_time(seconds['ask'])}: "
        f"{_rate(outcome.asks, seconds['ask'])} asks/s, each answered",
    )
    phases = ", ".join(f"{name} {_time(seconds[name])}" for name in ("start", "spawn", "survey", "collect", "stop"))
    _show_line("fabric", f"{_time(outcome.wall_seconds)} on {_counted(outcome.workers, 'worker')} ({phases})")
    if outcome.failures:
        _show_names("messages that failed", outcome.failures)


def show_comparison(outcome: Outcome, seconds: float, cpu_seconds: float) -> None:
    """Print how long one process took beside the fabric, whoever won."""
    ratio = seconds / outcome.wall_seconds
    if ratio >= 1:
        verdict = f"the fabric is {_times(ratio)} as fast"
    else:
        verdict = f"the fabric LOSES, it takes {_times(1 / ratio)} as long"
    _show_line("one process", f"{_time(seconds)}: {verdict}")
    _show_line("CPU time", f"fabric {_time(outcome.cpu_seconds)}, one process {_time(cpu_seconds)}")
    reasons = []
    if outcome.seconds["start"] + outcome.seconds["stop"] > seconds / 2:
        reasons.append("so few files are read before the workers have started")
    if outcome.workers == 1:
        reasons.append("one worker does the same work, and the messages come on top")
    used = outcome.cpu_seconds / outcome.wall_seconds
    available = min(outcome.workers, usable_cpus())
    if used < 0.8 * available and not reasons:
        reasons.append(f"other programs were busy too, the fabric got {used:.1f} of {available} CPUs")
    if reasons:
        _show_line("", f"({'; '.join(reasons)})")


def show_check(outcome: Outcome, alone: Survey) -> bool:
    """Print whether the fabric found what a single process found, and where not. Returns whether it did."""
    differences = [f"a message failed: {failure}" for failure in outcome.failures]
    differences += outcome.survey.differences(alone)
    if outcome.asked_lines != alone.totals.lines:
        differences.append(f"lines: asked agents said {outcome.asked_lines:,}, but {alone.totals.lines:,}")
    print()
    if not differences:
        print(f"check: totals equal those of a single-process pass ({_counted(alone.totals.files, 'file')})")
        return True
    print("check: totals DIFFER from those of a single-process pass (did files change meanwhile?)")
    for difference in differences[:_DIFFERENCES_SHOWN]:
        print(f"  {printable(difference)}")
    if len(differences) > _DIFFERENCES_SHOWN:
        print(f"  and {len(differences) - _DIFFERENCES_SHOWN:,} more")
    return False


def _folder_table(survey: Survey) -> Table:
    ranked = sorted(survey.folders.items(), key=lambda item: (-item[1].totals.lines, item[0]))
    shown = ranked if len(ranked) <= _FOLDERS_SHOWN + 1 else ranked[:_FOLDERS_SHOWN]
    rows = [(name, *tally.totals) for name, tally in shown]
    others = Totals()
    for _, tally in ranked[len(shown) :]:
        others = others.joined(tally.totals)
    if others.files:
        rows.append((f"{len(ranked) - len(shown):,} others", *others))
    title = f"{_counted(len(ranked), 'folder')}, by lines"
    return Table(title, ("folder", *Totals._fields), rows, ("all", *survey.totals))


def _show_names(what: str, names: Sequence[str]) -> None:
    if not names:
        return
    print(f"\n{what}: {len(names):,}")
    for name in sorted(names)[:_NAMES_SHOWN]:
        print(f"  {name}")
    if len(names) > _NAMES_SHOWN:
        print(f"  and {len(names) - _NAMES_SHOWN:,} more")


def _show_line(label: str, text: str) -> None:
    print(f"{label:<13}{text}", flush=True)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if ratio < 9.995 else f"{ratio:,.0f} times"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.995 else f"{seconds * 1e3:.1f} ms"


def _rate(count: int, seconds: float) -> str:
    """Word a rate to two or three digits: 950, 8.1 k, 81 k, 1.2 M."""
    rate = count / seconds
    for unit, size in ((" M", 1e6), (" k", 1e3)):
        if rate >= size * 0.9995:
            return f"{rate / size:.1f}{unit}" if rate < 9.95 * size else f"{rate / size:,.0f}{unit}"
    return f"{rate:.0f}"
