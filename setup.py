"""Build the C extension and place workers/ inside the package. Everything else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import setup

if sys.platform != "linux":
    raise SystemExit(f"shm-fabric needs Linux 5.10 or later (memfd, eventfd, pidfd); this is {sys.platform}.")
if sys.implementation.name != "cpython":
    raise SystemExit(f"shm-fabric needs CPython; this is {sys.implementation.name}.")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise SystemExit(
        "shm-fabric is not tested on free-threaded Python and refuses to build there. "
        "Use the ordinary build of the same version (python3.13, not python3.13t)."
    )

setup(
    # A top-level package `workers` would be shadowed by a user's own workers.py inside the worker processes.
    # In a checkout the symlink fabric/workers says the same; built archives know only these lines.
    packages=["fabric", "fabric.integrations", "fabric.integrations.dashboard", "fabric.workers"],
    package_dir={"fabric": "fabric", "fabric.workers": "workers"},
    package_data={
        "fabric": ["py.typed", "*.pyi"],
        "fabric.integrations.dashboard": ["*.html", "*.css", "*.js"],
    },
    include_package_data=False,
    cffi_modules=["native/build_ffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # cffi builds abi3: one wheel for all
)
