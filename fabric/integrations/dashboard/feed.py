"""Sample for all viewers together: while there is one, each interval, and at once when the first one comes.

Runs in the dashboard's event loop only. A viewer that does not read as fast as it is sent to misses messages, each
of which is whole in itself; one that reads nothing for a while is dropped. So none takes more memory than one message.
"""

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson

from fabric.alerts import Alert, Condition
from fabric.errors import ClosedError
from fabric.guarded_log import GuardedLogger
from fabric.integrations.dashboard.frames import frame
from fabric.sampler import Sampler

_log = GuardedLogger("fabric")
_PATIENCE = 10.0  # seconds that a viewer may read nothing


def event(name: str, data: Any) -> bytes:
    """Return one server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


class Viewer:
    """One stream of events, to one page."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._read = time.monotonic()  # when it had last read all that it was sent

    def say(self, data: bytes) -> None:
        """Send the last word, whatever it has read. Never waits."""
        self._transport.write(data)

    def send(self, data: bytes) -> None:
        """Send, if it has read what came before; drop it if it has not for too long. Never waits."""
        now = time.monotonic()
        if not self._transport.get_write_buffer_size():
            self._read = now
            self._transport.write(data)
        elif now - self._read > _PATIENCE:
            self._transport.abort()


class Feed:
    """What viewers and scripts are told of one fabric."""

    def __init__(self, sampler: Sampler, conditions: Sequence[Condition], keep: int) -> None:
        self.sampler = sampler
        self.viewers: set[Viewer] = set()
        self._conditions = conditions
        self._frame: dict[str, Any] | None = None  # the last one
        self._points: deque[dict[str, Any]] = deque(maxlen=keep)
        self._ticking: asyncio.Task[None] | None = None

    def join(self, viewer: Viewer) -> bytes:
        """Send a viewer all that comes; return what it is to have first, which is what there was."""
        if self._ticking is None:
            self._frame = None
            self._ticking = asyncio.get_running_loop().create_task(self._tick())
        self.viewers.add(viewer)
        points, keep = list(self._points), self._points.maxlen
        had = {"interval": self.sampler.interval, "keep": keep, "points": points, "frame": self._frame}
        return b"retry: 1000\n\n" + event("history", had)

    def leave(self, viewer: Viewer) -> None:
        """Send it nothing more; sample no more if it was the last."""
        self.viewers.discard(viewer)
        if not self.viewers and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def now(self) -> dict[str, Any]:
        """Return a sample as plain data: the last one if samples are being taken, else a new one.

        Raises:
            ClosedError: the fabric is closed.
        """
        latest = self.sampler.latest
        sample = latest if latest is not None and self._ticking is not None else self.sampler.sample()
        return {**sample.to_dict(), "alerts": [{"key": one.key, "text": one.text} for one in self._alerts()]}

    def end(self, reason: str) -> None:
        """Tell all viewers that this was all."""
        if self._ticking is not None:
            self._ticking.cancel()
        for viewer in self.viewers:
            viewer.say(event("end", {"reason": reason}))

    async def _tick(self) -> None:
        """Sample on time. The first sample is what the next one is compared with."""
        due = time.monotonic()
        self._sample(keep=False)
        while True:
            due = max(due + self.sampler.interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            self._sample(keep=True)

    def _sample(self, keep: bool) -> None:
        """Sample and tell all viewers. One that is not to be kept has no rates: what was before is long ago."""
        try:
            sample = self.sampler.sample()
            shown = frame(sample if keep else dataclasses.replace(sample, before=None), self._alerts())
        except ClosedError:  # whoever closes it ends this too
            return
        except Exception:  # the next one may go well
            _log.exception("the fabric could not be sampled")
            return
        self._frame = shown
        if keep:
            self._points.append(shown["point"])
        data = event("sample", shown)
        for viewer in list(self.viewers):
            viewer.send(data)

    def _alerts(self) -> list[Alert]:
        history, found = self.sampler.history, []
        for condition in self._conditions if history else ():
            try:
                found += condition(history)
            except Exception:
                _log.exception("a condition of the dashboard raised")
        return found
