"""Let the workers of a pool see large arrays where they lie, once for all tasks of a call that are given them.

an array                 copied into the arena with the first task; the workers see it there, read-only
an array over a file     (numpy.memmap) goes by its file's name; the workers map the file themselves
"""

import weakref
from typing import Any

import numpy as np

from fabric.errors import FabricError
from fabric.loans import share
from fabric.task_pool import TaskPool


class LentArrays:
    """The large arrays among the arguments of one call's tasks."""

    def __init__(self, pool: TaskPool, from_bytes: float) -> None:
        """Arrays of so many bytes are large."""
        self._pool = pool
        self._from_bytes = from_bytes
        self._copies: dict[int, tuple[weakref.ref[Any], Any]] = {}  # by the identity of the original

    def lend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """Return arguments with what workers get in the place of large arrays, and whether there were any."""
        large = [value for value in (*args, *kwargs.values()) if self._is_large(value)]
        if not large:
            return args, kwargs, False
        for value in large:
            self._copy(value)
        return tuple(map(self._lent, args)), {name: self._lent(value) for name, value in kwargs.items()}, True

    def _is_large(self, value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.nbytes >= self._from_bytes and not value.dtype.hasobject

    def _lent(self, value: Any) -> Any:
        return self._copies[id(value)][1] if self._is_large(value) else value

    def _copy(self, array: Any) -> None:
        known = self._copies.get(id(array))
        if known is not None and known[0]() is array:
            return
        copy = FileArray.of(array) or (self._share(array) if type(array) is np.ndarray else array)
        self._copies = {key: row for key, row in self._copies.items() if row[0]() is not None}
        self._copies[id(array)] = weakref.ref(array), copy

    def _share(self, array: Any) -> Any:
        crew = self._pool.crew
        crew.settle()
        try:
            return share(crew.fabric._arena, array).value if crew.fabric is not None else array
        except FabricError:  # there is no room for it now, but there may be when it is its task's turn
            return array


class FileArray:
    """An array that lies in a file: workers map that."""

    def __init__(self, array: np.memmap[Any, Any], offset: int) -> None:
        order = "C" if array.flags.c_contiguous else "F"
        mode = "r+" if array.mode == "w+" else array.mode
        self._where = (array.filename, array.dtype, mode, offset, array.shape, order)

    @classmethod
    def of(cls, array: Any) -> "FileArray | None":
        """Return what stands for an array, None if it is not one over a file, or has gaps."""
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        whole = isinstance(base, np.memmap) and isinstance(array, np.memmap) and base.filename is not None
        if not whole or base.mode == "c" or not (array.flags.c_contiguous or array.flags.f_contiguous):
            return None
        return cls(array, base.offset + array.ctypes.data - base.ctypes.data)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.memmap, self._where
