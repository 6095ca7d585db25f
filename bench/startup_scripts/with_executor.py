"""Print the first result of a fresh ProcessPoolExecutor and the seconds until it came."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor


def add(body: int) -> int:
    """Add 10."""
    return body + 10


if __name__ == "__main__":
    start = time.perf_counter()
    with ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as executor:
        reply = executor.submit(add, 5).result()
        print(reply, time.perf_counter() - start)
