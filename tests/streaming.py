"""What tests of streams do over and over: spawn one agent, and wait for what no event tells of."""

import time

from fabric.testing import InlineFabric

PATIENCE = 30  # seconds until a test is taken to have failed


def until(fab, reached):
    """Wait until something is so, of which no event tells."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        if isinstance(fab, InlineFabric):
            fab.step()
        else:
            time.sleep(0.001)


def one(fab, kind, **options):
    """Spawn one agent."""
    return fab.spawn_batch(kind, 1, **options)[0]
