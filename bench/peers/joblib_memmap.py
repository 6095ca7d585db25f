"""joblib with the loky backend: a large array is written to a file, and the worker maps it read-only.

joblib writes an array object once, and again never, whatever is in it since; so each trip hands over a new view.
"""

from __future__ import annotations

import importlib
from typing import Any

from bench.arrays import Array, Job, answer, run
from bench.sample import Sample

joblib: Any = importlib.import_module("joblib")

WORKERS = 2  # with one, joblib calls the task in this process


def arrays(job: dict[str, Any]) -> Sample:
    """Run one task at a time."""
    wanted = Job(**job)
    with joblib.Parallel(n_jobs=WORKERS, backend="loky", max_nbytes="1M", mmap_mode="r") as parallel:
        task = joblib.delayed(answer)

        def there_and_back(array: Array) -> Any:
            return parallel([task(array.view(), wanted.back)])[0]

        return run(there_and_back, wanted, note="the worker gets a read-only array")
