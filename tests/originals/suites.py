"""The table of the originals' suites: which tests of which modules, and what is redirected to us while they run.

A suite runs in parts, each in a process of its own. Left out is what never touches our classes: tests of threads and of
managers, which have pools and queues of their own.
"""

import importlib.util
from dataclasses import dataclass

METHODS = ("fork", "forkserver", "spawn")
FUTURES = ("process_pool", "shutdown", "wait", "as_completed", "deadlock", "init")

SELECT = {
    "pool": r"^(WithProcessesTestPool|TestPoolNotLeak|TestInitializers\.test_pool|TestStdin.*\.test_pool|Misc.*_large)",
    "queues": r"^(WithProcessesTestQueue|TestSimpleQueue|TestStdin.*\.test_queue|TestStartMethod\.test_(mixed|nested))",
    "executor fork": r"^ProcessPoolFork(?!server)",
    "executor forkserver": r"^ProcessPoolForkserver",
    "executor spawn": r"^(ProcessPoolSpawn|FailingInitializerResources)",
}


@dataclass(frozen=True)
class Part:
    """Tests that one process runs. `select` is searched for in the name of a test, before which `prefix` is put."""

    suite: str
    name: str
    driver: str
    modules: tuple[str, ...]
    select: str = ""
    prefix: str = ""


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _modules(*candidates: str) -> tuple[str, ...]:
    """Return those modules that this Python has: its versions split their tests in different ways."""
    return tuple(module for module in candidates if _there(module))


def parts(suite: str) -> list[Part]:
    """Return the parts of a suite; one without modules is of a Python whose tests are not installed."""
    if suite == "joblib":
        return [Part(suite, suite, "drive_pytest", _modules("joblib.test.test_parallel"))]
    if suite == "executor":
        whole = "test.test_concurrent_futures"
        modules = _modules(*(f"{whole}.test_{name}" for name in FUTURES)) or _modules(whole)
        names = [f"{suite} {method}" for method in METHODS]
        return [Part(suite, name, "drive_unittest", modules, SELECT[name]) for name in names]
    found = []
    for method in METHODS:
        whole = f"test.test_multiprocessing_{method}"
        modules = _modules(f"{whole}.test_processes", f"{whole}.test_misc") or _modules(whole)
        found.append(Part(suite, f"{suite} {method}", "drive_unittest", modules, SELECT[suite], f"{method}:"))
    return found


SUITES = ("executor", "pool", "queues", "joblib")
