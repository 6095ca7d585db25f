"""What Prometheus is shown equals what happened, in every format, and every format is read by its official parser."""

import os
import signal

import pytest

from fabric import AgentError, Fabric
from fabric.figures import FIGURES, SIZE_BOUNDS, TIME_BOUNDS
from fabric.histogram import COUNTS, Histogram
from fabric.testing import InlineFabric
from tests.metrics_agents import Other, Patient, Picky, PickyLater

prometheus_client = pytest.importorskip("prometheus_client", reason="Prometheus is NOT TESTED: scripts/env installs it")
pytest.importorskip("google.protobuf", reason="Prometheus is NOT TESTED without protobuf: scripts/env installs it")

from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics  # noqa: E402
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families as read_text  # noqa: E402

from fabric.integrations import prometheus_protobuf as protobuf  # noqa: E402
from fabric.integrations.families import WithNative, classic, native  # noqa: E402
from fabric.integrations.prometheus import FabricCollector  # noqa: E402
from tests.prometheus_messages import read_families  # noqa: E402
from tests.waiting import until  # noqa: E402

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def registry_of(*collectors):
    registry = prometheus_client.CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry


def samples_of(collector):
    """All samples, as {(name, labels): value}; none twice."""
    found = [sample for family in collector.collect() for sample in family.samples]
    by_key = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in found}
    assert len(by_key) == len(found)
    return by_key


def total(collector, name, **labels):
    return sum(
        sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.fixture(scope="module")
def used():
    """A fabric that has handled messages, and a registry with its collector."""
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        fab.ask_many(list(fab.spawn_batch(Picky, 4)), [0, 1, 2, 3], return_exceptions=True)
        yield registry_of(FabricCollector(fab, "survey"))


def test_counts_equal_the_messages_sent_by_class_and_status():
    with Fabric(workers=2, on_error=lambda letter: None) as fab:
        collector = FabricCollector(fab)
        picky, other, later = (fab.spawn_batch(kind, 6) for kind in (Picky, Other, PickyLater))
        picky.tell_each(range(6))
        for group in (picky, other, later):
            fab.ask_many(list(group) * 100, list(range(600)), return_exceptions=True)
        fab.drain(timeout=30)
        expected = {("Picky", "ok"): 303, ("Picky", "error"): 303, ("Other", "ok"): 600, ("Other", "error"): 0}
        expected |= {("PickyLater", "ok"): 300, ("PickyLater", "error"): 300}

        def counted():
            return {
                (kind, status): total(collector, "fabric_messages_total", agent_class=kind, status=status)
                for kind, status in expected
            }

        until(lambda: counted() == expected)
        assert total(collector, "fabric_messages_sent_total", worker="coordinator") == 1806
        assert total(collector, "fabric_asks_sent_total", worker="coordinator") == 1800 + 3 * 2  # and orders to spawn
        assert total(collector, "fabric_replies_total", worker="coordinator", status="error") == 600
        assert total(collector, "fabric_dead_letters_total") == 3
        assert total(collector, "fabric_round_trip_seconds_count", worker="coordinator") == 1800
        assert total(collector, "fabric_lane_time_seconds_count") == 1806
        assert total(collector, "fabric_batch_size_sum") == 1806
        assert total(collector, "fabric_agents") == 18
        assert total(collector, "fabric_process_resident_memory_bytes", worker="1") > 10**7


def test_what_a_coroutine_has_in_hand_has_not_ended_yet(tmp_path):
    with Fabric(workers=1, on_error=lambda letter: None) as fab:
        collector = FabricCollector(fab)
        go = tmp_path / "go"
        replies = [ref.submit(str(go)) for ref in fab.spawn_batch(Patient, 3)]
        until(lambda: fab.statistics().messages == 3)
        assert total(collector, "fabric_messages_total", status="ok") == 0
        go.touch()
        assert all(isinstance(reply.exception(timeout=20), AgentError) for reply in replies)
        assert total(collector, "fabric_messages_total", status="ok") == 0
        until(lambda: total(collector, "fabric_messages_total", status="error") == 3)


def test_counters_and_buckets_do_not_fall_while_workers_are_killed_and_scraped():
    with Fabric(workers=2, max_restarts=100, max_attempts=100, on_error=lambda letter: None) as fab:
        collector = FabricCollector(fab)
        agents = fab.spawn_batch(Picky, 64)
        last, falls = {}, []
        growing = tuple(one.prometheus_name for one in FIGURES if one.kind != "gauge")

        def scrape():
            now = {key: value for key, value in samples_of(collector).items() if key[0].startswith(growing)}
            falls.extend((key, last[key], value) for key, value in now.items() if value < last.get(key, 0))
            last.update(now)

        def kill_and_scrape():
            victim = next((worker for worker in fab.statistics().workers if worker.alive), None)
            if victim is not None:
                os.kill(victim.pid, signal.SIGKILL)
            scrape()

        for kills in range(1, 6):
            for _ in range(3):
                agents.tell_all(1)
                scrape()
            kill_and_scrape()
            until(lambda kills=kills: scrape() or fab.statistics().restarts >= kills)
        fab.drain(timeout=30)
        scrape()
        assert falls == []
        assert last["fabric_restarts_total", "0"] == 5


def test_the_text_format_is_read_by_its_parser(used):
    text = prometheus_client.generate_latest(used).decode()
    families = {family.name: family for family in read_text(text)}
    for figure in FIGURES:
        family = families[figure.prometheus_name.removesuffix("_total")]
        assert (family.type, family.documentation) == (figure.kind, figure.help)
        assert all({"fabric", *figure.labels} <= set(sample.labels) for sample in family.samples)
        assert family.samples


def test_openmetrics_is_read_by_its_parser_which_checks_units_and_buckets(used):
    families = {family.name: family for family in read_openmetrics(generate_openmetrics(used).decode())}
    for figure in FIGURES:
        family = families[figure.prometheus_name.removesuffix("_total")]
        assert (family.type, family.unit) == (figure.kind, figure.suffix)


def test_native_histograms_are_in_openmetrics_2_and_count_what_the_classic_do(used):
    text = generate_openmetrics(WithNative(used), version="2.0.0").decode()
    checked = 0
    for family in read_openmetrics(text):
        natives = [sample for sample in family.samples if sample.native_histogram is not None]
        for sample in natives:
            [count] = [
                one.value
                for one in family.samples
                if one.name == f"{family.name}_count" and one.labels == sample.labels
            ]
            assert counted_by(sample.native_histogram) == sample.native_histogram.count_value == count
            checked += count > 0
    assert checked >= 5


def counted_by(histogram):
    """How many values the buckets of a native histogram have: each says how much it differs from the one before."""
    found, level = histogram.zero_count, 0
    for delta in histogram.pos_deltas or ():
        level += delta
        found += level
    return found


def test_protobuf_is_read_by_its_library_and_tells_what_the_text_does(used):
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Frozen(list(used.collect())))
    families = read_families(protobuf.encode(registry))
    text = list(read_text(prometheus_client.generate_latest(registry).decode()))
    assert len(families) == len(text)
    for family in text:
        found = families[family.name + ("_total" if family.type == "counter" else "")]
        assert found.help == family.documentation
        assert plain_of(found) == {
            (sample.name, *sorted(sample.labels.items())): sample.value for sample in family.samples
        }


