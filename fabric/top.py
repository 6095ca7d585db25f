"""`python -m fabric top`: watch a fabric that runs in another process, live, or once for a script.

It is written with rich and not with textual: a table, a few keys and a frame a second need no framework, and one frame
costs a tenth of what that takes to start. Without rich it is the same in plain text.
"""

import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fabric.attaching import command_of, running
from fabric.errors import ClosedError, FabricError
from fabric.monitor import Monitor
from fabric.samples import Sample
from fabric.screen import Screen
from fabric.top_view import SORTS, View
from fabric.waits import Waits

_ENDING = 1.0  # seconds in which a process that has let go of its fabric is seen to end


@dataclass(frozen=True, slots=True)
class Options:
    """Say what is watched and how; see `python -m fabric top --help`."""

    pid: int | None
    once: bool = False
    json: bool = False
    interval: float = 1.0
    index: int | None = None
    identity: int | None = None
    plain: bool = False


def run(options: Options) -> int:
    """Watch until the fabric ends or nobody wants to see more. Returns the exit status.

    Without a pid it is the one process of this user that runs a fabric; where there are several they are named.

    Raises:
        ProcessLookupError, PermissionError, LayoutError, FabricError: see Monitor.
    """
    pid = _only() if options.pid is None else options.pid
    with Monitor(pid, index=options.index, identity=options.identity) as monitor:
        try:
            if options.json:
                _print_json(monitor, options)
            elif options.once:
                _print_once(monitor, options)
            else:
                _watch(monitor, options)
        except KeyboardInterrupt:
            print("stopped watching", file=sys.stderr)
    return 0


def _only() -> int:
    found = running()
    if not found:
        raise FabricError("no process of yours runs a fabric")
    if len(found) > 1:
        raise FabricError("several processes run a fabric, name one:" + "".join(f"\n  {pid}  {c}" for pid, c in found))
    return found[0][0]


def to_dict(monitor: Monitor, sample: Sample, waits: Waits) -> dict[str, Any]:
    """Return what --json prints: a sample, who waits for whom, and of which fabric."""
    watched = {"pid": monitor.pid, "identity": f"{monitor.identity:016x}", "alive": monitor.alive}
    return {**watched, **sample.to_dict(), "waits": waits.to_dict()}


def _looks(monitor: Monitor, interval: float) -> Iterator[tuple[Sample, Waits]]:
    """Look now and after each interval; once more when the fabric has ended, for the last figures."""
    screen = Screen(plain=True)
    while True:
        alive = monitor.alive
        yield monitor.sample(), monitor.waits()
        if not alive:
            return
        due = time.monotonic() + interval
        while monitor.alive and (left := due - time.monotonic()) > 0:
            screen.wait(min(left, 0.25), monitor.descriptor)


def _print_json(monitor: Monitor, options: Options) -> None:
    looks = _looks(monitor, options.interval)
    first = next(looks)  # what the rates are counted from; all there is, where the fabric ended right then
    for sample, waits in itertools.chain([next(looks, first)], looks):
        print(json.dumps(to_dict(monitor, sample, waits)), flush=True)
        if options.once:
            return


def _print_once(monitor: Monitor, options: Options) -> None:
    screen = Screen(options.plain)
    view = View(command_of(monitor.pid), options.interval, options.plain)
    looks = _looks(monitor, options.interval)
    first = next(looks)
    view.take(*next(looks, first))
    lines = view.lines(screen.size[0], keys=False)
    print("\n".join("".join(text for text, _ in line).rstrip() for line in lines), flush=True)


def _watch(monitor: Monitor, options: Options) -> None:
    """Show what there is to see, and say at last how it ended."""
    began = time.monotonic()
    screen = Screen(options.plain)
    watcher = Watcher(monitor, View(command_of(monitor.pid), options.interval, options.plain), screen)
    why = "stopped watching"
    with contextlib.suppress(KeyboardInterrupt), screen.taken():
        if watcher.run(options.interval):
            why = _ending(monitor)
    found = monitor.statistics()
    counts = f"{found.messages:,} messages handled, {found.errors:,} errors, {found.restarts:,} restarts"
    print(f"{why}: {counts}; watched for {time.monotonic() - began:.0f} s", flush=True)


class Watcher:
    """The loop: look, show, listen."""

    def __init__(self, monitor: Monitor, view: View, screen: Screen) -> None:
        self._monitor = monitor
        self._view = view
        self._screen = screen

    def run(self, interval: float) -> bool:
        """Watch until the fabric has ended (True), or somebody quits."""
        due = time.monotonic()
        while self._monitor.alive:
            now = time.monotonic()
            if now >= due:
                if not self._view.paused:
                    self._view.take(self._monitor.sample(), self._monitor.waits())
                due = max(now, due + interval)
                self._show()
            keys, ended = self._screen.wait(min(due - time.monotonic(), 0.25), self._monitor.descriptor)
            if ended:
                break
            for key in keys:
                if not self._obey(key):
                    return False
            if keys:
                self._show()
        self._view.take(self._monitor.sample(), self._monitor.waits())
        return True

    def _show(self) -> None:
        width, height = self._screen.size
        self._screen.show(self._view.lines(width, height, self._screen.takes_keys))

    def _obey(self, key: str) -> bool:
        """Do what a key says. False: quit."""
        view = self._view
        if view.text:
            view.text = ""
            return key not in "qQ"
        if key in "qQ":
            return False
        if key == "s":
            view.text = self._stack()
        elif key == "p":
            view.paused = not view.paused
        elif key in ("j", "k"):
            view.choose(1 if key == "j" else -1)
        elif key in SORTS:
            view.sort = SORTS[key]
        return True

    def _stack(self) -> str:
        """Return the stack of the worker that is chosen, or has had its message in hand for longest."""
        slot = self._view.suspect()
        if slot is None:
            return "there is no worker"
        try:
            return f"worker {slot}, the innermost call first\n\n{self._monitor.stack(slot)}"
        except ClosedError:
            raise
        except (FabricError, OSError) as error:
            return f"{error}"


def _ending(monitor: Monitor) -> str:
    """Say what became of the fabric."""
    deadline = time.monotonic() + _ENDING
    while not monitor.process_ended and time.monotonic() < deadline:
        time.sleep(0.005)
    if monitor.process_ended:
        return f"process {monitor.pid} has ended"
    return f"process {monitor.pid} has closed its fabric"
