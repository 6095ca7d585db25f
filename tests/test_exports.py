"""What users may import, and the modules that may touch the C library."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import fabric

ROOT = Path(__file__).parents[1]

ERRORS = {
    "FabricError",
    "AgentError",
    "AgentNotFoundError",
    "BackpressureError",
    "ClosedError",
    "EncodingError",
    "LayoutError",
    "MessageTooLargeError",
    "PoisonMessageError",
    "SpawnError",
    "WorkerLostError",
}
PUBLIC = ERRORS | {
    "Agent",
    "AgentGroup",
    "AgentRef",
    "ArrayAgents",
    "ArrayGroup",
    "DeadLetter",
    "Executor",
    "Fabric",
    "FabricConfig",
    "JoinableQueue",
    "Monitor",
    "Queue",
    "Pool",
    "Shared",
    "ShutDown",
    "SimpleQueue",
    "Statistics",
    "StreamChunk",
    "Wave",
    "WorkerStatistics",
    "rng",
    "task_generator",
}
# What binds the C library. Not one, because lanes, arenas and queues are subjects of their own.
BINDINGS = (
    "batch",
    "columns",
    "heap",
    "layout",
    "lending",
    "lifeline",
    "measured",
    "private",
    "queue_ring",
    "ring",
)
BORROWED = re.compile(rf"fabric\._native(\.|$)|fabric\.({'|'.join(BINDINGS)})\.(ffi|lib)$")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def _sources() -> dict[str, str]:
    """Return the text of every Python file that could import the library, by its path in the checkout."""
    paths = [path for folder in ("fabric", "workers", "bench") for path in (ROOT / folder).rglob("*.py")]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def _touches_the_library(source: str) -> bool:
    """Say whether a source imports fabric._native, or borrows ffi or lib from a module that does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        if any(BORROWED.match(name) for name in names):
            return True
    return False


def test_fabric_exports_exactly_the_documented_names():
    assert len(fabric.__all__) == len(set(fabric.__all__))
    assert set(fabric.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_exported_name_is_there(name):
    assert getattr(fabric, name) is not None


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_error_derives_from_ours(name):
    assert issubclass(getattr(fabric, name), fabric.FabricError)


def test_only_the_bindings_touch_the_library():
    touching = [path for path, source in _sources().items() if _touches_the_library(source)]
    assert sorted(touching) == [f"fabric/{name}.py" for name in BINDINGS]


@pytest.mark.parametrize(
    "source",
    [
        "from fabric._native import lib",
        "import fabric._native as native",
        "from fabric import _native",
        "def late():\n    from fabric.ring import ffi",
        "from fabric.lending import lib",
        "from fabric.batch import ffi",
    ],
)
def test_touching_the_library_is_caught(source):
    assert _touches_the_library(source)


def test_the_built_library_has_exactly_the_functions_of_the_cdef():
    declared = COMMENT.sub("", (ROOT / "native/fab_native.cdef.h").read_text(encoding="utf-8"))
    functions = set(re.findall(r"\b(fab_\w+)\s*\(", declared))
    lib = importlib.import_module("fabric._native").lib
    built = {name for name in dir(lib) if callable(getattr(lib, name))}
    assert functions
    assert built == functions, "the extension is not built from this cdef; run scripts/env"