class _Frozen:
    """A collector of families that are made already, and of one of each kind that ours are not."""

    def __init__(self, families):
        other = prometheus_client.CollectorRegistry()
        prometheus_client.Summary("a_summary", "with two sums", ["kind"], registry=other).labels("x").observe(0.5)
        prometheus_client.Info("an_info", "of strings", registry=other).info({"version": "1"})
        prometheus_client.Enum("a_state", "of two", states=["on", "off"], registry=other)
        prometheus_client.Histogram("a_histogram", "of theirs", registry=other).observe(2.0)
        self.families = [*families, *(family for family in other.collect())]
        for family in self.families:
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]

    def collect(self):
        return self.families


def plain_of(family):
    """The samples of a protobuf family, as the text format names them."""
    found = {}
    for metric in family.metric:
        labels = [(pair.name, pair.value) for pair in metric.label]
        if metric.HasField("histogram") or metric.HasField("summary"):
            one = metric.histogram if metric.HasField("histogram") else metric.summary
            found[f"{family.name}_count", *labels] = one.sample_count
            found[f"{family.name}_sum", *labels] = one.sample_sum
            for bucket in getattr(one, "bucket", ()):
                bound = prometheus_client.utils.floatToGoString(bucket.upper_bound)
                found[f"{family.name}_bucket", *sorted([*labels, ("le", bound)])] = bucket.cumulative_count
        else:
            found[family.name, *labels] = next(
                getattr(metric, kind).value for kind in ("counter", "gauge", "untyped") if metric.HasField(kind)
            )
    return found


