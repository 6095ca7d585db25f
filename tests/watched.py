"""A program that runs a fabric in a process of its own, for those who watch it: told by its stdin what to do.

read            print what the fabric's own statistics() say, as JSON
ask N           ask all agents N times
hold            have the first agent hold up its worker until the file named by the first argument exists
close           close the fabric, go on without
"""

import json
import sys

from fabric import Fabric
from tests.agents import Echo, Gate


def main() -> None:
    """Do what is asked until stdin ends."""
    fabric = Fabric(workers=2)
    with fabric:
        gates, echoes = fabric.spawn_batch(Gate, 2, path=sys.argv[1]), fabric.spawn_batch(Echo, 10)
        print("ready", flush=True)
        for line in sys.stdin:
            what, *rest = line.split()
            if what == "ask":
                for number in range(int(*rest)):
                    echoes.ask_all(number)
            elif what == "hold":
                gates[0].tell("wait")
            elif what == "close":
                fabric.close(drain=False)
            print(json.dumps(fabric.statistics().to_dict() if what == "read" else what), flush=True)
        fabric.close(drain=False)


if __name__ == "__main__":
    main()
