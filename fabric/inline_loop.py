"""Run an event loop one pass at a time, and see whether there was anything to do."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from typing import Any


class _Watch(selectors.DefaultSelector):
    """A selector that ends each pass of its event loop, and notes whether there was something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.patience = 0.0
        self.sleep: float | None = 0.0  # how long the loop would sleep now: None is until something comes
        self.progress = False
        self.stop: Callable[[], None] | None = None  # while passes are run one at a time

    def select(self, timeout: float | None = None) -> Any:
        if self.stop is None:
            return super().select(timeout)
        self.sleep = timeout
        self.stop()
        events = super().select(self.patience if timeout is None else min(timeout, self.patience))
        self.progress = timeout == 0 or bool(events) or self.patience > 0
        return events


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop that runs one pass at a time."""

    def __init__(self) -> None:
        self._watch = _Watch()
        super().__init__(self._watch)

    def run_pass(self, patience: float) -> bool:
        """Run what is ready, after up to `patience` seconds of waiting for it. False: nothing was."""
        self._watch.patience = patience
        self._watch.stop = self.stop
        try:
            self.run_forever()
        finally:
            self._watch.stop = None
        return self._watch.progress

    def close(self) -> None:
        """End what coroutines have left behind (generators, threads), then close."""
        if not self.is_closed() and running_loop() is None:
            self.run_until_complete(self.shutdown_asyncgens())
            self.run_until_complete(self.shutdown_default_executor())
        super().close()

    @property
    def sleep(self) -> float | None:
        """How long it would have slept when it ran last, None where only an event could end that."""
        return self._watch.sleep

    @property
    def stuck(self) -> bool:
        """Can there be no event? It watches nothing but its own bell, and no thread is there to ring it."""
        return len(self._watch.get_map()) <= 1 and threading.active_count() == 1


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, None when none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
