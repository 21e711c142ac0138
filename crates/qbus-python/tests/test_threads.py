"""Threads that use the same objects at once, with the interpreter's lock or, in a build without it,
at the same moment: every count is there, and nobody sees half of anything."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from processes_scene import until

import qbus
from qbus import MetricError, MetricsCollector, MetricType, prometheus_client

THREADS = 8
TIMES = 400
VALUES = 20


def at_once(work: Callable[[int], None]) -> None:
    """Runs it on all threads, which begin together; what one of them raises fails the test."""
    barrier = threading.Barrier(THREADS)
    failed: list[BaseException] = []

    def run(thread: int) -> None:
        barrier.wait()
        try:
            work(thread)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def total(collector: MetricsCollector, name: str) -> float:
    found = [metric for metric in collector.snapshot().metrics if metric.name == name]
    return sum(metric.value if metric.count is None else metric.count for metric in found)


def test_threads_that_share_handles_lose_nothing(collector: MetricsCollector) -> None:
    counter = qbus.Counter("counted", registry=collector)
    labelled = qbus.Counter("labelled", labelnames=["value"], registry=collector)
    histogram = qbus.Histogram("observed", registry=collector)
    summary = qbus.Summary("summed", registry=collector)
    gauge = qbus.Gauge("gauged", registry=collector)
    timer = histogram.time()
    labels = {"kind": "same", "dict": "too"}
    children: list[set[Any]] = [set() for _ in range(VALUES)]
    refused = []

    def work(thread: int) -> None:
        for n in range(TIMES):
            counter.inc()
            # All of them make the same series at about the same time.
            child = labelled.labels(str(n % VALUES))
            children[n % VALUES].add(child)
            child.inc()
            with timer, gauge.track_inprogress():
                summary.observe(1)
            if not collector.queue_metric("queued", 1, MetricType.COUNTER, labels):
                refused.append(n)
            if n % 100 == thread:
                collector.snapshot().to_columns()
                collector.export_to_json()
                collector.get_all_metrics_buffer()

    at_once(work)
    assert [len(same) for same in children] == [1] * VALUES
    expected = {
        "counted_total": THREADS * TIMES,
        "labelled_total": THREADS * TIMES,
        "observed": THREADS * TIMES,
        "summed": THREADS * TIMES,
        "gauged": 0,
        "queued": THREADS * TIMES - len(refused),
    }
    for name, count in expected.items():
        until(f"{name} is {count}", lambda: total(collector, name) == count)


def test_threads_that_share_metrics_of_prometheus_client_lose_nothing() -> None:
    registry = prometheus_client.CollectorRegistry()
    counter = prometheus_client.Counter("c", "Counted.", ["value"], registry=registry)
    histogram = prometheus_client.Histogram("h", "Observed.", registry=registry)
    gauge = prometheus_client.Gauge("g", "Gauged.", registry=registry)
    pages = []

    def work(thread: int) -> None:
        for n in range(TIMES):
            counter.labels(n % VALUES).inc()
            histogram.observe(0.5)
            with gauge.track_inprogress():
                pass
            if n % 100 == thread:
                pages.append(prometheus_client.generate_latest(registry))

    at_once(work)
    value = registry.get_sample_value
    for n in range(VALUES):
        assert value("c_total", {"value": str(n)}) == THREADS * TIMES / VALUES
    assert value("h_count") == THREADS * TIMES
    assert value("h_sum") == THREADS * TIMES / 2
    assert value("g") == 0
    assert pages and all(page.endswith(b"\n") for page in pages)


def test_a_rule_holds_for_what_other_threads_add_from_then_on(collector: MetricsCollector) -> None:
    """They add the same objects again and again, whose series is known without a look at them."""
    is_ruled = threading.Event()

    def work(thread: int) -> None:
        if thread == 0:
            collector.register_validation_rule("ruled", lambda value: value != 1)
            is_ruled.set()
        while not is_ruled.is_set():
            try:
                collector.queue_metric("ruled", 1, MetricType.GAUGE)
            except MetricError:
                break
        for _ in range(20):
            with pytest.raises(MetricError, match="its validation rule refuses"):
                collector.queue_metric("ruled", 1, MetricType.GAUGE)
            assert collector.queue_metric("ruled", 2, MetricType.GAUGE)

    at_once(work)
