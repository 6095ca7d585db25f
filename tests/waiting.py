"""Wait for what no event tells of: a process is gone, a lane is empty, a file is there."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 30  # seconds until a test is taken to have failed


def until(look: Callable[[], Any]) -> Any:
    """Look until something is so, and return what it is."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.001)
    return found
