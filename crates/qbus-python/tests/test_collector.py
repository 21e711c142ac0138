"""The collector beyond the examples of its specification: refusals, limits, reading back."""

import datetime
import fractions
import json
import math
import threading
import types
import warnings
from pathlib import Path

import pytest

import qbus
from qbus import MetricsCollector, MetricType


def test_wrong_types_name_the_argument(collector: MetricsCollector) -> None:
    for arguments, message in [
        ((3, 1, "gauge"), 'argument "name" is 3 (int), expected a string'),
        (("a", "1", "gauge"), "argument \"value\" is '1' (str), expected a number"),
        (("a", None, "gauge"), 'argument "value" is None (NoneType), expected a number'),
        (("a", 1, 7), 'argument "metric_type" is 7 (int), expected a MetricType'),
        (("a", 1, "gauge", ["x"]), "argument \"labels\" is ['x'] (list), expected a dict"),
        (("a", 1, "gauge", {1: "x"}), 'argument "labels" is 1 (int), expected strings as names'),
        (("a", 1, "gauge", {}, 5), 'argument "description" is 5 (int), expected a string'),
        (
            ("a", 1, "gauge", {}, "", "noon"),
            "argument \"timestamp\" is 'noon' (str), expected seconds",
        ),
    ]:
        for call in (collector.add_metric, collector.queue_metric):
            with pytest.raises(qbus.ArgumentError) as raised:
                call(*arguments)  # type: ignore[arg-type]
            assert message in str(raised.value)
            assert isinstance(raised.value, TypeError)


def test_mistakes_are_value_errors_with_the_reason(collector: MetricsCollector) -> None:
    collector.add_metric("taken", 1, "gauge")
    for arguments, message in [
        (("a b", 1, "gauge"), '"a b" is no metric name'),
        (("a", 1, "gage"), "argument \"metric_type\" is 'gage', expected a MetricType"),
        (("a", -1, "counter"), "metric a: counter increment is -1, expected"),
        (("a", 1, "histogram", {"le": "1"}), 'label "le" is reserved'),
        (("a", 1, "gauge", {"a-b": "1"}), 'label "a-b" is no label name'),
        (("a", 1, "gauge", {f"l{n}": "1" for n in range(40)}), "the list of labels is 40 long"),
        (("a", 1, "gauge", {}, "", -5), "metric a: timestamp is -5, expected seconds since 1970"),
        (("taken", 1, "counter"), "metric taken is registered as gauge taken"),
    ]:
        for call in (collector.add_metric, collector.queue_metric):
            with pytest.raises(qbus.MetricError) as raised:
                call(*arguments)  # type: ignore[arg-type]
            assert message in str(raised.value)
            assert isinstance(raised.value, ValueError)
    assert collector.get_statistics()["invalid"] > 0
    assert collector.get_statistics()["series"] == 1


def test_everything_that_is_a_number_is_taken(collector: MetricsCollector) -> None:
    class Scalar:
        def __float__(self) -> float:
            return 2.5

    for value in [1, True, 0.5, fractions.Fraction(1, 4), Scalar(), -math.inf]:
        assert collector.add_metric("value", value, MetricType.GAUGE)
        metric = collector.get_metric("value")
        assert metric is not None
        assert metric.value == float(value)


def test_labels_are_any_mapping_and_their_values_become_strings(
    collector: MetricsCollector,
) -> None:
    labels = types.MappingProxyType({"rank": 0, "ratio": 0.5})
    assert collector.add_metric("value", 1, "gauge", labels)
    assert collector.get_metric("value", {"ratio": "0.5", "rank": "0"}) is not None
    assert collector.get_metric("value", {"rank": "1"}) is None
    many = {f"label_{n}": str(n) for n in range(20)}
    assert collector.add_metric("many", 1, "gauge", many)
    metric = collector.get_metric("many", many)
    assert metric is not None and metric.labels == many


def test_times_are_seconds_or_datetimes(collector: MetricsCollector) -> None:
    when = datetime.datetime(2023, 10, 1, 12, tzinfo=datetime.timezone.utc)
    for timestamp in (when.timestamp(), when):
        name = f"at_{type(timestamp).__name__}"
        assert collector.add_metric(name, 1, "gauge", timestamp=timestamp)
        metric = collector.get_metric(name)
        assert metric is not None
        assert (metric.timestamp, metric.datetime) == (1696161600.0, when)


