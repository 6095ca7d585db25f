#!/usr/bin/env python3
"""Simulate an epidemic among a million agents on two workers, and check it against plain numpy.

    python scripts/examples/epidemic.py --plot epidemic.png

The agents live on a map. Each is susceptible, infectious or recovered. An infectious one meets some others a step,
most of them near, some anywhere (people travel), and may infect them; and each step it may recover.

    this process   ask_all("spread") ──▶ each worker: whom do my infectious agents infect?
                   drain()               worker ──▶ worker: records (who, generation of the infection)
                   ask_all("update") ──▶ each worker: those infected fall ill, some recover; counts come back

Two phases, so that no infection of this step is counted before all of them have been sent. Chance is a hash of the
seed, the step and the agent, not of who computes it: however many workers there are, each step has the same counts.
"""

import argparse
import math
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabric import ArrayAgents, ArrayGroup, Fabric

Array = NDArray[Any]
EXPOSURE = np.dtype([("generation", "i4")])
NEVER = np.iinfo("i4").max  # the generation of no infection
SUSCEPTIBLE, INFECTIOUS, RECOVERED = range(3)
PLOTTED_PIXELS = 1_200  # a larger map is thinned out for the plot


class Model(NamedTuple):
    """The epidemic, without any state: who meets whom, and when somebody recovers. All of it is chance by number."""

    agents: int
    seed: int = 1
    contacts: int = 12  # whom an infectious agent meets in a step
    infects: float = 0.025  # share of the meetings that infect
    recovers: float = 0.08  # share of the infectious that recover in a step
    travels: float = 0.0004  # share of the meetings that are anywhere on the map
    reach: int = 4  # the others are at most so far away, in each direction
    first: int = 10  # agents that are infectious in the beginning

    @property
    def width(self) -> int:
        """How many agents a row of the map has."""
        return max(1, math.isqrt(self.agents))

    def index_cases(self) -> Array:
        """Return those who bring the infection, in order."""
        drawn = _draws(np.arange(self.first, dtype="i8"), _key(self.seed, 0, 0))
        return np.unique((drawn % np.uint64(self.agents)).astype("i8"))

    def infected_by(self, sick: Array, step: int) -> tuple[Array, Array]:
        """Return whom the agents `sick` infect in a step, and the place in `sick` of who did it."""
        found = [self._infected_in_contact(sick, step, contact) for contact in range(self.contacts)]
        return np.concatenate([who for who, _ in found]), np.concatenate([by for _, by in found])

    def recovered(self, sick: Array, step: int) -> Array:
        """Say which of these recover in a step."""
        return _happens(_draws(sick, _key(self.seed, step, 1)), self.recovers)

    def _infected_in_contact(self, sick: Array, step: int, contact: int) -> tuple[Array, Array]:
        drawn = _draws(sick, _key(self.seed, step, 2 + 2 * contact))
        by = np.flatnonzero(_happens(drawn, self.infects))
        again = _draws(sick[by], _key(self.seed, step, 3 + 2 * contact))
        span = np.uint64(2 * self.reach + 1)
        across = (again % span).astype("i8") - self.reach
        down = (again // span % span).astype("i8") - self.reach
        near = (sick[by] + down * self.width + across) % self.agents  # the map has no edges
        anywhere = (again % np.uint64(self.agents)).astype("i8")
        return np.where(_happens(again, self.travels), anywhere, near), by


class Region(ArrayAgents):
    """The agents of one worker: three columns."""

    dtype = EXPOSURE
    reply_dtype = "i4"

    def __init__(self, ids: range, model: Model) -> None:
        self.ids, self.model = ids, model
        self.state = np.full(len(ids), SUSCEPTIBLE, "u1")
        self.generation = np.full(len(ids), NEVER, "i4")  # of the infection that it has had, or is exposed to
        self.day = np.full(len(ids), -1, "i4")  # when it fell ill

    def on_records(self, ids: Array, records: Array) -> Array:
        """Note who is exposed; answer when each fell ill. To ask for that alone is an exposure by NEVER."""
        places = ids - self.ids.start
        fresh = self.state[places] == SUSCEPTIBLE
        np.minimum.at(self.generation, places[fresh], records["generation"][fresh])
        return self.day[places]

    def on_message(self, body: tuple[str, int]) -> Any:
        """Do one phase of a step."""
        phase, step = body
        return self.spread(step) if phase == "spread" else self.update(step)

    def spread(self, step: int) -> int:
        """Infect others, here and in other workers; return how many records that took."""
        places = np.flatnonzero(self.state == INFECTIOUS)
        who, by = self.model.infected_by(places + self.ids.start, step)
        records = np.empty(len(who), EXPOSURE)
        records["generation"] = self.generation[places[by]] + 1
        self.group.tell_records(who, records)
        return len(who)

    def update(self, step: int) -> list[int]:
        """Let those exposed fall ill, and some recover; return how many are susceptible, infectious, recovered."""
        sick = np.flatnonzero(self.state == INFECTIOUS)
        exposed = (self.state == SUSCEPTIBLE) & (self.generation != NEVER)
        self.state[sick[self.model.recovered(sick + self.ids.start, step)]] = RECOVERED
        self.state[exposed] = INFECTIOUS
        self.day[exposed] = step
        return counts_of(self.state)


class Run(NamedTuple):
    """What a run found: the counts of each step, when each agent fell ill, records sent, and seconds it took."""

    counts: Array  # steps x (susceptible, infectious, recovered)
    days: Array
    records: int
    seconds: float


def counts_of(state: Array) -> list[int]:
    """Return how many are susceptible, infectious, recovered."""
    return [int(np.count_nonzero(state == one)) for one in (SUSCEPTIBLE, INFECTIOUS, RECOVERED)]


def simulate(fab: Fabric, model: Model, steps: int) -> Run:
    """Run the epidemic on the workers of a fabric."""
    group: ArrayGroup = fab.spawn_array(Region, model.agents, model=model)
    cases = model.index_cases()
    group.tell_records(cases, np.zeros(len(cases), EXPOSURE))
    counts, records = [], 0
    start = time.perf_counter()
    for step in range(steps):
        records += sum(group.hosts.ask_all(("spread", step)))
        fab.drain()
        counts.append(np.sum(group.hosts.ask_all(("update", step)), axis=0))
    seconds = time.perf_counter() - start
    days = group.ask_records(np.arange(model.agents), np.full(model.agents, NEVER, "i4").view(EXPOSURE))
    group.stop()
    return Run(np.array(counts), days, records, seconds)


def plain(model: Model, steps: int) -> Run:
    """Run the same epidemic in this process, on whole arrays, with no messages."""
    state = np.full(model.agents, SUSCEPTIBLE, "u1")
    generation = np.full(model.agents, NEVER, "i4")
    day = np.full(model.agents, -1, "i4")
    generation[model.index_cases()] = 0
    counts, infections = [], 0
    start = time.perf_counter()
    for step in range(steps):
        sick = np.flatnonzero(state == INFECTIOUS)
        who, by = model.infected_by(sick, step)
        fresh = state[who] == SUSCEPTIBLE
        np.minimum.at(generation, who[fresh], generation[sick[by[fresh]]] + 1)
        exposed = (state == SUSCEPTIBLE) & (generation != NEVER)
        state[sick[model.recovered(sick, step)]] = RECOVERED
        state[exposed] = INFECTIOUS
        day[exposed] = step
        counts.append(counts_of(state))
        infections += len(who)
    return Run(np.array(counts), day, infections, time.perf_counter() - start)


def differences(ours: Run, theirs: Run) -> list[str]:
    """Say where two runs differ; an empty list where they are the same."""
    found = []
    unequal = np.flatnonzero((ours.counts != theirs.counts).any(axis=1))
    if len(unequal):
        step = unequal[0]
        found.append(
            f"step {step}: counts {ours.counts[step].tolist()}, plain numpy has {theirs.counts[step].tolist()}"
        )
    if (ours.days != theirs.days).any():
        found.append(f"{(ours.days != theirs.days).sum():,} agents fell ill in another step than in plain numpy")
    if ours.records != theirs.records:
        found.append(f"{ours.records:,} infections were sent, and plain numpy has {theirs.records:,}")
    return found


def plot(path: str, model: Model, ours: Run, theirs: Run, workers: int) -> None:
    """Draw when each agent fell ill, and the counts of each step.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    field, curves = figure.subplots(1, 2)
    figure.suptitle(f"An epidemic among {model.agents:,} agents on {workers} workers")
    rows = model.agents // model.width
    days = ours.days[: rows * model.width].reshape(rows, model.width)[:: 1 + rows // PLOTTED_PIXELS]
    shown = np.ma.masked_less(days[:, :: 1 + model.width // PLOTTED_PIXELS], 0)
    field.set_facecolor("lightgrey")
    image = field.imshow(shown, cmap="inferno_r", extent=(0, model.width, rows, 0), interpolation="nearest")
    figure.colorbar(image, ax=field, label="step in which the agent fell ill (grey: never)", shrink=0.8)
    for border in borders(model, workers):
        field.axhline(border, color="deepskyblue", linewidth=1, linestyle="--")
    field.set(title="The map; dashed: where one worker's agents end", xticks=[], yticks=[])
    names = (("susceptible", "tab:blue"), ("infectious", "tab:red"), ("recovered", "tab:green"))
    every = max(1, len(ours.counts) // 30)
    steps = np.arange(len(ours.counts))
    for column, (name, colour) in enumerate(names):
        curves.plot(steps, ours.counts[:, column], color=colour, label=name)
        curves.plot(steps[::every], theirs.counts[::every, column], "o", color=colour, markersize=4, fillstyle="none")
    curves.plot([], [], "o", color="grey", markersize=4, fillstyle="none", label="plain numpy")
    curves.set(title="How many", xlabel="step", ylabel="agents", ylim=(0, None), xlim=(0, len(steps) - 1))
    curves.yaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    curves.grid(alpha=0.3)
    curves.legend(loc="center left")
    figure.savefig(path, dpi=110)


def borders(model: Model, workers: int) -> list[float]:
    """Return the rows of the map at which the agents of the next worker begin."""
    return [model.agents * worker // workers / model.width for worker in range(1, workers)]


def main(arguments: list[str] | None = None) -> int:
    """Run both, compare, report; return 1 when they differ."""
    asked = _parse(arguments)
    model = Model(asked.agents, asked.seed)
    # What all infections of a step take must fit the outbox; pages are taken as they are first touched.
    outbox_bytes = 1 << max(23, (4 * model.agents).bit_length() + 2)
    with Fabric(workers=asked.workers, outbox_bytes=outbox_bytes) as fab:
        ours = simulate(fab, model, asked.steps)
    theirs = plain(model, asked.steps)
    steps = asked.steps
    ill = model.agents - int(ours.counts[-1][SUSCEPTIBLE])
    peak = int(ours.counts[:, INFECTIOUS].argmax())
    print(f"{model.agents:,} agents, {steps} steps, seed {model.seed}: {ill:,} fell ill", end=", ")
    print(f"the most at once were {ours.counts[peak][INFECTIOUS]:,}, in step {peak}")
    for name, run in ((f"array agents, {asked.workers} workers", ours), ("plain numpy, one process", theirs)):
        print(f"{name:24} {run.seconds:6.2f} s, {1000 * run.seconds / steps:6.2f} ms a step", end=", ")
        print(f"{run.records:,} infections {'as records' if run is ours else 'in arrays'}")
    found = differences(ours, theirs)
    print(*(found or ["the same counts in each step, and the same agents ill, as plain numpy has"]), sep="\n")
    if asked.plot:
        try:
            plot(asked.plot, model, ours, theirs, asked.workers)
            print(f"plot written to {asked.plot}")
        except ImportError:
            print("no plot: that needs matplotlib (pip install 'shm-fabric[plot]')", file=sys.stderr)
    return int(bool(found))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An epidemic among array agents, checked against plain numpy.")
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", metavar="FILE.png", help="draw the map and the counts (needs matplotlib)")
    asked = parser.parse_args(arguments)
    for name in ("agents", "workers", "steps"):
        if getattr(asked, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    return asked


def _key(seed: int, step: int, purpose: int) -> int:
    """Make one number of a seed, a step and what it is for."""
    return _mixed(_mixed(_mixed(seed) + step) + purpose)


def _mixed(number: int) -> int:
    """Scramble a number: the output step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & (2**64 - 1)
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & (2**64 - 1)
    return number ^ number >> 31


def _draws(ids: Array, key: int) -> Array:
    """Return a random 64-bit number for each agent: the same for the same agent and key, wherever it is drawn."""
    drawn = ids.astype("u8") * np.uint64(0x9E3779B97F4A7C15)
    drawn += np.uint64(key)
    drawn ^= drawn >> np.uint64(30)
    drawn *= np.uint64(0xBF58476D1CE4E5B9)
    drawn ^= drawn >> np.uint64(27)
    drawn *= np.uint64(0x94D049BB133111EB)
    drawn ^= drawn >> np.uint64(31)
    return drawn


def _happens(drawn: Array, share: float) -> Array:
    """Say of each number whether it is among this share of them, by its upper bits."""
    return drawn >> np.uint64(32) < np.uint64(share * 2**32)


if __name__ == "__main__":
    sys.exit(main())
