"""Calls everything again and again, and shows how much memory each call has left behind: allocated blocks of
Python and bytes of the C library's heap, which are exact where the resident size is not.

    growing.py CALLS    on the bus that QBUS names
"""

import asyncio
import ctypes
import gc
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any

import qbus
from qbus import prometheus_client


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


def in_use() -> tuple[int, int]:
    """Blocks of Python, and bytes of the heap."""
    gc.collect()
    heap = mallinfo2()
    return sys.getallocatedblocks(), heap.uordblks + heap.hblkhd


def calls() -> dict[str, tuple[Callable[[], Any], int]]:
    """What is called, by name, and how many times as long as the cheapest it takes."""
    collector = qbus.get_metrics_collector()
    counter = qbus.Counter("grow", "A counter.", ["a"])
    child = counter.labels("x")
    histogram = qbus.Histogram("grow_seconds")
    summary = qbus.Summary("grow_size")
    gauge = qbus.Gauge("grow_depth")
    timer = histogram.time()
    theirs = prometheus_client.Counter("grow_theirs", "A counter.", ["a"])
    their_gauge = prometheus_client.Gauge("grow_gauge", "A gauge.")
    observed = prometheus_client.Histogram("grow_observed", "A histogram.")
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
        for wrong in (lambda: child.inc(-1), lambda: counter.inc(), lambda: counter.labels("a", "b")):
            try:
                wrong()
            except ValueError:
                pass

    def tracked() -> None:
        qbus.start_performance_tracking("grow")
        qbus.end_performance_tracking("grow")

    def many_labels() -> None:
        for n in range(20):
            theirs.labels(n).inc()

    def collectors() -> None:
        qbus.MetricsCollector(bus=collector.bus).close()

    return {
        "inc": (child.inc, 1),
        "inc of a number": (lambda: child.inc(0.25), 1),
        "labels": (lambda: counter.labels("x").inc(), 1),
        "labels by name": (lambda: counter.labels(a="x").inc(), 1),
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
        "prometheus_client": (many_labels, 20),
        "a gauge of prometheus_client": (lambda: their_gauge.set(1), 1),
        "a histogram of prometheus_client": (lambda: observed.observe(1), 1),
        "a page of prometheus_client": (lambda: prometheus_client.generate_latest(), 500),
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
    }


def main() -> None:
    wanted = int(sys.argv[1])
    found = {}
    for name, (call, cost) in calls().items():
        times = max(wanted // cost, 50)
        for _ in range(max(times // 10, 30)):
            call()
        blocks, heap = in_use()
        for _ in range(times):
            call()
        blocks_then, heap_then = in_use()
        found[name] = (times, blocks_then - blocks, heap_then - heap)
    json.dump(found, sys.stdout)


main()
