"""The architecture as a table: a module imports from lower rows only, and every module has a row.

The worker processes and the coordinator share the rows up to that of `fabric.array_agents`. Above it they are two
sides, which meet in the segment and in the messages and never import each other. The exception is what runs
both in one process, for tests of agents: `fabric.inline` and `fabric.testing`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (  # lowest first; a name that ends in .* stands for all modules of that package
    ("fabric.threads",),
    (
        "fabric.errors",
        "fabric.config",
        "fabric.messages",
        "fabric.counters",
        "fabric.guarded_log",
        "fabric.histogram",
        "fabric.stopwatch",
        "fabric.usage",
        "fabric.progress",
        "fabric.reopening",
        "fabric.seeds",
        "fabric.signals",
        "fabric.workers",
        "fabric.integrations",
        "fabric.survey",
        "fabric.tables",
        "fabric.wording",
        "fabric.screen",
    ),
    ("fabric._native", "fabric.chunk", "fabric.exponential", "fabric.log_frames"),
    ("fabric.layout", "fabric.columns", "fabric.heap", "fabric.records", "fabric.lifeline"),
    ("fabric.ring", "fabric.measured"),
    (
        "fabric.batch",
        "fabric.lending",
        "fabric.tally",
        "fabric.private",
        "fabric.queue_ring",
        "fabric.queue_items",
        "fabric.parcel",
        "fabric.arrays",
        "fabric.looks",
    ),
    ("fabric.encoded",),
    ("fabric.pickling",),
    ("fabric.remote_errors",),
    ("fabric.orders",),
    ("fabric.segment", "fabric.codec", "fabric.wire"),
    ("fabric.arena", "fabric.views", "fabric.lanes"),
    ("fabric.meters",),
    ("fabric.attaching",),
    (
        "fabric.callables",
        "fabric.receiver",
        "fabric.sender",
        "fabric.inheriting",
        "fabric.large",
        "fabric.loans",
        "fabric.agent",
        "fabric.flow",
        "fabric.statistics",
    ),
    ("fabric.agent_checks",),
    (
        "fabric.array_agents",
        "fabric.task_runner",
        "fabric.chunks",
        "fabric.placement",
        "fabric.readings",
        "fabric.samples",
        "fabric.waves",
        "fabric.window",
        "fabric.admission",
        "fabric.routing",
        "fabric.restart",
        "fabric.recycling",
        "fabric.hangs",
        "fabric.workers.journal",
        "fabric.workers.preload",
        "fabric.launch",
        "fabric.stacks",
        "fabric.log_pipe",
        "fabric.workers.logs",
        "fabric.payloads",
        "fabric.same",
        "fabric.inline_arena",
    ),
    (
        "fabric.alerts",
        "fabric.figures",
        "fabric.workers.vault",
        "fabric.queue_holder",
        "fabric.pace",
        "fabric.chunking",
        "fabric.sources",
        "fabric.fork_server",
        "fabric.lookout",
    ),
    ("fabric.pool_runner",),
    (
        "fabric.workers.handler_clock",
        "fabric.workers.idle_selector",
        "fabric.workers.keeper",
        "fabric.workers.ledger",
        "fabric.workers.outbox",
        "fabric.workers.warm",
        "fabric.workers.memory",
        "fabric.crew",
        "fabric.postmortem",
        "fabric.unasked",
        "fabric.aside",
        "fabric.sampler",
        "fabric.pending",
        "fabric.pump",
        "fabric.directory",
        "fabric.inline_lanes",
        "fabric.inline_loop",
    ),
    (
        "fabric.workers.context",
        "fabric.workers.ranges",
        "fabric.workers.reading",
        "fabric.workers.receivers",
        "fabric.workers.recovery",
        "fabric.replies",
        "fabric.salvage",
        "fabric.blame",
        "fabric.ending",
        "fabric.mending",
        "fabric.waits",
    ),
    ("fabric.monitor", "fabric.lane_ends", "fabric.culling"),
    ("fabric.workers.later", "fabric.workers.requests"),
    ("fabric.workers.streaming", "fabric.workers.streams", "fabric.switchboard"),
    ("fabric.workers.mailbox", "fabric.workers.messenger", "fabric.streams"),
    ("fabric.workers.residents",),
    ("fabric.workers.host", "fabric.spawning", "fabric.record_post"),
    (
        "fabric.waving",
        "fabric.supervisor",
        "fabric.messenger",
        "fabric.workers.publisher",
        "fabric.workers.orders",
        "fabric.workers.restoring",
    ),
    ("fabric.array_spawner", "fabric.workers.unfinished"),
    ("fabric.agent_spawner",),
    ("fabric.workers.early", "fabric.workers.loop", "fabric.coordinator"),
    ("fabric.workers.forkserver", "fabric.queue"),
    ("fabric.task_settings", "fabric.task_errors", "fabric.task_future", "fabric.processes"),
    ("fabric.task_queue", "fabric.seat", "fabric.pool_errors"),
    ("fabric.task_crew",),
    ("fabric.steward",),
    ("fabric.task_endings",),
    ("fabric.task_pool",),
    ("fabric.runs",),
    ("fabric.pool_results",),
    ("fabric.mapping",),
    ("fabric.executor",),
    ("fabric.integrations.shared_pools", "fabric.integrations.lent_arrays"),
    ("fabric.pool",),
    ("fabric.integrations.families",),
    ("fabric.integrations.prometheus_protobuf",),
    ("fabric.integrations.scrapes", "fabric.integrations.otel_histograms"),
    ("fabric.inline_host",),
    ("fabric.inline",),
    ("fabric.testing",),
    ("fabric.workers.__main__", "fabric"),  # `fabric` is the list of public names
    ("fabric.integrations.dashboard.frames", "fabric.integrations.dashboard.page"),
    ("fabric.integrations.dashboard.feed", "fabric.integrations.dashboard.requests"),
    ("fabric.integrations.dashboard.server",),
    ("fabric.demo", "fabric.demo_output", "fabric.doctor", "fabric.integrations.*"),
    ("fabric.top_view",),
    ("fabric.demo_run", "fabric.top"),
    ("fabric.__main__",),
)
BOTH = ("fabric.inline", "fabric.inline_host", "fabric.testing")  # they run coordinator and workers in one process


def _row(module: str) -> int | None:
    """Return the row of a module, or None for one that nobody has placed."""
    names = {module, module.rpartition(".")[0] + ".*"}
    return next((row for row, members in enumerate(LAYERS) if names & set(members)), None)


def _side(module: str) -> str | None:
    """Return which side a module belongs to, or None for one that serves both."""
    if module.startswith("fabric.workers."):
        return "worker"
    return "coordinator" if _row(module) > _row("fabric.array_agents") else None


def _modules() -> dict[str, Path]:
    """Return the path of every module by its import name; workers/ by its folder, not through the symlink."""
    found = {}
    for folder, package in ((ROOT / "fabric", "fabric"), (ROOT / "workers", "fabric.workers")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = _modules()


def _imports(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and module of each import; one in a function or under TYPE_CHECKING counts too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield node.lineno, member if member in MODULES else node.module


def _objections(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of a module, each with its line."""
    found = []
    for line, imported in _imports(source):
        if imported.startswith("."):
            found.append(f"{module}:{line} imports {imported} relatively; write the whole name")
        elif imported.split(".")[0] == "workers":
            found.append(f"{module}:{line} imports {imported}; its name is fabric.{imported}")
        elif imported.split(".")[0] != "fabric":
            continue
        elif _row(imported) is None:
            found.append(f"{module}:{line} imports {imported}, which has no row in LAYERS")
        elif _row(imported) >= _row(module):
            found.append(f"{module}:{line} imports {imported}, which is not in a lower row")
        elif module not in BOTH and {_side(module), _side(imported)} == {"worker", "coordinator"}:
            found.append(f"{module}:{line} imports {imported}, which is on the other side")
    return found


