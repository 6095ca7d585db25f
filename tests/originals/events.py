"""What a driver tells: one JSON object a line, in a pipe that its tests do not know of."""

import faulthandler
import json
import os
import re
import sys


class Events:
    """The driver's end: which tests there are, which one starts, how each ended."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_inheritable(fd, False)

    def tell(self, event: str, **facts: object) -> None:
        os.write(self._fd, (json.dumps({"event": event, **facts}) + "\n").encode())


def job() -> tuple[dict, Events]:
    """Return what this driver was started for (see jobs.py), and where it tells what happens."""
    faulthandler.enable()  # SIGABRT, by which a test over its limit is ended, shows where it stood
    return json.loads(sys.argv[1]), Events(int(sys.argv[2]))


def matches(name: str, wanted: dict) -> bool:
    """Return whether a test is one of those that this driver is for."""
    return all(re.search(pattern, name.removeprefix(wanted["prefix"])) for pattern in wanted["select"])


def chosen(name: str, wanted: dict) -> bool:
    """Return whether a test is to run: it has not yet, and is among those that were named, if any were."""
    return name not in wanted["done"] and (not wanted["only"] or name in wanted["only"])
