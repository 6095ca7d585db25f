"""Bridges to other software. Optional dependencies are imported in this package only."""
