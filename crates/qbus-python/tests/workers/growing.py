"""Calls everything again and again, and shows what each call has left behind: allocated blocks of
Python and bytes of the C library's heap, which are exact where the resident size is not;
descriptors, threads, and files of buses.

    growing.py CALLS    on the bus that QBUS names
"""

import asyncio
import ctypes
import gc
import itertools
import json
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import qbus
from qbus import prometheus_client
from qbus.prometheus_client import multiprocess, parser
from qbus.prometheus_client.openmetrics import exposition as openmetrics

Calls = dict[str, tuple[Callable[[], Any], int]]


class Heap(ctypes.Structure):
    """struct mallinfo2, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Heap


def in_use() -> tuple[int, ...]:
    """Blocks of Python, bytes of the heap, descriptors, threads and files."""
    gc.collect()
    heap = mallinfo2()
    private = f"qbus.embedded-{os.getpid()}-"
    return (
        sys.getallocatedblocks(),
        heap.uordblks + heap.hblkhd,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        sum(name.startswith(private) for name in os.listdir("/dev/shm")),
    )


def calls() -> Calls:
    """What is called of qbus, by name, and how many times as long as the cheapest it takes."""
    collector = qbus.get_metrics_collector()
    counter = qbus.Counter("grow", "A counter.", ["a"])
    child = counter.labels("x")
    unending = qbus.Counter("grow_unending", "A counter.", ["a"])
    unending.set_max_series(10)
    numbers = itertools.count()
    histogram = qbus.Histogram("grow_seconds")
    summary = qbus.Summary("grow_size")
    gauge = qbus.Gauge("grow_depth")
    timer = histogram.time()
    labels = {"a": "x", "b": 7}

    @histogram.time()
    def timed() -> None:
        pass

    @histogram.time()
    def stepped() -> Iterator[int]:
        yield 1

    @histogram.time()
    async def waited() -> None:
        with timer, timer:
            pass

    def context() -> None:
        with histogram.time(), gauge.track_inprogress(), child.count_exceptions():
            pass

    def tasks() -> None:
        async def both() -> None:
            await asyncio.gather(waited(), waited())

        asyncio.run(both())

    def mistaken() -> None:
        for wrong in (
            lambda: child.inc(-1),
            lambda: counter.inc(),
            lambda: counter.labels("a", "b"),
        ):
            try:
                wrong()
            except ValueError:
                pass

    def tracked() -> None:
        qbus.start_performance_tracking("grow")
        qbus.end_performance_tracking("grow")

    def collectors() -> None:
        qbus.MetricsCollector(bus=collector.bus).close()

    def private() -> None:
        with qbus.MetricsCollector() as own:
            qbus.Counter("grow", registry=own).inc()
            # A rule may hold the collector.
            own.register_validation_rule("grow_ruled", lambda value: own is not None)
            own.add_metric("grow_ruled", 1, "gauge")

    def handles() -> None:
        for kind in (qbus.Counter, qbus.Gauge, qbus.Histogram, qbus.Summary):
            kind(f"grow_made_{kind.__name__.lower()}", "Made.", ["a"]).labels("x").set_max_series(
                100
            )
        qbus.Info("grow").info({"version": "1"})

    def removed() -> None:
        counter.labels("gone").inc()
        counter.remove("gone")
        gauge.clear()

    def other_threads() -> None:
        threads = [threading.Thread(target=child.inc) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def forks() -> None:
        pid = os.fork()
        if pid == 0:
            child.inc()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    def members() -> None:
        for metric in snapshot:
            metric.to_dict(), metric.history, metric.exemplars, repr(metric), metric == metric

    def doors() -> None:
        qbus.start_http_server(0).close()
        qbus.start_statsd_server("127.0.0.1:0").close()

    def dropped_doors() -> None:
        # Its guard is lost, and it goes on: so it is closed by who made it.
        with qbus.start_http_server(0) as server:
            assert server.url

    snapshot = qbus.snapshot(match="grow*", history=True)
    path = Path(tempfile.gettempdir()) / f"growing-{os.getpid()}"

    return {
        "inc": (child.inc, 1),
        "inc of a number": (lambda: child.inc(0.25), 1),
        "labels": (lambda: counter.labels("x").inc(), 1),
        "labels by name": (lambda: counter.labels(a="x").inc(), 1),
        "labels without end": (lambda: unending.labels(next(numbers)).inc(), 1),
        "labels of ints": (lambda: counter.labels(7).inc(), 1),
        "observe": (lambda: histogram.observe(0.25), 1),
        "observe a summary": (lambda: summary.observe(2), 1),
        "set": (lambda: gauge.set(4), 1),
        "exemplar": (lambda: child.inc(1, {"trace_id": "ab"}), 1),
        "queue_metric": (lambda: collector.queue_metric("grow_queued", 1, "counter", labels), 1),
        "add_metric": (lambda: collector.add_metric("grow_added", 1, "gauge", labels, "Help."), 1),
        "a timer": (context, 2),
        "a function": (timed, 2),
        "a generator": (lambda: list(stepped()), 2),
        "tasks": (tasks, 200),
        "mistakes": (mistaken, 5),
        "a performance tracker": (tracked, 10),
        "get_metric": (lambda: collector.get_metric("grow_total", {"a": "x"}), 500),
        "history": (lambda: collector.get_metrics_history("grow_depth", 10), 500),
        "snapshot": (lambda: list(qbus.snapshot()), 500),
        "columns": (lambda: qbus.snapshot().to_columns(), 500),
        "a page": (qbus.generate_latest, 500),
        "exports": (lambda: [collector.export(kind) for kind in ("json", "csv")], 1000),
        "statistics": (collector.get_statistics, 500),
        "pickles": (lambda: pickle.loads(pickle.dumps([child, timer])), 20),
        "pickled snapshots": (lambda: pickle.loads(pickle.dumps(qbus.snapshot())), 1000),
        "collectors": (collectors, 1000),
        "private collectors": (private, 2000),
        "handles": (handles, 20),
        "removal": (removed, 20),
        "threads": (other_threads, 500),
        "forks": (forks, 1000),
        "a metric's members": (members, 200),
        "doors": (doors, 20_000),
        "a door in a block": (dropped_doors, 2000),
        "a named bus": (lambda: qbus.snapshot(collector.bus, match="grow*"), 500),
        "what there is": (
            lambda: (repr(collector), repr(child), "grow" in snapshot, len(snapshot)),
            5,
        ),
        "get_all_current_metrics": (collector.get_all_current_metrics, 500),
        "get_all_metrics_buffer": (collector.get_all_metrics_buffer, 2000),
        "a file": (lambda: (collector.export_to_openmetrics(str(path)), path.unlink()), 1000),
        "validate_metric": (lambda: collector.validate_metric("grow", 1), 1),
        "shorthands": (lambda: qbus.queue_performance_metric("grow_short", 1), 1),
        "collection": (lambda: (collector.start_collection(), collector.stop_collection()), 1000),
    }


def their_calls() -> Calls:
    """What is called of qbus.prometheus_client."""
    client = prometheus_client
    theirs = client.Counter("grow_theirs", "A counter.", ["a"])
    gauge = client.Gauge("grow_gauge", "A gauge.")
    modes = [
        client.Gauge(f"grow_{mode}", mode, ["a"], multiprocess_mode=mode)
        for mode in ("livesum", "mostrecent")
    ]
    observed = client.Histogram("grow_observed", "A histogram.", ["a"])
    path = Path(tempfile.gettempdir()) / f"growing-{os.getpid()}.prom"
    page = openmetrics.generate_latest(client.REGISTRY).decode()

    def many_labels() -> None:
        for n in range(20):
            theirs.labels(n).inc()

    def removed() -> None:
        for metric in (theirs, observed):
            metric.labels("gone")
            metric.remove("gone")
        for mode in modes:
            mode.labels("gone").set(1)
            mode.clear()

    def transient() -> None:
        # As jobs do that push their results.
        registry = client.CollectorRegistry()
        client.Counter("grow_t", "A counter.", registry=registry).inc(exemplar={"trace_id": "ab"})
        client.Gauge("grow_g", "A gauge.", registry=registry).set_function(lambda: 1)
        client.Histogram("grow_h", "A histogram.", ["a"], registry=registry).labels("x").observe(1)
        client.Summary("grow_s", "A summary.", registry=registry).observe(1)
        client.Info("grow_i", "Facts.", registry=registry).info({"a": "b"})
        client.Enum("grow_e", "States.", states=["a", "b"], registry=registry).state("b")
        client.push_to_gateway("localhost:9", "job", registry, handler=lambda **_: lambda: None)

    def registered() -> None:
        client.REGISTRY.unregister(gauge)
        client.REGISTRY.register(gauge)

    def blocks() -> None:
        with (
            observed.labels("x").time(),
            gauge.track_inprogress(),
            theirs.labels("x").count_exceptions(),
        ):
            pass

    def merged() -> None:
        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        client.generate_latest(registry)
        client.CollectorRegistry().restricted_registry(["grow_gauge"])

    def served() -> None:
        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "QUERY_STRING": "name[]=grow_gauge",
        }
        client.make_wsgi_app()(environment, lambda *_: None)

    def server() -> None:
        running, thread = client.start_http_server(0, "127.0.0.1")
        running.shutdown()
        running.server_close()
        thread.join()

    return {
        "inc": (theirs.labels("x").inc, 1),
        "labels": (many_labels, 20),
        "labels by name": (lambda: theirs.labels(a="x"), 1),
        "set": (lambda: gauge.set(1), 1),
        "observe": (lambda: observed.labels("x").observe(1), 1),
        "blocks": (blocks, 5),
        "removal": (removed, 100),
        "transient registries": (transient, 500),
        "registration": (registered, 20),
        "a page": (lambda: client.generate_latest(), 1000),
        "a page of OpenMetrics": (lambda: openmetrics.generate_latest(client.REGISTRY), 1000),
        "the page of all": (merged, 1000),
        "a request": (served, 200),
        "a server": (server, 100_000),
        "a file": (
            lambda: (client.write_to_textfile(str(path), client.REGISTRY), path.unlink()),
            1000,
        ),
        "a parser": (lambda: list(parser.text_string_to_metric_families(page)), 1000),
        "mark_process_dead": (lambda: multiprocess.mark_process_dead(1), 5),
    }


def left_by(call: Callable[[], Any], times: int) -> tuple[int, ...]:
    before = in_use()
    for _ in range(times):
        call()
    return tuple(then - now for then, now in zip(in_use(), before))


def main() -> None:
    wanted = int(sys.argv[1])
    found = {}
    theirs = {f"prometheus_client: {name}": call for name, call in their_calls().items()}
    for name, (call, cost) in {**calls(), **theirs}.items():
        times = max(wanted // cost, 5)
        for _ in range(max(times // 10, 5)):
            call()
        left = left_by(call, times)
        if any(left):
            # What fills a cache does so once (Python 3.10 has one for each function, made in its
            # 1,024th call).
            left = tuple(map(min, left, left_by(call, times)))
        found[name] = (times, *left)
    json.dump(found, sys.stdout)


main()
