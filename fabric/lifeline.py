"""Bind the lifeline of the C core: a thread that ends this process when its coordinator is gone.

coordinator: pipe's writing end, never written to     worker: a C thread that reads it, and sees its end
"""

import os

from fabric._native import ffi, lib
from fabric.errors import FabricError


class Lifeline:
    """Ends this process soon after the other end of a pipe is gone, whatever Python does meanwhile."""

    def __init__(self, descriptor: int, bell: int, grace: float) -> None:
        """Start the watch. `grace` is how many seconds on_stop may take."""
        self._c = ffi.new("struct fab_lifeline *", {"fd": descriptor, "bell": bell, "grace_ns": int(grace * 1e9)})
        rc = lib.fab_lifeline_start(self._c)
        if rc < 0:
            raise FabricError(f"there is no thread to watch the coordinator: {os.strerror(-rc)}")

    @property
    def ended(self) -> bool:
        """Has the coordinator gone?"""
        return bool(lib.fab_lifeline_ended(self._c))
