"""Print the first reply of an actor in a fresh Ray on 127.0.0.1 and the seconds until it came."""

import importlib
import os
import shutil
import tempfile
import time
from typing import Any

# Without the second, Ray replaces 127.0.0.1 by the machine's address and listens on all of its interfaces.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ray: Any = importlib.import_module("ray")


class Adder:
    """Adds 10."""

    def ask(self, body: int) -> int:
        """Add 10."""
        return body + 10


if __name__ == "__main__":
    folder = tempfile.mkdtemp(prefix="ray-")
    start = time.perf_counter()
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        reply = ray.get(ray.remote(Adder).remote().ask.remote(5))
        print(reply, time.perf_counter() - start)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
