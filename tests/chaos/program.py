"""A program that uses fabrics, one after the other, until it is killed: `python -m tests.chaos.program`.

It says "fabric" whenever one works, so that whoever kills it may wait for that.
"""

import itertools

from fabric import Fabric
from tests.agents import Counter, Relay


def main() -> None:
    """Open, work, close, for ever: starting and closing are hit as well."""
    for turn in itertools.count(1):
        with Fabric(workers=2, stopped_timeout=None) as fabric:
            counters = fabric.spawn_batch(Counter, 20)
            relays = fabric.spawn_batch(Relay, 4)
            print("fabric", flush=True)
            for _ in range(20 * turn):
                fabric.ask_many([counters[i % 20] for i in range(200)], [1] * 200)
                fabric.tell_many([relays[i % 4] for i in range(100)], [(counters[i % 20], 1) for i in range(100)])
            for _ in fabric.spawn_waves(Counter, 100, wave_size=20):
                pass


if __name__ == "__main__":
    main()
