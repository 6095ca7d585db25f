"""Show fabrics to Prometheus: a collector for prometheus-client's registries, and a server on this machine only.

    Prometheus ──GET /metrics──▶ serve(fab, port)      127.0.0.1, gone with its fabric
                                    └▶ FabricCollector ──▶ fabric.readings ──▶ counters in the segment
    a server of yours ─▶ a registry of yours ─┘

Nothing is measured for a scrape: it reads what is counted anyway.
"""

import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from fabric.errors import ClosedError
from fabric.figures import FIGURES
from fabric.integrations.families import empty, filled
from fabric.integrations.scrapes import Exposition, ScrapeServer
from fabric.readings import Reader


class FabricCollector:
    """All figures of one or several fabrics. Register it in a prometheus-client registry, of which one is enough.

    Any thread, several scrapes at once. It keeps no fabric alive; of a closed one it shows what was counted last, and
    `fabric_up` 0. The label `fabric` tells several apart.

    Example:
        >>> prometheus_client.REGISTRY.register(FabricCollector(fab, name="survey"))
    """

    def __init__(self, fabric: Any = None, name: str | None = None) -> None:
        """`name` is the value of the label `fabric`; by default "0", "1", ... in the order in which they are added."""
        self._lock = threading.Lock()
        self._readers: dict[str, Reader] = {}
        self._added = 0
        if fabric is not None:
            self.add(fabric, name)

    def add(self, fabric: Any, name: str | None = None) -> None:
        """Show one more fabric.

        Raises:
            ValueError: there is one of this name.
        """
        with self._lock:
            name = str(self._added) if name is None else name
            if name in self._readers:
                raise ValueError(f"there is a fabric {name!r} in this collector: give this one another name")
            self._readers[name] = Reader(fabric)
            self._added += 1

    def remove(self, name: str) -> None:
        """Show a fabric no more; nothing happens where there is none of this name."""
        with self._lock:
            self._readers.pop(name, None)

    def describe(self) -> Iterator[Metric]:
        """Return the families without values: so a registry knows their names and reads nothing for it."""
        return (empty(figure) for figure in FIGURES)

    def collect(self) -> Iterator[Metric]:
        """Read the fabrics; return the families of those figures that there are values of."""
        with self._lock:
            readers = dict(self._readers)
        readings = {name: reading for name, reader in readers.items() if (reading := reader.read()) is not None}
        return (family for figure in FIGURES if (family := filled(figure, readings)).samples)


def serve(fabric: Any, port: int = 0, *, name: str = "0", registry: CollectorRegistry | None = None) -> ScrapeServer:
    """Serve the figures of a fabric at http://127.0.0.1:port/metrics until it is closed; return the server.

    Only this machine can reach it. Port 0 is any that is free: see `.port` and `.url`. `.close()`, or leaving it as a
    context manager, ends it earlier. `name` is the value of the label `fabric`. With `registry` what else is in
    there is served too, and the fabric is in it as long as the server runs.

    Text, OpenMetrics and Prometheus's protobuf are spoken, as asked for; in the last, and in OpenMetrics 2.0,
    histograms are native ones beside the classic.

    Raises:
        FabricError: the port is taken, or not ours to take.
        ClosedError: the fabric is closed.
        ValueError: there is no such port, or the registry has a fabric collector already: add this fabric to that.
    """
    if fabric._closed:
        raise ClosedError("this fabric is closed: there is nothing to serve")
    collector = FabricCollector(fabric, name)
    served = CollectorRegistry() if registry is None else registry
    server = ScrapeServer(port, Exposition(served))
    try:
        served.register(collector)
    except BaseException:
        server.close()
        raise
    if registry is not None:
        server.at_close(lambda: registry.unregister(collector))
    server.start()
    server.at_close(fabric.sampler.at_close(server.close))
    return server