def test_native_histograms_in_protobuf_count_what_the_classic_do(used):
    family = read_families(protobuf.encode(used))["fabric_lane_time_seconds"]
    assert family.metric
    for metric in family.metric:
        one = metric.histogram
        level, found = 0, one.zero_count
        for delta in one.positive_delta:
            level += delta
            found += level
        assert found == one.sample_count > 0
        assert sum(span.length for span in one.positive_span) == len(one.positive_delta)
        assert one.schema == 4


def test_an_empty_native_histogram_in_protobuf_is_told_from_a_classic_one():
    with InlineFabric(workers=1) as fab:
        family = read_families(protobuf.encode(registry_of(FabricCollector(fab))))["fabric_lane_time_seconds"]
    [metric] = family.metric
    assert [(span.offset, span.length) for span in metric.histogram.positive_span] == [(0, 0)]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (f"{PROTOBUF};q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        (f"text/plain;version=0.0.4;q=0.6,{PROTOBUF};q=0.5", False),
        ("application/openmetrics-text;version=1.0.0,*/*", False),
        ("application/vnd.google.protobuf", False),
        (PROTOBUF.replace("delimited", "text"), False),
        ("", False),
    ],
)
def test_protobuf_is_written_for_who_would_rather_have_it(accept, wanted):
    assert protobuf.is_asked_for(accept) is wanted


def test_time_buckets_count_exactly_what_is_below_their_bounds():
    raw = [1, 1023, 1024, 1025, 2**20 - 1, 2**20, 2**34 - 1, 2**34, 2**39]
    buckets, total_seconds = classic(TIME_BOUNDS, Histogram.of([value / 1e9 for value in raw]))
    for (bound, count), power in zip(buckets, range(10, 35), strict=False):
        assert float(bound) == 2**power / 1e9
        assert count == sum(value < 2**power for value in raw)
    assert buckets[-1] == ("+Inf", len(raw))
    assert total_seconds == pytest.approx(sum(raw) / 1e9)


def test_size_buckets_count_what_is_up_to_their_bounds():
    buckets, total_size = classic(SIZE_BOUNDS, Histogram.of([1, 2, 3, 64, 256, 256, 257 + 8], COUNTS))
    counts = dict(buckets)
    assert [counts[bound] for bound in ("1.0", "2.0", "4.0", "64.0", "128.0", "256.0", "512.0")] == [
        1,
        2,
        3,
        4,
        4,
        6,
        7,
    ]
    assert total_size == 847


def test_a_native_histogram_has_spans_and_differences_of_its_buckets():
    made = native(Histogram.of([0.0, 1.0, 1.0, 1.06, 4.0]))
    assert (made.count_value, made.zero_count, made.schema) == (5, 1, 4)
    assert [tuple(span) for span in made.pos_spans] == [(0, 1), (1, 1), (29, 1)]
    assert made.pos_deltas == [2, -1, 0]
    assert counted_by(made) == 5


def test_several_fabrics_are_told_apart_by_their_label():
    with InlineFabric(workers=1) as first, InlineFabric(workers=2) as second:
        collector = FabricCollector(first)
        collector.add(second)
        assert (total(collector, "fabric_up", fabric="0"), total(collector, "fabric_up", fabric="1")) == (1, 1)
        assert total(collector, "fabric_worker_up", fabric="1") == 2
        list(read_openmetrics(generate_openmetrics(registry_of(collector)).decode()))
        with pytest.raises(ValueError, match="there is a fabric '1'"):
            collector.add(first, "1")
        collector.remove("1")
        collector.remove("1")
        assert total(collector, "fabric_worker_up") == 1


def test_a_closed_fabric_keeps_its_counts_and_is_not_up():
    fab = InlineFabric(workers=1, on_error=lambda letter: None)
    collector = FabricCollector(fab)
    fab.spawn_batch(Picky, 1)[0].tell(1)
    fab.drain()
    fab.close()
    assert total(collector, "fabric_up") == 0
    assert total(collector, "fabric_dead_letters_total") == 1
    assert {sample[0] for sample in samples_of(collector)} & {"fabric_agents", "fabric_worker_up"} == set()


def test_a_registry_learns_the_names_without_reading_the_fabric():
    collector = FabricCollector()
    registry = registry_of(collector)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(FabricCollector())
    assert list(collector.collect()) == []
    with InlineFabric(workers=1) as fab:
        collector.add(fab)
        only = registry.restricted_registry(["fabric_worker_up", "fabric_round_trip_seconds_count"])
        assert {family.name for family in only.collect()} == {"fabric_worker_up", "fabric_round_trip_seconds"}
