"""Print the first result of a fresh multiprocessing.Pool and the seconds until it came."""

import multiprocessing
import time


def add(body: int) -> int:
    """Add 10."""
    return body + 10


if __name__ == "__main__":
    start = time.perf_counter()
    with multiprocessing.Pool(2) as pool:
        reply = pool.apply(add, (5,))
        print(reply, time.perf_counter() - start)
