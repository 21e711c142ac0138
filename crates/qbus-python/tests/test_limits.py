"""A metric with more label values than it may have, and help texts that change."""

import multiprocessing
import warnings

import pytest

import qbus
from qbus import Counter, Histogram, MetricsCollector


def test_beyond_its_limit_a_metric_stays_exact_and_says_so_once(
    collector: MetricsCollector,
) -> None:
    hits = Counter("hits", "Hits.", ["path", "method"], registry=collector)
    hits.set_max_series(20)
    with pytest.warns(qbus.RefusedWarning) as told:
        for path in range(300):
            hits.labels(f"/{path}", "GET").inc()
            hits.labels(f"/{path}", "PUT").inc(2)
    (message,) = [str(warning.message) for warning in told]
    for part in ("hits_total", "20 series", "label path", "__overflow__", "set_max_series"):
        assert part in message
    series = collector.get_all_current_metrics()
    mine = {key: metric for key, metric in series.items() if metric.name == "hits_total"}
    assert sum(metric.value for metric in mine.values()) == 900
    assert len(mine) <= 24
    rest = collector.get_metric("hits_total", {"path": "__overflow__", "method": "GET"})
    assert rest is not None and rest.value >= 280
    # What is known stays what it is, and a higher limit makes room at once.
    hits.set_max_series(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hits.labels("/another", "GET").inc()
        hits.labels("/0", "GET").inc()
    assert collector.get_metric("hits_total", {"path": "/another", "method": "GET"}) is not None
    known = collector.get_metric("hits_total", {"path": "/0", "method": "GET"})
    assert known is not None and known.value == 2


def _observe(worker: int, times: int) -> None:
    waits = Histogram("waits", "Waits.", ["user"], buckets=(1, 2))
    waits.set_max_series(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qbus.RefusedWarning)
        for number in range(times):
            waits.labels(f"{worker}-{number}").observe(1.5)


def test_processes_share_the_limit() -> None:
    workers = [
        multiprocessing.get_context("fork").Process(target=_observe, args=(worker, 50))
        for worker in range(4)
    ]
    qbus.get_metrics_collector()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    metrics = qbus.get_metrics_collector().get_all_current_metrics().values()
    waits = [metric for metric in metrics if metric.name == "waits"]
    # A registrant at the same moment may exceed it by one each.
    assert len(waits) <= 8 + 1 + len(workers)
    assert sum(metric.count or 0 for metric in waits) == 200


def test_the_last_documentation_counts(collector: MetricsCollector) -> None:
    Counter("jobs", "Jobs.", registry=collector).inc()
    Counter("jobs", "Jobs done.", registry=collector).inc()
    Counter("jobs", registry=collector).inc()
    deadline = 200
    while "# HELP jobs_total Jobs done.\n" not in collector.export("prometheus"):
        deadline -= 1
        assert deadline, collector.export("prometheus")
