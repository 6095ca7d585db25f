"""Import in the fork server numpy, if the coordinator has, and what it was told, so that workers need not do it again.

    fork server: numpy with one BLAS thread  ──fork──▶  worker: as many as its environment says

A library that has started threads makes forking unsafe, so while it is imported it is held to one. To change that in a
worker takes threadpoolctl. Without it, where one is not the number wanted, numpy is left to be imported by the worker.
"""

import os
import sys

from fabric.threads import threads_of

_BLAS = "OPENBLAS_NUM_THREADS"  # the library of numpy's wheels; the others start no thread before they are used


def preload(modules: list[str]) -> None:
    """Import these modules, in the fork server."""
    if threads_of("openblas", os.environ) != 1 and modules and not _imported("threadpoolctl"):
        return
    threads = os.environ.get(_BLAS)
    os.environ[_BLAS] = "1"
    try:
        for module in modules:
            _imported(module)
    finally:
        if threads is None:
            del os.environ[_BLAS]
        else:
            os.environ[_BLAS] = threads


def settle_threads() -> None:
    """Give libraries that were loaded with one thread their number, in a worker that was forked."""
    threadpoolctl = sys.modules.get("threadpoolctl")
    if threadpoolctl is None:
        return
    for library in threadpoolctl.ThreadpoolController().lib_controllers:
        wanted = threads_of(library.internal_api, os.environ)
        if wanted != library.num_threads:
            library.set_num_threads(wanted)


def _imported(module: str) -> bool:
    try:
        __import__(module)
    except Exception:  # not to be had here: whoever needs it will say so
        return False
    return True
