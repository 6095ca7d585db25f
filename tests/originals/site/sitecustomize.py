"""Point the originals' suites at another class, in this process and in every Python process that it starts.

    tests.originals.jobs            sets PYTHONPATH to this folder, and ORIGINALS_*
      └─ drive_unittest, _pytest    each interpreter imports `sitecustomize` before anything else,
           ├─ workers, children     so the class is ours here too,
           └─ python -c "..."       and here, where a script of the suite imports it by the original's name

Nothing is imported before its time: a module is redirected when the suite itself has imported it, and our class is made
when somebody asks for it. A redirected module answers getattr with ours; its own code still sees the original.
"""

import functools
import importlib
import importlib.machinery
import os
import sys
import types

SUBJECT = os.environ.get("ORIGINALS_SUBJECT", "original")  # or "fabric", "same", "faulty"
TARGET = os.environ.get("ORIGINALS_TARGET", "")  # one of TARGETS, or "joblib"
TESTS = os.environ.get("ORIGINALS_TESTS", "")  # a folder with more modules of the package `test`

# What is redirected for which suite: module, name in it, and what stands there with us. The contexts of multiprocessing
# look these names up at each call, so get_context("spawn").Pool() and multiprocessing.Pool() are ours too.
TARGETS = {
    "executor": {"concurrent.futures.process": {"ProcessPoolExecutor": "Executor"}},
    "pool": {"multiprocessing.pool": {"Pool": "Pool"}},
    "queues": {"multiprocessing.queues": {name: name for name in ("Queue", "JoinableQueue", "SimpleQueue")}},
}
FAULTS = {  # the methods that fail in the class "faulty", which proves that a suite has met it
    "ProcessPoolExecutor": ("submit",),
    "Pool": ("map", "apply_async"),
    "Queue": ("get",),
    "JoinableQueue": ("get",),
    "SimpleQueue": ("get",),
    "LokyBackend": ("submit", "apply_async"),
}


class AfterImport:
    """Call a function with a module, each time that one of these modules has been imported."""

    def __init__(self, actions):
        self._actions = actions

    def find_spec(self, name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in self._actions else None
        if spec is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                self._actions[name](module)

            spec.loader.exec_module = exec_module
        return spec


def _fault(*args, **kwargs):
    raise ZeroDivisionError("a planted fault")


def stand_in(module, original, ours):
    """Return a class under the original's name, by which pickle finds it: a subclass of ours, or of the original."""
    base = ours() if SUBJECT == "fabric" else original
    body = {"__module__": module, "__doc__": base.__doc__}
    if SUBJECT == "faulty":
        body.update(dict.fromkeys(FAULTS[original.__name__], _fault))
    if SUBJECT == "fabric" and original.__name__ == "ProcessPoolExecutor":
        body["__init__"] = functools.partialmethod(
            base.__init__, strict=True
        )  # one death breaks all, as with the original
    return type(original.__name__, (base,), body)


def _redirect(module):
    made = {}

    def answer(name, public):
        original = getattr(module, name)

        def read(_):
            if name not in made:
                made[name] = stand_in(
                    module.__name__, original, lambda: getattr(importlib.import_module("fabric"), public)
                )
            return made[name]

        return property(read)

    names = TARGETS[TARGET][module.__name__]
    module.__class__ = type("Redirected", (types.ModuleType,), {name: answer(name, names[name]) for name in names})


def _redirect_joblib(_):
    """Put a backend in loky's place, once joblib and our integration, which import each other, are both there."""
    joblib, integration = sys.modules.get("joblib.parallel"), None
    if SUBJECT == "fabric":
        integration = importlib.import_module("fabric.integrations.joblib")
        if not hasattr(integration, "register"):
            return  # it is being imported, and has joblib imported; we are called again when it is done
        integration.register()
    backends = sys.modules["joblib._parallel_backends"]
    if not hasattr(backends, "original_loky"):
        backends.original_loky = backends.LokyBackend
        made = stand_in(backends.__name__, backends.LokyBackend, lambda: joblib.BACKENDS["fabric"])
        backends.LokyBackend = joblib.LokyBackend = joblib.BACKENDS["loky"] = made
    joblib.BACKENDS.pop("fabric", None)  # else each test of all backends comes twice


def _more_tests(module):
    module.__path__.append(TESTS)


def _keep_environment(module):
    """Let scripts of the suites see PYTHONPATH: they start with -I unless Python is thought to need its variables."""
    vars(module)["__cached_interp_requires_environment"] = True


def _actions():
    actions = {"test.support.script_helper": _keep_environment}
    if TESTS:
        actions["test"] = _more_tests
    if SUBJECT != "original" and TARGET == "joblib":
        actions.update(dict.fromkeys(("joblib", "fabric.integrations.joblib"), _redirect_joblib))
    elif SUBJECT != "original":
        actions.update(dict.fromkeys(TARGETS[TARGET], _redirect))
    return actions


if "ORIGINALS_SUBJECT" in os.environ:
    sys.meta_path.insert(0, AfterImport(_actions()))
