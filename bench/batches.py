"""How many messages a batch held on average: what a rate is to be read with."""

from __future__ import annotations

from fabric import Statistics


def mean_batch(before: Statistics, after: Statistics) -> float:
    """Return the mean messages in a batch that the workers handled between the two; 0 when there was none."""
    batches = sum(worker.batches for worker in after.workers) - sum(worker.batches for worker in before.workers)
    return (after.received - before.received) / batches if batches else 0.0
