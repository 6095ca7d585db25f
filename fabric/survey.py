"""Count what Python files hold, and add it up. No agents here: fabric.demo has them, and checks them against this.

find_modules(root) ──▶ Module ──▶ survey(module) ──▶ Report ──▶ Tally.add ──▶ Totals
"""

import ast
import gc
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TOP = "(top level)"  # the folder of files that lie in the root itself
_MOST_BYTES = 32 * 2**20  # a syntax tree takes a hundred times its source: what is larger is left out
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
# What holds nothing that is counted; not to look into it halves the time of the walk.
_LEAVES = frozenset(
    {ast.Load, ast.Store, ast.Del, ast.Name, ast.Constant, ast.alias, ast.Pass, int, str, bool, type(None)}
    | {kind for group in (ast.operator, ast.unaryop, ast.boolop, ast.cmpop) for kind in group.__subclasses__()}
)


class Module(NamedTuple):
    """Name a file: its path, that path without the root, its folder directly below the root, its size."""

    path: str
    name: str
    folder: str
    bytes: int


class Report(NamedTuple):
    """Say what a file holds.

    Functions are `def` and `async def`, methods and nested ones among them, but no lambdas. Branches are the
    places where the way parts: if and elif, conditional expressions, for, while, except, case, and each
    condition of a comprehension. Imports are modules named by import statements: `import a, b` makes two,
    `from a import b, c` one. `imported` has the first part of each absolute name, once and in order.
    """

    name: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0
    imported: tuple[str, ...] = ()
    problem: str = ""  # why nothing could be counted


class Totals(NamedTuple):
    """Add up reports; a file with a problem counts among the files and adds nothing else."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    branches: int = 0
    imports: int = 0

    def plus(self, report: Report) -> "Totals":
        """Return these totals with one more file."""
        return self.joined(Totals(1, *report[1:6]))

    def joined(self, other: "Totals") -> "Totals":
        """Return the sum of both."""
        return Totals(*(mine + others for mine, others in zip(self, other, strict=True)))


@dataclass
class Tally:
    """Hold the totals of a folder, and which of its files are empty or could not be parsed."""

    totals: Totals = field(default_factory=Totals)
    empty: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, report: Report) -> None:
        """Count a file. The order in which files come makes no difference to two tallies being equal."""
        self.totals = self.totals.plus(report)
        if report.problem:
            self.problems[report.name] = report.problem
        elif not report.lines:
            self.empty.add(report.name)


@dataclass
class Survey:
    """Hold what became of a whole tree: a tally for each folder, and how many files import which module."""

    folders: dict[str, Tally] = field(default_factory=dict)
    imported: Counter[str] = field(default_factory=Counter)

    def add(self, folder: str, report: Report) -> None:
        """Count a file."""
        self.folders.setdefault(folder, Tally()).add(report)
        self.imported.update(report.imported)

    @property
    def totals(self) -> Totals:
        """The totals of all folders."""
        whole = Totals()
        for tally in self.folders.values():
            whole = whole.joined(tally.totals)
        return whole

    def differences(self, other: "Survey") -> list[str]:
        """Say where two surveys of the same files differ; empty when they are equal."""
        found = []
        for name in sorted(self.folders.keys() | other.folders.keys()):
            mine, others = self.folders.get(name), other.folders.get(name)
            if mine != others:
                found.append(f"{name}: {_show(mine)}, but {_show(others)}")
        for name in sorted(self.imported.keys() | other.imported.keys()):
            if self.imported[name] != other.imported[name]:
                found.append(f"files that import {name}: {self.imported[name]:,}, but {other.imported[name]:,}")
        return found


def find_modules(root: str, skip: Iterable[str] = ()) -> tuple[list[Module], list[str]]:
    """Return the .py files under a folder, the largest first, and the folders that cannot be read.

    Folders named in `skip`, hidden ones and links to folders are passed over.
    """
    found: list[Module] = []
    unreadable: list[OSError] = []
    passed = {"__pycache__", *skip}
    for folder, below, files in os.walk(root, onerror=unreadable.append):
        below[:] = [name for name in below if name not in passed and not name.startswith(".")]
        inside = "" if folder == root else os.path.relpath(folder, root)
        top = inside.partition(os.sep)[0] or TOP
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                found.append(Module(path, os.path.join(inside, file), top, _size(path)))
    found.sort(key=lambda module: (-module.bytes, module.name))
    return found, [os.path.relpath(error.filename, root) for error in unreadable]


def survey(path: str, name: str) -> Report:
    """Read and parse a file; whatever is wrong with it ends up in the report's `problem`. Never raises."""
    try:
        source = _read(path)
        return _report(name, source, _parse(source))
    except OSError as error:
        return Report(name, problem=error.strerror or type(error).__name__)
    except RecursionError:
        return Report(name, problem="nested too deeply")
    except MemoryError:
        return Report(name, problem="too complex for the parser, or too large for the memory")
    except SyntaxError as error:
        where = f" (line {error.lineno})" if error.lineno else ""
        return Report(name, problem=f"{error.msg}{where}")
    except ValueError as error:  # a null byte, until Python 3.12
        return Report(name, problem=str(error))


def _read(path: str) -> bytes:
    mode = os.stat(path)
    if not stat.S_ISREG(mode.st_mode):
        raise OSError(0, "not a regular file")  # opening a pipe would wait for ever
    if mode.st_size > _MOST_BYTES:
        raise OSError(0, f"over {_MOST_BYTES >> 20} MiB")
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES)


def _parse(source: bytes) -> ast.AST:
    """Parse without the garbage collector, which would look through the growing tree and find nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the files, not of ours
            return ast.parse(source)
    finally:
        if collects:
            gc.enable()


def _report(name: str, source: bytes, tree: ast.AST) -> Report:
    nodes = _nodes(tree)
    kinds = Counter(map(type, nodes))
    conditions = sum(len(node.ifs) for node in nodes if type(node) is ast.comprehension)
    modules = [module for node in nodes if type(node) in _IMPORTS for module in _modules(node)]
    return Report(
        name,
        lines=len(source.splitlines()),
        functions=sum(kinds[kind] for kind in _FUNCTIONS),
        classes=kinds[ast.ClassDef],
        branches=sum(kinds[kind] for kind in _BRANCHES) + conditions,
        imports=len(modules),
        imported=tuple(dict.fromkeys(first for module in modules if (first := module.partition(".")[0]))),
    )


def _nodes(tree: ast.AST) -> list[Any]:
    """List the nodes of a tree, save leaves. Takes a quarter of the time of ast.walk."""
    nodes: list[Any] = [tree]
    append = nodes.append
    for node in nodes:  # which grows meanwhile
        for name in node._fields:
            value = getattr(node, name, None)
            if type(value) is list:
                for item in value:
                    if type(item) not in _LEAVES:
                        append(item)
            elif type(value) not in _LEAVES:
                append(value)
    return nodes


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the modules that a statement names; a relative one begins with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return ["." * node.level + (node.module or "")]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nowhere or to itself; the report says so
        return 0


def _show(tally: Tally | None) -> str:
    if tally is None:
        return "nothing"
    counts = ", ".join(f"{count:,} {name}" for name, count in tally.totals._asdict().items())
    return f"{counts}, {len(tally.empty)} empty, {len(tally.problems)} not parsed"