def test_each_type_has_its_members(collector: MetricsCollector) -> None:
    for metric_type in MetricType:
        for value in (0.25, 0.75):
            collector.add_metric(f"a_{metric_type}", value, metric_type)
    current = collector.get_all_current_metrics()
    assert list(current) == ["a_counter", "a_gauge", "a_histogram", "a_summary", "a_untyped"]
    assert [metric.value for metric in current.values()] == [1.0, 0.75, 0.75, 0.75, 0.75]
    histogram, summary = current["a_histogram"], current["a_summary"]
    assert (histogram.count, histogram.sum, histogram.min, histogram.max) == (2, 1.0, 0.25, 0.75)
    assert histogram.buckets is not None
    assert histogram.buckets[-1] == (math.inf, 2)
    assert summary.quantiles is not None
    assert {quantile for quantile, _ in summary.quantiles} >= {0.5, 0.99}
    assert current["a_gauge"].count is None
    as_dict = json.loads(collector.export_to_json())["metrics"][1]
    assert {key: current["a_gauge"].to_dict()[key] for key in as_dict if key != "datetime"} == {
        key: value for key, value in as_dict.items() if key != "datetime"
    }
    assert current["a_gauge"]["value"] == 0.75
    with pytest.raises(KeyError, match="volume"):
        current["a_gauge"]["volume"]


def test_history_and_buffer_are_bounded() -> None:
    with MetricsCollector(max_history_per_metric=3, max_metrics_buffer=5) as collector:
        for n in range(8):
            collector.add_metric("value", n, "gauge", timestamp=n)
        assert [point.value for point in collector.get_metrics_history("value")] == [5, 6, 7]
        assert [point.value for point in collector.get_metrics_history("value", limit=1)] == [7]
        assert [record.value for record in collector.get_all_metrics_buffer()] == [3, 4, 5, 6, 7]
        (metric,) = collector.snapshot(history=True)
        assert metric.history == [(5.0, 5.0), (6.0, 6.0), (7.0, 7.0)]


