"""Fill arrays that lie in the arena already, and share read-only ones with all workers.

with fab.loan((1024, 1024), "f4") as array:      an array in the arena: fill it, send it, nothing is copied
    array[:] = ...
    ref.tell(array)
handle = fab.share({"weights": w})               where all workers see it; in messages it is a few bytes
"""

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from fabric.arena import Arena


def _checked(dtype: Any) -> Any:
    import numpy

    made = numpy.dtype(dtype)
    if made.hasobject:
        raise TypeError(f"an array of dtype {made} holds Python objects, which only this process can read")
    return made


def in_arena(arena: Arena | None, shape: Sequence[int], dtype: Any, order: str = "C") -> Any:
    """Return a new array in the arena, or in ordinary memory where there is none, or nothing to lay there."""
    import numpy

    size = math.prod(shape) * dtype.itemsize
    if arena is None or size == 0:
        return numpy.empty(shape, dtype, order=order)  # type: ignore[call-overload]
    memory = arena.hold(arena.reserve(size))
    return numpy.ndarray(shape, dtype, memory, order=order)  # type: ignore[arg-type]


class Loan:
    """See Fabric.loan. Without contextlib: who fills 8 MB finds its own code in no cache any more."""

    __slots__ = ("_arena", "_array", "_dtype", "_order", "_shape")

    def __init__(self, arena: Arena | None, shape: int | Sequence[int], dtype: Any, order: str) -> None:
        if order not in ("C", "F"):
            raise ValueError(f'order={order!r} was asked for; it may be "C" (rows) or "F" (columns)')
        self._shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if min(self._shape, default=0) < 0:
            raise ValueError(f"an array of shape {self._shape} cannot be")
        self._arena, self._dtype, self._order = arena, _checked(dtype), order
        self._array: Any = None

    def __enter__(self) -> Any:
        self._array = in_arena(self._arena, self._shape, self._dtype, self._order)
        return self._array

    def __exit__(self, *rest: object) -> None:
        array, self._array = self._array, None
        array.flags.writeable = False  # receivers may be reading; a copy of it can be written to


class Shared:
    """Read-only arrays that all workers see where they lie: send this in messages.

    As a constructor's argument it is copied, once for each order to a worker.

    `value` is the array, or the dict of arrays. They stay as long as some process has this handle or an array
    of it. Immutable.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def value(self) -> Any:
        """The array, or a dict of the arrays, read-only."""
        return dict(self._value) if isinstance(self._value, Mapping) else self._value

    def __getitem__(self, name: Any) -> Any:
        return self._value[name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy

        return numpy.array(self._value, dtype=dtype) if copy else numpy.asarray(self._value, dtype=dtype)

    def close(self) -> None:
        """Let go of the arrays here; who has received them keeps them."""
        self._value = None

    def __enter__(self) -> "Shared":
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if isinstance(self._value, Mapping):
            return f"<Shared: {', '.join(map(str, self._value))}>"
        return f"<Shared: {getattr(self._value, 'shape', 'closed')}>"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if self._value is None:
            raise ValueError("this handle is closed: nobody can be sent what it shared")
        if isinstance(self._value, Mapping):
            return _rebuild_many, ({name: _reduced(array, protocol) for name, array in self._value.items()},)
        return _rebuild, _reduced(self._value, protocol)


def share(arena: Arena | None, value: Any) -> Shared:
    """See Fabric.share."""
    if isinstance(value, Mapping):
        return Shared({name: _shared(arena, array) for name, array in value.items()})
    return Shared(_shared(arena, value))


def _shared(arena: Arena | None, value: Any) -> Any:
    import numpy

    array = numpy.asarray(value)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    copy = in_arena(arena, array.shape, _checked(array.dtype), order)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def _reduced(array: Any, protocol: int) -> tuple[Any, ...]:
    """Take an array apart, so that its memory is one buffer of the pickle."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = (array.T if fortran else array).reshape(-1).view("u1")
    buffer = pickle.PickleBuffer(flat) if protocol >= 5 else flat.tobytes()
    return buffer, array.dtype, array.shape, "F" if fortran else "C"


def _array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    import numpy

    array = numpy.frombuffer(buffer, dtype).reshape(shape, order=order)  # type: ignore[call-overload]
    array.flags.writeable = False
    return array


def _rebuild(*parts: Any) -> Shared:
    return Shared(_array(*parts))


def _rebuild_many(parts: dict[Any, tuple[Any, ...]]) -> Shared:
    return Shared({name: _array(*each) for name, each in parts.items()})
