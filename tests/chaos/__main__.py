"""The command: `python -m tests.chaos [family]`; `--help` says the rest. Exits 1 when anything was lost or hung."""

import argparse
import logging
import random
import sys
import time

from tests.chaos import family
from tests.chaos.leaks import Leaks
from tests.chaos.run import Outcome, Plan, run


def main() -> int:
    """Run chaos with what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Kill at random; check everything.")
    parser.add_argument("what", nargs="?", choices=("workers", "family"), default="workers")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--kills", type=int, default=40, help="of family: programs that are killed")
    parser.add_argument("--messages", type=int, default=0, help="go on until so many are completed")
    parser.add_argument("--mode", choices=("retry", "fail", "snapshot"), default="retry")
    parser.add_argument("--tight", action="store_true", help="the smallest lanes and outboxes")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0.0, help="end after so many with what was done; 0: never")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which a wait is a hang")
    asked = parser.parse_args()
    logging.getLogger("fabric").setLevel(logging.ERROR)  # a line for each kill is no news here
    print(f"seed {asked.seed}", flush=True)
    if asked.what == "family":
        outcome = _families(asked.seed, asked.kills)
    else:
        how = {"minutes": asked.minutes, "tight": asked.tight}
        plan = Plan(asked.seed, asked.kills, asked.messages, asked.mode, asked.workers, asked.patience, **how)
        run(Plan(asked.seed, kills=3, mode=asked.mode, workers=asked.workers))  # warms up what is made once
        leaks = Leaks()
        outcome = run(plan)
        outcome.problems += leaks.found()
    print(outcome)
    return int(bool(outcome.problems))


def _families(seed: int, programs: int) -> Outcome:
    outcome, killed = Outcome(seed), 0
    leaks, start = Leaks(memory=False), time.monotonic()
    for assault in family.draw(seed, programs):
        some, problems = family.run(assault)
        killed += some
        outcome.problems += [f"{assault}: {problem}" for problem in problems]
    outcome.problems += leaks.found()
    outcome.figures |= {"programs": programs, "killed": killed, "seconds": round(time.monotonic() - start, 1)}
    return outcome


if __name__ == "__main__":
    sys.exit(main())
