"""Agents that say how many threads BLAS has where they live. Importable by workers."""

import os

from fabric import Agent, Fabric


class Counter(Agent):
    """Says how many threads OpenBLAS would use; and a variable of the environment."""

    def on_message(self, body):
        return count_blas_threads() if body is None else os.environ.get(body)


class Nester(Agent):
    """Opens a fabric of its own in its worker."""

    def on_message(self, settings):
        with Fabric(**settings) as fab:
            workers = len(fab.statistics().workers)
            return workers, fab.spawn_batch(Counter, workers).ask_all(None, timeout=60)


def count_blas_threads():
    """Count them, once the library is loaded."""
    import numpy  # noqa: F401 - loads it
    import threadpoolctl

    [threads] = {lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}
    return threads
