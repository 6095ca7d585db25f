"""Start tests.watched, the program that is watched, and talk to it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0


class Watched:
    """A running program with a fabric."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.pid = process.pid

    def do(self, what: str) -> Any:
        """Have it do something; return what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def watched(gate: object = "/nowhere", **options: Any) -> Iterator[Watched]:
    """Run the program; it has ended when this does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.watched", str(gate)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Watched(process)
    finally:
        try:
            process.stdin.close()
        except BrokenPipeError:  # killed
            pass
        process.stdout.close()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
