"""One body for many receivers: encoded once, and lying in the arena once."""

from collections.abc import Sequence
from typing import Any

from fabric.encoded import Encoded, joined
from fabric.parcel import Data, Parcel, lend_all


class Same(Sequence[Any]):
    """One encoded body, as a sequence of any length."""

    def __init__(self, encoding: int, data: Data, count: int) -> None:
        self.encoding = encoding
        self.data = data
        self._count = count

    def lent(self, count: int, slot: int) -> Encoded:
        """Lend it to a worker so many times; what lies in the arena lies there once."""
        assert type(self.data) is Parcel
        parcels = [self.data.again() for _ in range(count)]
        blobs, by_index = lend_all(parcels, slot)
        return joined(self.encoding, None, blobs)._replace(parcels=by_index)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Same(self.encoding, self.data, len(range(*index.indices(self._count))))
        return self.data


def pick(bodies: Sequence[Any], start: int, order: Sequence[int]) -> Sequence[Any]:
    """Return those of the bodies from `start` on that `order` names."""
    if isinstance(bodies, Same):
        return Same(bodies.encoding, bodies.data, len(order))
    return [bodies[start + i] for i in order]
