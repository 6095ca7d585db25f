"""Lay out what `python -m fabric top` shows: samples go in, lines of styled text come out. Pure; fits any width.

shm-fabric  process 1234  python train.py  ...      who is watched
messages/s  182 k  ▁▂▃▅▇    handler p99  ...        totals, with their history
worker   pid  state  agents  messages/s  ...        a line each; columns that do not fit are left out
who waits for whom
class  messages/s  errors  handler p50  p99
q quit  s stack  ...
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fabric.samples import Sample
from fabric.statistics import WorkerStatistics
from fabric.tables import printable
from fabric.waits import HUNG, IDLE, RUNNING, STARTING, STOPPED, Waits, WorkerState
from fabric.wording import rate, share, size, span, sparkline

Span = tuple[str, str]  # text, style of rich ("" for none)
Line = list[Span]

_STYLES = {RUNNING: "green", IDLE: "dim", STARTING: "yellow", STOPPED: "bold red", HUNG: "bold red"}
_HISTORY = 60
_MOST_WAITS = 6
_MOST_CLASSES = 6
_FULL = 0.9  # of a lane: then its source waits for room, or soon will
SORTS = {"w": "worker", "r": "messages/s", "u": "queue", "h": "p99", "b": "busy", "c": "CPU", "m": "memory"}


class Row(NamedTuple):
    """What is known of one worker."""

    figures: WorkerStatistics
    state: WorkerState | None
    sample: Sample

    @property
    def name(self) -> str:
        """What it does; idle is who sleeps now and has handled nothing in the interval."""
        state = STARTING if self.state is None else self.state.state
        return RUNNING if state == IDLE and _messages(self) else state

    def percentiles(self, name: str) -> list[float]:
        """Return p50 and p99, in seconds, of one of its histograms, of the last interval."""
        return self.sample.worker_histogram(self.figures.slot, name).percentiles(0.5, 0.99)

    def usage(self, name: str) -> float:
        """Return what the system says of it; 0 where that is not known."""
        return getattr(self.sample.usage.get(self.figures.pid), name, 0)


class Column(NamedTuple):
    """One column of the table of workers."""

    title: str
    show: Callable[[Row], str]
    order: Callable[[Row], float]  # to sort by; the largest first
    drop: int = 0  # which columns go first where there is no room: the largest number


def _handler(row: Row) -> list[float]:
    return row.percentiles("handler_time")


def _lane(row: Row) -> list[float]:
    return row.percentiles("lane_time")


def _busy(row: Row) -> float:
    return row.sample.busy(row.figures.slot)


def _in_hand(row: Row) -> str:
    found = row.state.in_hand if row.state else None
    return f"{found.kind or 'agent'} {found.agent} {span(found.seconds)}" if found and found.seconds else ""


def _messages(row: Row) -> float:
    return row.sample.process_rate(row.figures.slot, "messages")


COLUMNS = (
    Column("worker", lambda row: str(row.figures.slot), lambda row: -row.figures.slot),
    Column("pid", lambda row: str(row.figures.pid), lambda row: row.figures.pid),
    Column("state", lambda row: row.name, lambda row: 0),
    Column("agents", lambda row: f"{row.figures.agents:,}", lambda row: row.figures.agents, 4),
    Column("messages/s", lambda row: rate(_messages(row)), _messages),
    Column("queue", lambda row: size(row.figures.lane_bytes), lambda row: row.figures.lane_bytes),
    Column("p50", lambda row: span(_handler(row)[0]), lambda row: _handler(row)[0], 6),
    Column("p99", lambda row: span(_handler(row)[1]), lambda row: _handler(row)[1]),
    Column("lane p50", lambda row: span(_lane(row)[0]), lambda row: _lane(row)[0], 9),
    Column("lane p99", lambda row: span(_lane(row)[1]), lambda row: _lane(row)[1], 3),
    Column("busy", lambda row: share(_busy(row)), _busy, 2),
    Column("CPU", lambda row: share(row.usage("cpu")), lambda row: row.usage("cpu")),
    Column("memory", lambda row: size(row.usage("private_bytes")), lambda row: row.usage("private_bytes"), 1),
    Column("restarts", lambda row: str(max(0, row.figures.starts - 1)), lambda row: row.figures.starts, 5),
    Column("in hand", _in_hand, lambda row: row.state.in_hand.seconds if row.state and row.state.in_hand else 0, 8),
)


class View:
    """What is shown, and what the keys have changed of it."""

    def __init__(self, about: str, interval: float, plain: bool = False) -> None:
        """`about` says who is watched."""
        self._about = printable(about)
        self._interval = interval
        self._plain = plain
        self._history: dict[str, deque[float]] = {}
        self._sample: Sample | None = None
        self._waits: Waits | None = None
        self.sort = "worker"
        self.paused = False
        self.chosen: int | None = None  # slot whose stack is asked for
        self.text = ""  # shown in place of all, until a key is hit

    def take(self, sample: Sample, waits: Waits) -> None:
        """Take in what was seen last."""
        self._sample, self._waits = sample, waits
        if sample.before is None:
            return
        for name, value in self._totals(sample):
            self._history.setdefault(name, deque(maxlen=_HISTORY)).append(value)

    def rows(self) -> list[Row]:
        """The workers, sorted."""
        sample, waits = self._sample, self._waits
        if sample is None or waits is None:
            return []
        rows = [Row(one, waits.worker(one.slot), sample) for one in sample.statistics.workers]
        order = next(column.order for column in COLUMNS if column.title == self.sort)
        return sorted(rows, key=lambda row: (-order(row), row.figures.slot))

    def choose(self, step: int) -> None:
        """Choose the worker above or below."""
        slots = [row.figures.slot for row in self.rows()]
        if slots:
            at = slots.index(self.chosen) if self.chosen in slots else -1 if step > 0 else 0
            self.chosen = slots[(at + step) % len(slots)]

    def suspect(self) -> int | None:
        """The worker chosen, or else the one that has had its message in hand for longest."""
        rows = self.rows()
        slots = [row.figures.slot for row in rows]
        if self.chosen in slots or not slots:
            return self.chosen if self.chosen in slots else None
        held = next(column.order for column in COLUMNS if column.title == "in hand")
        return max(rows, key=held).figures.slot

    def lines(self, width: int, height: int | None = None, keys: bool = True) -> list[Line]:
        """Lay it out. With a height, workers and classes that do not fit are counted only."""
        if self.text:
            shown = [[(printable(line.replace("\t", "    "))[:width], "")] for line in self.text.splitlines()]
            return [*(shown if height is None else shown[: height - 1]), [("any key: back", "dim")]]
        sample, waits = self._sample, self._waits
        if sample is None or waits is None:
            return [[("looking ...", "dim")]]
        top = [self._header(sample, width), [], *self._figures(sample, width), self._counts(sample), []]
        below = [*_section("who waits for whom", wait_lines(waits, width), _MOST_WAITS)]
        below += _section("", class_lines(sample), _MOST_CLASSES + 1)
        foot = [[], self._foot(width)] if keys else []
        table = self._table(width)
        room = None
        if height is not None:  # half of it is the workers', if they need that
            left = max(0, height - len(top) - len(foot))
            below = below[: left - min(len(table), max(3, left // 2))]
            room = max(2, left - len(below))
        lines = [_fitted(line, width) for line in (*top, *_cut(table, room, "workers"), *below)]
        return [*lines, *foot] if height is None else [*lines[: height - len(foot)], *foot][:height]

    def _totals(self, sample: Sample) -> list[tuple[str, float]]:
        trip = sample.round_trip.percentile(0.99)
        handler, lane = sample.handler_time.percentile(0.99), sample.lane_time.percentile(0.99)
        return [
            ("messages/s", sample.rate("messages")),
            ("handler p99", handler),
            ("lane p99", lane),
            ("ask p99", trip),
        ]

    def _header(self, sample: Sample, width: int) -> Line:
        found = sample.statistics
        parts = [f"{len(found.workers)} workers", f"{found.agents:,} agents"]
        left = f"shm-fabric  process {found.coordinator.pid}  {self._about}"
        right = f"{', '.join(parts)}  {'PAUSED' if self.paused else f'each {self._interval:g} s'}"
        if not found.measuring:
            right = f"metrics are off  {right}"
        room = max(0, width - len(right) - 2)
        left = left if len(left) <= room else f"{left[: max(0, room - 3)]}..."
        return [(left.ljust(room + 2), "bold"), (right, "bold yellow" if self.paused else "")]

    def _figures(self, sample: Sample, width: int) -> list[Line]:
        """The totals with their history, as many beside one another as there is room for."""
        across = 4 if width >= 136 else 2
        cell = width // across
        cells = []
        for name, value in self._totals(sample):
            head = f"{name} {rate(value) if name == 'messages/s' else span(value)} "
            head = head.ljust(22 if name == "messages/s" else 20)
            bars = sparkline(self._history.get(name, ()), max(0, cell - len(head) - 2), self._plain)
            cells.append([(head, "bold"), (bars.ljust(cell - len(head)), "cyan")])
        return [[one for cell in cells[at : at + across] for one in cell] for at in range(0, len(cells), across)]

    def _counts(self, sample: Sample) -> Line:
        found = sample.statistics
        counts = {
            "errors": found.errors,
            "timeouts": found.coordinator.timeouts,
            "dead letters": found.dead_letters,
            "restarts": found.restarts,
            "redelivered": found.redelivered,
            "no room": found.coordinator.backpressure_waits,
        }
        line: Line = []
        for name, value in counts.items():
            line += [(f"{name} ", "dim"), (f"{value:,}  ", "bold red" if value and name != "no room" else "")]
        return line

    def _table(self, width: int) -> list[Line]:
        rows = self.rows()
        columns = list(COLUMNS)
        cells = [[column.show(row) for column in columns] for row in rows]
        widths = [max(len(column.title), *(len(line[i]) for line in cells), 0) for i, column in enumerate(columns)]
        kept = list(range(len(columns)))
        while sum(widths[i] + 2 for i in kept) > width:
            least = max(kept, key=lambda i: columns[i].drop)
            if not columns[least].drop:
                break
            kept.remove(least)
        lines: list[Line] = [[("  ", "")]]
        for i in kept:
            title = columns[i].title
            lines[0].append((_padded(title, widths[i], i), "bold reverse" if title == self.sort else "bold"))
            lines[0].append(("  ", ""))
        for row, line in zip(rows, cells, strict=True):
            chosen = row.figures.slot == self.chosen
            style = "bold" if chosen else ""
            shown: Line = [("> " if chosen else "  ", style)]
            for i in kept:
                state = columns[i].title == "state"
                shown.append((f"{_padded(line[i], widths[i], i)}  ", _STYLES.get(row.name, "") if state else style))
            lines.append(shown)
        return [_fitted(line, width) for line in lines]

    def _foot(self, width: int) -> Line:
        keys = "q quit  s stack  j/k choose  p pause"
        sorts = "  ".join(f"{key} {name}" for key, name in SORTS.items())
        if len(keys) + len(sorts) + 8 > width:
            sorts = " ".join(SORTS)
        return _fitted([(keys, "reverse"), (f"  sort: {sorts}", "dim")], width)


def wait_lines(waits: Waits, width: int) -> list[Line]:
    """Say what lies in which lane, and whose message a worker has had in hand for long."""
    lines: list[Line] = []
    for worker in sorted(waits.workers, key=lambda one: -(one.in_hand.seconds if one.in_hand else 0)):
        found = worker.in_hand
        if found is not None and found.seconds >= 1:
            kind = f" ({found.kind})" if found.kind else ""
            sender = f"{_process(found.sender)} {'waits for the reply' if found.asked else 'told it'}"
            text = f"worker {worker.slot}: {span(found.seconds)} in agent {found.agent}{kind}, {sender}"
            lines.append([(text, _STYLES.get(worker.state, ""))])
        if worker.outbox_bytes:
            text = f"worker {worker.slot} keeps {size(worker.outbox_bytes)} until there is room in the lanes of others"
            lines.append([(text, "yellow")])
    for lane in waits.lanes:
        fill = lane.bytes / lane.capacity
        count = f"{lane.records:,} message{'' if lane.records == 1 else 's'}, " if lane.records else ""
        full = ": no room, the sender waits" if fill >= _FULL else ""
        text = (
            f"{_process(lane.source)} -> {_process(lane.target)}: {count}{size(lane.bytes)}, {share(fill)} full{full}"
        )
        lines.append([(text, "yellow" if full else "")])
    return [_fitted(line, width) for line in lines] or [[("nobody: all lanes are empty", "dim")]]


def class_lines(sample: Sample) -> list[Line]:
    """Say what agents of each class do, the busiest first."""
    before = {one.name: one for one in sample.before.classes} if sample.before else {}
    found = []
    for one in filter(lambda one: one.messages, sample.statistics.classes):  # the time of mixed batches is nobody's
        then = before.get(one.name)
        messages = one.messages - (then.messages if then else 0)
        times = one.handler_time - then.handler_time if then else one.handler_time
        found.append((messages / sample.seconds if sample.seconds else 0.0, one, times.percentiles(0.5, 0.99)))
    if not found:
        return []
    widest = max(5, *(len(one.name) for _, one, _ in found))
    title = f"  {'class'.ljust(widest)}  {'messages/s':>10}  {'messages':>13}  {'errors':>8}  {'p50':>7}  {'p99':>7}"
    lines: list[Line] = [[(title, "bold")]]
    for per_second, one, (p50, p99) in sorted(found, key=lambda item: -item[0]):
        name = printable(one.name).ljust(widest)
        text = (
            f"  {name}  {rate(per_second):>10}  {one.messages:>13,}  {one.errors:>8,}  {span(p50):>7}  {span(p99):>7}"
        )
        lines.append([(text, "")])
    return lines


def _section(title: str, lines: list[Line], most: int) -> list[Line]:
    head: list[Line] = [[], *([[(title, "bold")]] if title else [])]
    indented = [[("  ", ""), *line] if title else line for line in lines]
    return [*head, *_cut(indented, most + 1, "more")] if lines else []


def _cut(lines: list[Line], room: int | None, what: str) -> list[Line]:
    if room is None or len(lines) <= room:
        return lines
    left = len(lines) - room + 1
    return [*lines[: room - 1], [(f"  and {left} more" if what == "more" else f"  and {left} more {what}", "dim")]]


def _process(slot: int) -> str:
    return f"worker {slot}" if slot else "coordinator"


def _padded(text: str, width: int, column: int) -> str:
    left = COLUMNS[column].title in ("state", "in hand")
    return text.ljust(width) if left else text.rjust(width)


def _fitted(line: Sequence[Span], width: int) -> Line:
    """Cut a line at a width."""
    fitted: Line = []
    for text, style in line:
        fitted.append((text[:width], style))
        width -= len(text)
        if width <= 0:
            break
    return fitted
