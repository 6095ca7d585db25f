"""Show a running fabric in a browser, on this machine only: `dashboard.serve(fab).url`.

    browser ──GET /──────────▶ one page, with all that it needs in it
            ──GET /api/events▶ server-sent events ◀── each interval, one message for all viewers
    script  ──GET /api/sample▶ the figures once, as JSON

One thread, with an event loop, does all of it. It samples while a viewer is there, and sleeps otherwise. The fabric's
processes do nothing for it: their counters are words in the segment.
"""

import secrets
import socket
from collections.abc import Sequence

from fabric.alerts import Condition, growing, stalled
from fabric.coordinator import Fabric
from fabric.errors import FabricError
from fabric.integrations.dashboard.feed import Feed
from fabric.integrations.dashboard.server import Dashboard

__all__ = ["Dashboard", "serve"]

_LEAST_TOKEN = 16  # characters
_UNREAD_BYTES = 128 * 1024  # that the kernel keeps for a viewer who does not read: it would let it be megabytes


def serve(
    fab: Fabric,
    port: int = 0,
    *,
    interval: float = 1.0,
    token: str | None = None,
    alerts: Sequence[Condition] | None = None,
    history: int = 300,
) -> Dashboard:
    """Serve a page that shows the fabric live, at `.url` of what is returned, until that or the fabric is closed.

    Only programs on this machine that know the token in the URL can read it. Port 0 is any that is free. While
    somebody looks, a sample is taken each `interval` seconds, and the page shows the last `history` of them. `alerts`
    are conditions of fabric.alerts; by default workers that stall, and queues that grow.

    Raises:
        FabricError: the port is taken, or may not be used.
        ClosedError: the fabric is closed.
        ValueError: an argument is out of range.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port} must be from 0 to 65535; 0 is any that is free")
    if token is not None and len(token) < _LEAST_TOKEN:
        raise ValueError(
            f"the token has {len(token)} characters; give it {_LEAST_TOKEN} or more, or None for a good one"
        )
    if history < 2:
        raise ValueError(f"history={history} must be 2 samples or more")
    sampler = fab.sampler.apart(interval)
    sampler.sample()  # finds out whether the fabric is closed; and the next one has something to be compared with
    feed = Feed(sampler, (stalled(5), growing(5)) if alerts is None else tuple(alerts), history)
    dashboard = Dashboard(feed, _listen(port), token or secrets.token_urlsafe(24))
    sampler.at_close(dashboard.end)
    return dashboard


def _listen(port: int) -> socket.socket:
    """Bind to the loopback address only."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD_BYTES)  # of each connection
        listening.bind(("127.0.0.1", port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise FabricError(
            f"port {port} of 127.0.0.1 cannot be served on: {error.strerror}; take another, or 0 for any that is free"
        ) from error
    return listening