def test_unbounded_labels_warn_once_and_are_counted(collector: MetricsCollector) -> None:
    capacity = collector.get_statistics()["series_capacity"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        added = []
        for batch in range(capacity + 100):
            labels = {"epoch": "0", "batch": str(batch)}
            # Of one name alone there is a limit.
            name = f"training_{batch // 1000}_batch_time"
            added.append(collector.add_metric(name, 0.5, "gauge", labels))
            if batch % 1000 == 0:
                # On a busy machine the aggregator may be behind: it is for room in the registry
                # only.
                collector.get_metric("nothing")
        handle = qbus.Counter("late", labelnames=["batch"], registry=collector)
        handle.labels("1").inc()
    assert added == [True] * capacity + [False] * 100
    (warning,) = caught
    assert issubclass(warning.category, qbus.RefusedWarning)
    assert "training_16_batch_time" in str(warning.message)
    assert "its label batch has" in str(warning.message)
    assert warning.filename == __file__
    # What was added, and what was counted by the handle.
    assert collector.get_statistics()["refused"] == 101
    assert collector.add_metric(
        "training_0_batch_time", 0.75, "gauge", {"batch": "7", "epoch": "0"}
    )


def test_rules_that_fail_refuse(
    collector: MetricsCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.register_validation_rule("even", lambda value: value % 2 == 0)
    assert collector.add_metric("even", 2, "gauge")
    with pytest.raises(qbus.MetricError, match="its validation rule refuses the value 3"):
        collector.queue_metric("even", 3, "gauge")
    assert not collector.validate_metric("even", "two")
    with pytest.raises(qbus.ArgumentError, match="cannot be called"):
        collector.register_validation_rule("odd", 7)  # type: ignore[arg-type]
    collector.register_validation_rule("broken", lambda value: 1 / 0)
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    assert not collector.validate_metric("broken", 1)
    assert told == [ZeroDivisionError]


def test_exports_say_what_is_wrong(collector: MetricsCollector, tmp_path: Path) -> None:
    collector.add_metric("value", 1, "gauge")
    with pytest.raises(qbus.BusError, match="could not write .*/nowhere/metrics.csv"):
        collector.export_to_csv(tmp_path / "nowhere" / "metrics.csv")
    with pytest.raises(ValueError, match='format is "xml", expected one of json, csv, prometheus'):
        collector.export("xml")
    page = collector.export("PROMETHEUS", output_path=tmp_path / "page")
    assert (tmp_path / "page").read_text() == page == "# TYPE value gauge\nvalue 1\n"
    with MetricsCollector(enable_prometheus_export=False) as without:
        with pytest.raises(ValueError, match="Prometheus export is off"):
            without.export("prometheus")


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="collection_interval"):
        MetricsCollector(collection_interval=0)
    with pytest.raises(ValueError, match="names no bus"):
        MetricsCollector(bus="two words")
    with pytest.raises(qbus.BusError) as raised:
        MetricsCollector(bus="/nowhere/bus")
    assert isinstance(raised.value, OSError)
    with pytest.raises(OSError, match="there is no"):
        qbus.snapshot("no-such-bus")


def test_the_machine_is_sampled() -> None:
    with MetricsCollector(collection_interval=0.02) as collector:
        collector.start_collection()
        wanted = {"system_cpu_percent", "system_memory_percent", "system_memory_available_bytes"}
        deadline = threading.Event()
        for _ in range(500):
            names = {metric.name for metric in collector.snapshot()}
            if wanted <= names and any(name.startswith("process_memory_rss") for name in names):
                break
            deadline.wait(0.02)
        else:
            pytest.fail(f"only {names} were sampled")
        collector.stop_collection()


def test_the_host_is_sampled_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n")
    sampler = {"path.procfs": str(tmp_path), "no-collector.hwmon": True}
    with MetricsCollector(collection_interval=0.02, sampler=sampler) as collector:
        collector.start_collection()
        for _ in range(500):
            total = collector.get_metric("system_memory_total_bytes")
            if total is not None:
                break
            threading.Event().wait(0.02)
        else:
            pytest.fail("nothing was sampled")
        assert total.value == 8192
    with pytest.raises(
        qbus.MetricError, match="found `path.proc`, expected an argument of node_exporter"
    ):
        MetricsCollector(sampler={"path.proc": "/"})
    with pytest.raises(qbus.ArgumentError, match='"sampler"'):
        MetricsCollector(sampler={"path.procfs": 7})


def test_reset_begins_anew(collector: MetricsCollector) -> None:
    requests = qbus.Counter("requests", registry=collector)
    requests.inc(5)
    collector.reset()
    assert len(collector.snapshot()) == 0
    requests.inc()
    metric = collector.get_metric("requests_total")
    assert metric is not None and metric.value == 1


def test_a_named_bus_is_shared_and_never_reset(bus: str) -> None:
    with MetricsCollector(bus=bus) as collector:
        assert not collector.is_embedded
        assert collector.add_metric("value", 1, "gauge")
        assert collector.get_metric("value") is None, "nobody aggregates it"
        assert collector.get_statistics()["queued"] == 1
        with pytest.raises(qbus.BusError, match="is not this process's own"):
            collector.reset()
    assert Path(f"/dev/shm/qbus.{bus}").exists()


def test_a_closed_collector_refuses() -> None:
    collector = MetricsCollector()
    collector.close()
    collector.close()
    with pytest.warns(qbus.RefusedWarning, match="the bus was removed"):
        assert collector.add_metric("value", 1, "gauge") is False
    assert not list(Path("/dev/shm").glob(f"qbus.{collector.bus}*"))


def test_trackers(collector: MetricsCollector) -> None:
    collector.add_performance_tracker("given", start_time=0.0, start_memory=0)
    result = collector.end_performance_tracker("given")
    assert result["duration"] > 1e9
    assert result["memory_delta"] > 1 << 20
    with pytest.raises(qbus.TrackerError) as raised:
        collector.end_performance_tracker("given")
    assert isinstance(raised.value, (ValueError, KeyError))
    assert str(raised.value).startswith('no performance tracker "given" is running')


def test_a_series_is_found_by_what_its_labels_say(collector: MetricsCollector) -> None:
    """Series are kept by the objects that they were added with: the same dict may say something
    else later."""
    labels = {"a": "x"}
    for value in range(40):
        labels["a"] = "xy"[value % 2]
        assert collector.queue_metric("changing", value, "gauge", labels)
        labels["".join(["b"])] = "z"
        assert collector.queue_metric("changing", value, "gauge", labels)
        del labels["b"]
        assert collector.queue_metric("changing", value, "gauge", {"a": f"text {value % 3}"})
        assert collector.queue_metric("changing_total", 1, "counter", {"n": value % 2})
        with pytest.raises(qbus.MetricError):
            collector.queue_metric("changing_total", -1, "counter", {"n": value % 2})
        with pytest.raises(qbus.MetricError):
            collector.queue_metric("changing", value, "counter", labels)
    for of, expected in (("x", 38), ("y", 39), ("text 0", 39), ("text 1", 37), ("text 2", 38)):
        found = collector.get_metric("changing", {"a": of})
        assert found is not None and found.value == expected
    for of, expected in (("x", 38), ("y", 39)):
        found = collector.get_metric("changing", {"a": of, "b": "z"})
        assert found is not None and found.value == expected
    for n in "01":
        found = collector.get_metric("changing_total", {"n": n})
        assert found is not None and found.value == 20
    # A rule that comes later is asked.
    collector.register_validation_rule("changing", lambda value: value < 100)
    with pytest.raises(qbus.MetricError):
        collector.queue_metric("changing", 100, "gauge", labels)
