"""Pickle what users send: what names `__main__`, or cannot be pickled by reference, goes by cloudpickle, by value.

Workers do not import the user's `__main__`, so that a pickle which refers to it could not be read there.
"""

import itertools
import pickle
from collections.abc import Sequence
from typing import Any, Protocol

from fabric.encoded import Encoded, joined_below
from fabric.errors import EncodingError
from fabric.messages import PICKLE

_STACK_GLOBAL = 0x93  # the pickle opcode without which a pickle names no class or function
CRASHES = (Exception, SystemExit)  # what a user's code may end with; Ctrl-C is not its doing, and goes through


class Buffers(Protocol):
    """Takes buffers out of a pickle: what pickle calls a buffer_callback."""

    def __call__(self, buffer: pickle.PickleBuffer, /) -> bool: ...
    def clear(self) -> None: ...


def dump_pickle(body: Any, out: Buffers | None = None) -> bytes:
    """Pickle; by value what lives in `__main__` or has no importable name. `out` may take large buffers.

    Raises:
        EncodingError: neither pickle nor cloudpickle can do it.
    """
    try:
        data = pickle.dumps(body, 5, buffer_callback=out)
        if _STACK_GLOBAL not in data or b"__main__" not in data:
            return data
    except CRASHES:  # a lambda, a local class, or what cannot be pickled at all: cloudpickle knows
        pass
    import cloudpickle  # 20 ms, and most fabrics never need it

    if out is not None:
        out.clear()
    try:
        return bytes(cloudpickle.dumps(body, 5, buffer_callback=out))
    except CRASHES as error:
        raise EncodingError(f"{type(body).__name__} cannot be pickled: {type(error).__name__}: {error}") from error


def pickle_many(bodies: Sequence[Any], below: int) -> Encoded | None:
    """Pickle a batch in one go. None: some body needs `dump_pickle`, or has so many bytes that it is to be lent."""
    try:
        blobs = list(map(pickle.dumps, bodies, itertools.repeat(5)))
    except CRASHES:
        return None
    if len(blobs) < len(bodies):  # a StopIteration of a class's own code ends the map without a word
        return None
    encoded = joined_below(below, PICKLE, blobs)
    if encoded is None:
        return None
    return None if _STACK_GLOBAL in encoded.blob and b"__main__" in encoded.blob else encoded
