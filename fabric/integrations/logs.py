"""Log the samples of a fabric as structured records, and its alerts as warnings: for those who collect logs.

    fab.sampler ──each sample──▶ logger "fabric.metrics", INFO      a line to read, and record.fabric with the figures
                └──alerts──────▶ the same, WARNING

Any formatter writes the line; JsonFormatter, or another that knows `extra`, the figures too.
"""

import json
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import orjson

from fabric.alerts import Alert, Condition
from fabric.guarded_log import GuardedLogger
from fabric.samples import Sample
from fabric.statistics import WorkerStatistics
from fabric.usage import Usage

_PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_NO_USAGE = Usage(0, 0.0, 0.0, 0, 0, 0, 0)


def log_samples(
    fabric: Any,
    interval: float | None = None,
    *,
    conditions: Iterable[Condition] = (),
    logger: str = "fabric.metrics",
    level: int = logging.INFO,
) -> Callable[[], None]:
    """Log a sample of a fabric each `interval` seconds, by default its `metrics_interval`; return what ends that.

    Who else asks for samples has them logged too. `conditions` are those of fabric.alerts: what they find is logged
    once, as a warning, until it ends. It all ends with the fabric, and sampling only then: others may rely on it.

    Raises:
        ValueError: the interval is not over 0.
    """
    log = GuardedLogger(logger)
    logging_on = True

    def log_alert(alert: Alert) -> None:
        if logging_on:
            found = {"alert": alert.key, "worker": alert.worker}
            log.warning("%s", alert.text, extra={"fabric": found})

    def log_sample(sample: Sample) -> None:
        if log.isEnabledFor(level):
            log.log(level, "%s", _line(sample), extra={"fabric": figures_of(sample)})

    def stop() -> None:
        nonlocal logging_on
        logging_on = False
        for one in stops:
            one()

    stops = [fabric.sampler.each(log_sample)]
    try:
        for condition in conditions:
            stops.append(fabric.sampler.when(condition, log_alert, start=False))
        fabric.sampler.start(interval)
    except BaseException:
        stop()
        raise
    return stop


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, logger, message, and `fabric` where it has figures.

    Of records that workers sent it has `worker` too, of those with an exception `exception`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        found.update(
            {name: value for name in ("fabric", "worker") if (value := getattr(record, name, None)) is not None}
        )
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(found, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # half a surrogate pair, as names of files have; a number over 64 bits
            return json.dumps(found, default=str)


def figures_of(sample: Sample) -> dict[str, Any]:
    """Return what of a sample is logged: plain data, flat but for the workers. Latencies are of the interval, in s."""
    statistics = sample.statistics
    p50, p99 = sample.round_trip.percentiles(0.5, 0.99)
    return {
        "interval": sample.seconds,
        "messages_per_second": sample.rate("messages"),
        "errors_per_second": sample.rate("errors"),
        "round_trip_p50": p50,
        "round_trip_p99": p99,
        "lane_time_p99": sample.lane_time.percentile(0.99),
        "handler_time_p99": sample.handler_time.percentile(0.99),
        "cpu": sum(one.cpu for one in sample.usage.values()),
        "resident_bytes": sum(one.resident_bytes for one in sample.usage.values()),
        **{name: getattr(statistics, name) for name in _TOTALS},
        "timeouts": statistics.coordinator.timeouts,
        "backpressure_waits": statistics.coordinator.backpressure_waits,
        "workers": [_worker(sample, worker) for worker in statistics.workers],
    }


_TOTALS = (
    "messages",
    "errors",
    "outstanding",
    "agents",
    "restarts",
    "redelivered",
    "poisoned",
    "dead_letters",
    "alarms",
)


def _worker(sample: Sample, worker: WorkerStatistics) -> dict[str, Any]:
    usage = sample.usage.get(worker.pid, _NO_USAGE)
    return {
        "worker": worker.slot,
        "pid": worker.pid,
        "alive": worker.alive,
        "agents": worker.agents,
        "messages_per_second": sample.process_rate(worker.slot, "messages"),
        "busy": sample.busy(worker.slot),
        "in_flight": worker.in_flight,
        "lane_bytes": worker.lane_bytes,
        "cpu": usage.cpu,
        "resident_bytes": usage.resident_bytes,
    }


def _line(sample: Sample) -> str:
    statistics, alive = sample.statistics, sum(worker.alive for worker in sample.statistics.workers)
    parts = [
        f"{sample.rate('messages'):,.0f} messages/s",
        f"{sample.rate('errors'):,.0f} errors/s",
        f"p99 {_time(sample.round_trip.percentile(0.99))}",
        f"{alive} of {len(statistics.workers)} workers",
        f"{statistics.agents:,} agents",
        f"CPU {sum(one.cpu for one in sample.usage.values()):.1f}",
        f"{sum(one.resident_bytes for one in sample.usage.values()) / 1e6:,.0f} MB",
    ]
    return ", ".join(parts)


def _time(seconds: float) -> str:
    size, unit = next((one for one in _PREFIXES if seconds >= one[0]), _PREFIXES[0])
    return f"{seconds / size:.3g} {unit}"
