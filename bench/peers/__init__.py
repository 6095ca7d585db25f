"""The other side of each comparison: a file a peer, with its own check, imported in its own trial only."""
