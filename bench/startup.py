"""How long from `Fabric(workers=2)` to the first reply?

::

    a script of its own   imports, then starts the clock ──▶  two workers, one agent
                          stops it at the first reply    ◀──

Each round runs a script from `startup_scripts/` in a fresh interpreter, where the library is imported before
the clock starts and the agent class is defined in the script itself. What would change our minds: a peer that
starts faster and imports as much would say that our fork server does too much.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError

SCRIPTS = Path(__file__).with_name("startup_scripts")
TIME = Metric("time", "ms", higher_is_better=False)


def cases(quick: bool) -> list[Case]:
    """Return the one case."""

    def contestant(shown: str, script: str) -> Contestant:
        return Contestant(shown, "bench.startup:first_reply", {"script": script}, busy=3)

    ray = Contestant("Ray", "bench.startup:first_reply", {"script": "with_ray"}, "ray", True, busy=3, rounds=3)
    return [
        Case(
            "to the first reply",
            (TIME,),
            (
                contestant("fabric", "with_fabric"),
                contestant("ProcessPoolExecutor, forkserver", "with_executor"),
                contestant(f"multiprocessing.Pool, {_default_method()}", "with_pool"),
                ray,
            ),
            rounds=3 if quick else 10,
        )
    ]


def first_reply(script: str) -> Sample:
    """Run the script, which prints the reply to 5 and the seconds until it came."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} ended with status {done.returncode}: {done.stderr.strip()[-160:]}")
    reply, seconds = done.stdout.splitlines()[-1].split()
    if int(reply) != 15:
        raise WrongAnswerError(f"{script}: the first reply is {reply}, not 15")
    return Sample({"time": [float(seconds) * 1e3]}, "2 workers")


def _default_method() -> str:
    return "fork" if sys.version_info < (3, 14) else "forkserver"
