"""Handles in the shape of prometheus_client."""

import asyncio
import math
import pickle
import threading
import time
from typing import Any

import pytest
from processes_scene import until

import qbus
from qbus import prometheus_client
from qbus import Counter, Gauge, Histogram, Info, MetricError, MetricsCollector, Summary


def value(collector: MetricsCollector, metric_name: str, **labels: str) -> Any:
    metric = collector.get_metric(metric_name, labels)
    return metric and metric.value


def test_names_are_made_as_elsewhere(collector: MetricsCollector) -> None:
    for handle, name in [
        (Counter("requests", registry=collector), "requests_total"),
        (Counter("errors_total", registry=collector), "errors_total"),
        (Counter("read", unit="bytes", registry=collector), "read_bytes_total"),
        (Gauge("size", namespace="app", subsystem="cache", registry=collector), "app_cache_size"),
        (Histogram("wait", unit="seconds", registry=collector), "wait_seconds"),
        (Summary("took_seconds", unit="seconds", registry=collector), "took_seconds"),
    ]:
        assert handle.name == name


def test_each_handle_does_what_it_is_for(collector: MetricsCollector) -> None:
    counter = Counter("c", "A counter.", registry=collector)
    counter.inc()
    counter.inc(2.5)
    counter.inc(amount=1, exemplar={"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
    gauge = Gauge("g", registry=collector)
    gauge.set(10)
    gauge.inc(2)
    gauge.dec()
    histogram = Histogram("h", registry=collector, buckets=(1, 2, float("inf")))
    summary = Summary("s", registry=collector)
    for observation in (0.5, 1.5, 99):
        histogram.observe(observation)
        summary.observe(amount=observation)
    assert value(collector, "c_total") == 4.5
    assert value(collector, "g") == 11
    gauge.set_to_current_time()
    assert value(collector, "g") > 1.7e9
    found = collector.get_metric("h")
    assert found is not None
    assert found.buckets == [(1.0, 1), (2.0, 2), (float("inf"), 3)]
    found = collector.get_metric("s")
    assert found is not None and (found.count, found.sum) == (3, 101.0)
    # Of the counter the last trace, also in another process.
    found = collector.get_metric("c_total")
    assert found is not None
    for metric in (found, pickle.loads(pickle.dumps(found))):
        (exemplar,) = metric.exemplars
        assert exemplar["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert exemplar["value"] == 1 and exemplar["timestamp"] > 1.7e9
        assert metric.to_dict()["exemplars"] == [exemplar]
    page = qbus.generate_latest(collector).decode()
    assert "# HELP c_total A counter.\n" in page


def test_labels_give_the_same_child(collector: MetricsCollector) -> None:
    requests = Counter("requests", labelnames=["method", "status"], registry=collector)
    child = requests.labels("GET", 200)
    assert requests.labels("GET", "200") is child
    assert requests.labels(status=200, method="GET") is child
    child.inc()
    assert value(collector, "requests_total", method="GET", status="200") == 1
    assert repr(child) == 'Counter(requests_total{method="GET",status="200"})'
    for wrong in [
        lambda: requests.labels("GET"),
        lambda: requests.labels("GET", method="GET"),
        lambda: requests.labels(method="GET", state="200"),
        lambda: requests.labels(),
    ]:
        with pytest.raises(ValueError, match=r"its labels are \[\"method\", \"status\"\]"):
            wrong()
    with pytest.raises(ValueError, match="call labels\\(\\) first"):
        requests.inc()
    with pytest.raises(ValueError, match="labels\\(\\) is for a metric with labelnames"):
        child.labels("GET", "200")


def test_mistakes_are_told_where_they_are_made(collector: MetricsCollector) -> None:
    counter = Counter("c", registry=collector)
    with pytest.raises(ValueError, match="metric c_total: counter increment is -1"):
        counter.inc(-1)
    with pytest.raises(TypeError, match="argument \"amount\" is 'one'"):
        counter.inc("one")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no metric name"):
        Gauge("a-b", labelnames=["x"], registry=collector)
    with pytest.raises(ValueError, match='label "quantile" is reserved'):
        Summary("a", labelnames=["quantile"], registry=collector)
    with pytest.raises(ValueError, match="is registered as"):
        Histogram("h", buckets=[1, 2], registry=collector)
        Histogram("h", buckets=[1, 3], registry=collector, labelnames=["x"])
    with pytest.raises(ValueError, match="buckets are"):
        Histogram("i", buckets=[2, 1], registry=collector)
    with pytest.raises(TypeError, match="labelnames"):
        Gauge("b", labelnames="endpoint", registry=collector)
    with pytest.raises(TypeError, match="registry"):
        Gauge("b", registry=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exemplar"):
        counter.inc(1, {"trace_id": "no number"})


def test_times_of_blocks_functions_and_tasks(collector: MetricsCollector) -> None:
    summary = Summary("took_seconds", registry=collector)
    timer = summary.time()
    with timer, timer:
        pass

    @summary.time()
    def work(n: int) -> int:
        """Works."""
        return n if n == 0 else work(n - 1)

    @summary.time()
    async def task(gate: asyncio.Event) -> str:
        await gate.wait()
        return "done"

    async def tasks() -> list[str]:
        gate = asyncio.Event()
        waiting = [asyncio.create_task(task(gate)) for _ in range(5)]
        gate.set()
        return await asyncio.gather(*waiting)

    assert work(3) == 0
    assert (work.__name__, work.__doc__) == ("work", "Works.")
    assert asyncio.run(tasks()) == ["done"] * 5
    assert asyncio.iscoroutinefunction(task)
    with pytest.raises(ZeroDivisionError), summary.time():
        1 / 0
    found = collector.get_metric("took_seconds")
    assert found is not None and found.count == 2 + 4 + 5 + 1
    assert found.max is not None and 0 <= found.max < 60
    gauge = Gauge("last_seconds", registry=collector)
    with gauge.time():
        pass
    assert 0 <= value(collector, "last_seconds") < 60


def test_tasks_of_one_timer_have_their_own_starts(collector: MetricsCollector) -> None:
    timer = Histogram("wait_seconds", registry=collector).time()

    async def wait(before: asyncio.Event, after: asyncio.Event) -> None:
        with timer:
            before.set()
            await after.wait()

    async def overlapping() -> None:
        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(wait(events[0], events[1]))
        await events[0].wait()
        second = asyncio.create_task(wait(events[2], events[3]))
        await events[2].wait()
        # The one that began first ends first.
        events[1].set()
        await first
        events[3].set()
        await second

    asyncio.run(overlapping())
    found = collector.get_metric("wait_seconds")
    assert found is not None and found.count == 2


def test_in_progress_and_exceptions(collector: MetricsCollector) -> None:
    running = Gauge("running", registry=collector)
    failures = Counter("failures", registry=collector)

    @running.track_inprogress()
    @failures.count_exceptions(ValueError)
    async def work(text: str) -> int:
        assert value(collector, "running") == 1
        return int(text)

    assert asyncio.run(work("1")) == 1
    with pytest.raises(ValueError):
        asyncio.run(work("one"))
    with pytest.raises(KeyError), failures.count_exceptions(ValueError):
        raise KeyError
    with pytest.raises(KeyError), failures.count_exceptions():
        raise KeyError
    with running.track_inprogress():
        assert value(collector, "running") == 1
    assert value(collector, "running") == 0
    assert value(collector, "failures_total") == 2


def test_info_states_facts(collector: MetricsCollector) -> None:
    info = Info("model", "What is served.", registry=collector)
    info.info({"name": "qwen3-vl", "revision": "1"})
    info.info({"name": "qwen3-vl", "revision": "2"})
    assert value(collector, "model_info", name="qwen3-vl", revision="1") == 0
    assert value(collector, "model_info", name="qwen3-vl", revision="2") == 1
    by_worker = Info("worker", labelnames=["rank"], registry=collector)
    by_worker.labels(0).info({"device": "cuda:0"})
    assert by_worker.labels(rank="0") is by_worker.labels(0)
    assert value(collector, "worker_info", rank="0", device="cuda:0") == 1
    with pytest.raises(ValueError, match="are labels already"):
        by_worker.labels(0).info({"rank": "1"})
    with pytest.raises(ValueError, match="call labels"):
        by_worker.info({"device": "cuda:1"})


def test_threads_share_handles(collector: MetricsCollector) -> None:
    counter = Counter("work", labelnames=["thread"], registry=collector)
    total = Counter("all_work", registry=collector)

    def work(thread: int) -> None:
        for _ in range(1000):
            counter.labels(thread).inc()
            total.inc()

    threads = [threading.Thread(target=work, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(collector, "all_work_total") == 6000
    assert [value(collector, "work_total", thread=str(n)) for n in range(6)] == [1000] * 6


def test_handles_travel(collector: MetricsCollector) -> None:
    counter = Counter("requests", "Requests.", ["path"], unit="", registry=collector)
    histogram = Histogram("size", buckets=[1, 2], registry=collector, native=True)
    for handle in (counter, counter.labels("/"), histogram):
        other = pickle.loads(pickle.dumps(handle))
        assert repr(other) == repr(handle)
    pickle.loads(pickle.dumps(counter)).labels("/").inc()
    pickle.loads(pickle.dumps(histogram)).observe(1.5)
    assert value(collector, "requests_total", path="/") == 1
    assert value(collector, "size") == 1.5
    with pytest.raises(MetricError, match="native"):
        Histogram("size", buckets=[1, 2], registry=collector)
    again = pickle.loads(pickle.dumps(collector))
    assert (again.bus, again.is_embedded) == (collector.bus, False)
    again.close()
    assert value(collector, "size") == 1.5


def test_what_is_registered_is_shown_and_what_is_removed_is_not(
    collector: MetricsCollector,
) -> None:
    requests = Counter("requests", labelnames=["path"], registry=collector)
    seconds = Histogram("seconds", registry=collector, buckets=[1])
    assert requests.labels("/a") is not None and requests.labels("/b") is not None
    until("all are shown", lambda: len(collector.snapshot()) == 3)
    shown = collector.snapshot()
    for name, labels in (("requests_total", {"path": "/a"}), ("seconds", {})):
        found = shown.get(name, labels)
        assert found is not None and found.value == 0 and not found.count
    requests.labels("/b").inc(0)
    requests.labels("/a").inc(3)
    kept = requests.labels("/b")
    requests.remove("/a")
    requests.remove("/never there")
    until("it is gone", lambda: value(collector, "requests_total", path="/a") is None)
    assert value(collector, "requests_total", path="/b") == 0
    # Who uses it again brings it back; a sum goes on.
    requests.labels("/a").inc()
    until("it is back", lambda: value(collector, "requests_total", path="/a") == 4)
    requests.clear()
    until("all are gone", lambda: "requests_total" not in collector.snapshot())
    kept.inc()
    until("it is back", lambda: value(collector, "requests_total", path="/b") == 1)
    for wrong in (
        lambda: requests.remove(),
        lambda: requests.remove("a", "b"),
        lambda: seconds.remove("a"),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_exemplars_are_of_the_last_trace(collector: MetricsCollector) -> None:
    counter = Counter("tokens", registry=collector)
    histogram = Histogram("took_seconds", registry=collector, buckets=[1, 2])
    first, second = "4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000abc"
    counter.inc(2, exemplar={"trace_id": first})
    histogram.observe(0.5, {"trace_id": first})
    histogram.observe(1.5, {"trace_id": "abc"})
    histogram.observe(1.75)
    found = collector.get_metric("took_seconds")
    assert found is not None and found.count == 3
    shown = [(one["trace_id"], one["value"]) for one in found.exemplars]
    assert sorted(shown) == [(second, 1.5), (first, 0.5)]
    found = collector.get_metric("tokens_total")
    assert found is not None and found.value == 2 and found.exemplars[0]["trace_id"] == first
    assert f'# {{trace_id="{first}"}} 0.5' in collector.export_to_openmetrics()


def test_a_summary_has_a_window(collector: MetricsCollector) -> None:
    brief = Summary("brief", registry=collector, window=0.3, window_steps=3)
    forever = Summary("forever", registry=collector, window=None)
    lasting = Summary("lasting", registry=collector)
    for summary in (brief, forever, lasting):
        summary.observe(4)
        # The same metric, in another process too.
        pickle.loads(pickle.dumps(summary)).observe(4)

    def median(name: str) -> float:
        found = collector.get_metric(name)
        assert found is not None and found.quantiles is not None
        return dict(found.quantiles)[0.5]

    deadline = time.monotonic() + 20
    while not math.isnan(median("brief")) and time.monotonic() < deadline:
        time.sleep(0.02)
    found = collector.get_metric("brief")
    assert found is not None and found.quantiles is not None
    assert all(math.isnan(value) for _, value in found.quantiles)
    assert (found.count, found.sum, found.max, found.window_seconds) == (2, 8, 4, 0.3)
    assert pickle.loads(pickle.dumps(found)).window_seconds == 0.3
    assert found.to_dict()["window_seconds"] == 0.3
    assert (median("forever"), median("lasting")) == (4, 4)
    windows = [collector.get_metric(name) for name in ("forever", "lasting")]
    assert [metric and metric.window_seconds for metric in windows] == [None, 600]
    with pytest.raises(ValueError, match="with quantiles of"):
        Summary("brief", registry=collector)
    for window, steps in ((-1, 5), (math.nan, 5), (0, 5), (60, 0), (60, 61), (1e30, 5)):
        with pytest.raises((ValueError, qbus.ArgumentError), match="window"):
            Summary("wrong", registry=collector, window=window, window_steps=steps)


def test_buckets_are_those_of_existing_dashboards(collector: MetricsCollector) -> None:
    theirs = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, math.inf)
    assert prometheus_client.Histogram.DEFAULT_BUCKETS == theirs
    Histogram("took_seconds", registry=collector, buckets=theirs).observe(1)
    page = collector.export_to_openmetrics()
    for bound in theirs[:-1]:
        assert f'took_seconds_bucket{{le="{float(bound)}"}} ' in page, (bound, page)
    assert page.count("took_seconds_bucket") == len(theirs)


def test_another_definition_says_how_to_retire_the_old_one(collector: MetricsCollector) -> None:
    Histogram("took_seconds", "Time.", registry=collector, buckets=[1, 2]).observe(1)
    with pytest.raises(qbus.MetricError, match="qbus forget") as raised:
        Histogram("took_seconds", "Time.", registry=collector, buckets=[1, 2, 3])
    # Both definitions.
    assert "[1.0, 2.0]" in str(raised.value) and "[1.0, 2.0, 3.0]" in str(raised.value)


def test_observations_of_the_same_value_are_observations_all_the_same(
    collector: qbus.MetricsCollector,
) -> None:
    histogram = qbus.Histogram("size", registry=collector)
    times = []

    def is_counted(times: int) -> bool:
        found = collector.snapshot().get("size")
        return found is not None and found.count == times

    for n in range(1, 4):
        histogram.observe(7)
        until("it is counted", lambda: is_counted(n))
        found = collector.snapshot().get("size")
        times.append(found.timestamp)
    assert times[0] < times[1] < times[2]
    history = collector.snapshot(history=True).get("size").history
    assert [value for _, value in history] == [7, 7, 7]


def test_each_of_very_many_histograms_has_its_own_extremes_and_time(
    collector: qbus.MetricsCollector,
) -> None:
    """More than a thread has cells for: they pass from one to the next."""
    histogram = qbus.Histogram("wait", labelnames=["queue"], registry=collector)
    start = time.time()
    for queue in range(600):
        histogram.labels(queue).observe(0.5)
    until("all are counted", lambda: len(collector.snapshot("wait")) == 600)
    metrics = collector.snapshot("wait").metrics
    assert {(one.count, one.min, one.max, one.value) for one in metrics} == {(1, 0.5, 0.5, 0.5)}
    assert min(one.timestamp for one in metrics) >= start - 1
