"""Steps that tests/test_api*.py have in common."""

PATIENCE = 30  # seconds until a test is taken to have failed


def one(fab, kind, **options):
    return fab.spawn_batch(kind, 1, **options)[0]


def dead_since(fab, before):
    """Return the dead letters that came since there were so many."""
    fab.drain(timeout=PATIENCE)
    return fab.dead_letters()[before:]
