"""Pickle functions once, where that makes no difference: a task in ten million has the function of the one before.

    importable                   by reference: its pickle is its name, and never changes
    of `__main__`, a closure     by value (cloudpickle, 100 us): good for as long as all that it holds of its
                                 surroundings is the same and cannot change itself: numbers, texts, modules,
                                 importable functions and classes, other functions of which this is true
    anything else                pickled with each task, as it is then: an object's state may change

The worker keeps what it unpickled by these bytes (fabric.task_runner).
"""

import enum
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fabric.pickling import dump_pickle

_KEPT = 128


class _Absent(enum.Enum):
    NAME = "absent"


_CONSTANTS = frozenset({int, float, complex, bool, str, bytes, type(None), type(...), range, types.ModuleType})
_ABSENT = _Absent.NAME  # of a global: a builtin, an attribute's name, or one that is to come
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


class FunctionCache:
    """The pickles of functions. Any thread."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[bytes, list[tuple[Callable[[], Any], Any]]]] = {}

    def dump(self, function: Any) -> bytes | None:
        """Return the pickle of a function, None for a callable that has to be pickled with each task.

        Raises:
            EncodingError: it cannot be pickled.
        """
        if type(function) not in _FUNCTIONS:
            return None
        known = self._known.get(function)
        if known is not None:
            data, facts = known
            if not facts or all(look() is then for look, then in facts):
                return data
        return self._dump_anew(function)

    def _dump_anew(self, function: Any) -> bytes | None:
        self._known.pop(function, None)
        if type(function) is types.BuiltinFunctionType and not isinstance(function.__self__, types.ModuleType):
            return None  # a method of some object
        if _is_importable(function):
            data, facts = dump_pickle(function), []
        else:
            found = _facts_of(function)
            if found is None:
                return None
            data, facts = dump_pickle(Located(function, function.__code__.co_filename)), found
        while len(self._known) >= _KEPT:
            self._known.pop(next(iter(self._known)), None)
        self._known[function] = data, facts
        return data


class Located(NamedTuple):
    """A function by value, and the file it is from, which cloudpickle leaves out: tracebacks are to show its lines."""

    function: Any  # types.FunctionType, which mypy takes for a method here
    filename: str

    def there(self) -> Any:
        """Return the function, as from its file."""
        self.function.__code__ = self.function.__code__.replace(co_filename=self.filename)
        return self.function


def _is_importable(thing: Any) -> bool:
    """Does pickle find this by its name, in a module that workers can import?"""
    try:
        return b"__main__" not in pickle.dumps(thing, 5)
    except Exception:  # a closure, a lambda: by value, then
        return False


def _facts_of(function: types.FunctionType) -> list[tuple[Callable[[], Any], Any]] | None:
    """Return what has to hold for a pickle by value to stay good: (how to look, what was seen). None: nothing can."""
    facts: list[tuple[Callable[[], Any], Any]] = []
    seen: set[types.FunctionType] = set()
    waiting = [function]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.__dict__ or current.__kwdefaults__:
            return None
        facts.append((lambda f=current: f.__code__, current.__code__))  # type: ignore[misc]
        facts.append((lambda f=current: f.__defaults__, current.__defaults__))  # type: ignore[misc]
        for look, value in _surroundings(current):
            facts.append((look, value))
            if value is _ABSENT:
                continue
            if type(value) is types.FunctionType and not _is_importable(value):
                waiting.append(value)
            elif type(value) is types.ModuleType and sys.modules.get(value.__name__) is not value:
                return None  # made at run time: it goes by value
            elif not (type(value) in _CONSTANTS or (isinstance(value, (type, *_FUNCTIONS)) and _is_importable(value))):
                return None
        if not all(type(value) in _CONSTANTS for value in current.__defaults__ or ()):
            return None
    return facts


def _surroundings(function: types.FunctionType) -> Iterator[tuple[Callable[[], Any], Any]]:
    """Yield what a function takes from outside: cells of its closure, and globals that its code names."""
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # empty still
            value = _NOTHING
        yield (lambda c=cell: getattr(c, "cell_contents", _NOTHING)), value  # type: ignore[misc]
    names = function.__globals__
    for name in _names_in(function.__code__):
        yield (lambda n=name: names.get(n, _ABSENT)), names.get(name, _ABSENT)  # type: ignore[misc]


_NOTHING = object()  # is no constant: what has it is pickled anew each time


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names that code, and the code in it, may look up among globals."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names


def load_function(data: bytes) -> Any:
    """Unpickle a function, in a worker."""
    found = pickle.loads(data)
    return found.there() if type(found) is Located else found
