"""Log from threads that have other things to do than to fail: a handler of the user that raises costs its record."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any


class GuardedLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls raise nothing, whatever handlers and filters do."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log, or print what was in the way; all other methods come here."""
        try:
            super().log(level, msg, *args, **options, stacklevel=2)
        except Exception:
            print_problem()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave all as it is."""
        return msg, kwargs


def print_problem() -> None:
    """Print the exception in hand, where logging itself would print one of a handler."""
    if logging.raiseExceptions and sys.stderr is not None:
        traceback.print_exc()
