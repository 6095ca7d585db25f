"""Turn what is put into a queue into bytes and back, as multiprocessing does: by reference to its modules.

bytes                       as they are
numbers, text, containers   pickle 5
what names a class          pickle 5 with the reducers that multiprocessing registers (connections, sockets)
... of `__main__`           the same; and beside it by value, once the queue was sent to programs that may have
                            another `__main__`, or may be soon, this one having loaded what starts workers:
                            whoever has the name uses it, so that classes stay the same
what has no name            cloudpickle: lambdas, classes in functions
"""

import io
import pickle
import struct
import sys
from collections import ChainMap
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

from fabric.errors import EncodingError

RAW, PICKLED, TWICE = 0, 1, 2

_STACK_GLOBAL = 0x93  # the pickle opcode without which a pickle names no class or function
_MAIN = b"_main__"  # of `__main__` and of `__mp_main__`
_PLAIN = frozenset({int, float, str, bool, type(None), tuple, list, dict, set, frozenset, bytearray, complex})
_HEAD = struct.Struct("<Q")
_STARTS_WORKERS = "fabric.coordinator"  # all that does imports it; a pool sends its queues a moment after it was made
_REMEDY = (
    "a class of the script was put by its name, before the queue had gone to any other program: import fabric's Pool, "
    "Executor or Fabric before that, or have the class in a module"
)


def encode(item: Any, travelled: Callable[[], bool]) -> tuple[int, bytes]:
    """Return (encoding, bytes). `travelled` says whether names in `__main__` may mean nothing at the other end.

    Raises: whatever pickling raises.
    """
    if type(item) is bytes:
        return RAW, item
    if type(item) in _PLAIN:
        try:
            data = pickle.dumps(item, 5)
        except Exception:  # something in it may have a reducer
            data = b"\x93"
        if _STACK_GLOBAL not in data:
            return PICKLED, data
    try:
        data = _dump(item)
    except Exception as error:
        return PICKLED, _dump_by_value(item, error)
    if _MAIN in data and (_STARTS_WORKERS in sys.modules or travelled()):
        try:
            return TWICE, _HEAD.pack(len(data)) + data + _dump_by_value(item, None)
        except Exception:  # the name has to do
            pass
    return PICKLED, data


def decode(encoding: int, data: bytes) -> Any:
    """Return the item.

    Raises: whatever unpickling raises; EncodingError when it is no item.
    """
    if encoding == PICKLED:
        try:
            return pickle.loads(data)
        except AttributeError as error:
            if _MAIN in data:
                error.add_note(_REMEDY)
            raise
    if encoding == RAW:
        return data
    if encoding != TWICE:
        raise EncodingError(f"this version knows no encoding {encoding} of items in a queue")
    end = _HEAD.size + _HEAD.unpack_from(data)[0]
    try:
        return pickle.loads(data[_HEAD.size : end])
    except (AttributeError, ImportError):  # this program has another `__main__`
        return pickle.loads(data[end:])


def _dump(item: Any) -> bytes:
    into = io.BytesIO()
    ForkingPickler(into, 5).dump(item)
    return into.getvalue()


def _dump_by_value(item: Any, why: Exception | None) -> bytes:
    """Pickle by value what lives in `__main__` or has no name; `why` is the error to raise if that fails too."""
    import cloudpickle  # 20 ms, and most programs never need it

    into = io.BytesIO()
    pickler = cloudpickle.Pickler(into, 5)
    pickler.dispatch_table = ChainMap(pickler.dispatch_table, ForkingPickler._extra_reducers)  # type: ignore[attr-defined]
    try:
        pickler.dump(item)
    except Exception:
        if why is None:
            raise
        raise why from None
    return into.getvalue()
