"""Orders of the coordinator to its workers, as bytes: pickles always, which a worker reads from no other lane."""

import pickle
from typing import Any

from fabric.errors import EncodingError
from fabric.pickling import dump_pickle
from fabric.remote_errors import Undecodable


def encode_order(order: Any) -> bytes:
    """Encode an order of the coordinator; only a worker reads it, and only from the coordinator's lane."""
    return dump_pickle(order)


def decode_order(data: bytes) -> Any:
    """Read an order, or mark it as Undecodable."""
    try:
        return pickle.loads(data)
    except Exception as error:
        return Undecodable(EncodingError(f"an order cannot be read: {type(error).__name__}: {error}"))