def test_every_module_has_one_row():
    members = [name for row in LAYERS for name in row]
    assert len(members) == len(set(members))
    assert [name for name in MODULES if _row(name) is None] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_lower_rows_only(module):
    assert _row(module) is not None, f"{module} has no row in LAYERS; place it"
    assert _objections(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "objection"),
    [
        ("fabric.codec", "from fabric.coordinator import Fabric", "not in a lower row"),
        ("fabric.codec", "import fabric.segment", "not in a lower row"),
        ("fabric.codec", "def late():\n    from fabric import Fabric", "not in a lower row"),
        ("fabric.coordinator", "import fabric.workers.host", "on the other side"),
        ("fabric.workers.loop", "from fabric.crew import Crew", "on the other side"),
        ("fabric.codec", "from .errors import EncodingError", "relatively"),
        ("fabric.codec", "from . import errors", "relatively"),
        ("fabric.workers.loop", "from workers.host import Host", "fabric.workers.host"),
        ("fabric.codec", "import fabric.unheard_of", "no row"),
    ],
)
def test_a_forbidden_import_is_caught(module, source, objection):
    [found] = _objections(module, source)
    assert objection in found


def test_lower_rows_other_packages_and_the_exception_are_allowed():
    assert _objections("fabric.codec", "import pickle, numpy\nfrom fabric.errors import EncodingError") == []
    assert _objections("fabric.testing", "from fabric.workers.host import Host\nimport fabric.spawning") == []
