"""Be a coordinator that is killed at a store: LIBRARY MOMENT FOLDER. Prints how many stores there were if it lives."""

import sys

from fabric import Fabric
from tests.store_trap import Trap, Trapped, Writer


def main() -> None:
    """Tell two writers one message, then 20, ask twice, spawn and stop agents: all of it under the trap."""
    library, moment, folder = sys.argv[1:]
    with Fabric(workers=2) as fab:
        writers = fab.spawn_batch(Writer, 2, each={"path": [f"{folder}/0", f"{folder}/1"]})
        trap = Trap(library)
        trap.arm(int(moment))
        writers[0].tell(b"0 single")
        fab.tell_many([writers[i % 2] for i in range(20)], [b"%d of a batch, %s" % (i, b"x" * i) for i in range(20)])
        fab.drain(timeout=10)
        group = fab.spawn_batch(Trapped, 3, library=library)
        assert group.ask_all("hello") == ["hello"] * 3
        assert group[0].ask("alone") == "alone"
        group.stop()
        print(trap.disarm())


if __name__ == "__main__":
    main()
