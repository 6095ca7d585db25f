"""Divide the CPUs among the workers: how many threads BLAS and OpenMP start in each. Pure, on environments.

    coordinator, 8 CPUs               worker, 8 / 2 = 4 CPUs               worker of a fabric opened there, 4 / 4 = 1
    OMP_NUM_THREADS not set  ──2──▶  OMP_NUM_THREADS=4           ──4──▶   OMP_NUM_THREADS=1
                                     SHM_FABRIC_CPUS=4 OMP_NUM...         SHM_FABRIC_CPUS=1 OMP_NUM...

The last variable says how many CPUs are this process's part, so that a fabric opened in a worker divides that and not
the whole machine again, and which variables hold our number and not the user's.
"""

import os
from collections.abc import Mapping

PART = "SHM_FABRIC_CPUS"
_ALL = "OMP_NUM_THREADS"  # what the others go by where their own variable is not set
VARIABLES = (
    _ALL,
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def cpu_part(environ: Mapping[str, str] | None = None) -> int | None:
    """Return how many CPUs are the part of this process, if it is a worker or was started by one; else None."""
    part = (os.environ if environ is None else environ).get(PART, "").partition(" ")[0]
    return int(part) if part.isdecimal() and int(part) else None


def worker_environment(
    threads_per_worker: int | None, cpus: int, workers: int, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a worker, before any library is loaded there: `environ` with the threads capped.

    None caps them so that threads × workers are at most `cpus`, and at least one each. What the user has set is left
    alone, and OMP_NUM_THREADS, which the others follow, stands for them all. A number overrules that; 0 leaves
    everything as it is.
    """
    part = threads_per_worker or max(1, cpus // workers)
    ours = environ.get(PART, "").split()[1:]  # by the fabric whose worker this process is
    result = dict(environ)
    if threads_per_worker != 0:
        for name in ours:
            result.pop(name, None)
        free = [] if result.get(_ALL) else [name for name in VARIABLES if not result.get(name)]
        ours = list(VARIABLES) if threads_per_worker else free
        result.update(dict.fromkeys(ours, str(part)))
    result[PART] = " ".join([str(part), *ours])
    return result


def threads_of(library: str, environ: Mapping[str, str]) -> int:
    """Return how many threads a library takes by its environment, as it does itself when it is loaded.

    `library` is "openblas", "mkl", "blis" or any other, which goes by OpenMP's variable. Without one all allowed CPUs.
    """
    allowed = len(os.sched_getaffinity(0))
    for name in (f"{library.upper()}_NUM_THREADS", _ALL):
        first = environ.get(name, "").partition(",")[0].strip()  # OpenMP takes a list, one for each level of nesting
        if name in VARIABLES and first.isdecimal() and int(first):
            return min(int(first), allowed) if library == "openblas" else int(first)  # takes no more
    return allowed
