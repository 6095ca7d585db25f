"""Print the first reply of a fresh fabric and the seconds until it came."""

import time

from fabric import Agent, Fabric


class Adder(Agent):
    """Adds 10."""

    def on_message(self, body: int) -> int:
        return body + 10


if __name__ == "__main__":
    start = time.perf_counter()
    with Fabric(workers=2) as fabric:
        reply = fabric.spawn_batch(Adder, 1)[0].ask(5)
        print(reply, time.perf_counter() - start)
