"""multiprocessing.Pipe, with arrays of records pickled in chunks: what one would write by hand."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from bench import tallies
from bench.peers import stream
from bench.sample import Sample, warm_up

ROWS = 16_384  # a chunk of about 1 MiB, as ours
AGENTS = 1_000


def tell(records: int) -> Sample:
    """Send ids and records in chunks; timed until the consumer has tallied the last one."""
    ids, sent = tallies.make(records, AGENTS)
    reader, writer = multiprocessing.Pipe(duplex=False)
    few = warm_up(records)
    with stream.consumer(_consume, reader, (few, records)) as verdicts:
        for count in (few, records):
            start = time.perf_counter()
            for first in range(0, count, ROWS):
                rows = slice(first, min(first + ROWS, count))
                writer.send((ids[rows], sent[rows]))
            accepted = time.perf_counter() - start
            verdicts.recv_bytes()
            handled = time.perf_counter() - start
            tallies.check([verdicts.recv()], ids[:count], sent[:count], AGENTS)
    values = {"handled": [records / handled], "accepted": [records / accepted]}
    return Sample(values, f"{records:,} records")


def _consume(verdicts: Connection, reader: Connection, counts: tuple[int, ...]) -> None:
    tally = tallies.Tally(AGENTS)
    for count in counts:
        arrived = 0
        while arrived < count:
            ids, records = reader.recv()
            tally.take(ids, records)
            arrived += len(ids)
        verdicts.send_bytes(stream.ARRIVED)
        verdicts.send(tally.verdict())
