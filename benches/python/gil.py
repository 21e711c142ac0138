"""How long other threads wait for the interpreter while one calls the API.

    gil.py [SERIES]    a page of so many series (2,000)

A second thread looks at the clock in a loop, with a switch interval of a microsecond: the gap between two looks
is how long the caller kept the interpreter, and what it takes to wake a thread up. The first row calls
nothing of qbus, so it is what the machine itself needs (some 80 microseconds, mostly the kernel's timer slack); a call is
judged by what it has more. Lists of thousands of objects are freed by Python itself, which gives nobody a turn meanwhile.
"""

import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import qbus
from qbus import prometheus_client


def gaps(call: Callable[[], Any], seconds: float) -> list[int]:
    """Nanoseconds between looks at the clock while the call runs again and again."""
    found: list[int] = []
    is_over = False

    def look() -> None:
        now = time.perf_counter_ns
        last = now()
        while not is_over:
            then, last = last, now()
            if last - then > 2000:
                found.append(last - then)

    watcher = threading.Thread(target=look)
    watcher.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        call()
    is_over = True
    watcher.join()
    return sorted(found)


def main() -> None:
    series = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    collector = qbus.get_metrics_collector()
    counter = qbus.Counter("calls", "Calls.", ["n"])
    histogram = qbus.Histogram("took_seconds", "Times.", ["n"])
    theirs = prometheus_client.Counter("theirs", "Calls.", ["n"])
    for n in range(series // 2):
        counter.labels(n).inc()
        histogram.labels(n).observe(1)
        theirs.labels(n).inc()
    snapshot = collector.snapshot()
    numbers = iter(range(10**9))

    def thread() -> None:
        started = threading.Thread(target=counter.labels("thread").inc)
        started.start()
        started.join()

    cases: dict[str, Callable[[], Any]] = {
        "nothing": lambda: sum(range(20)),
        "inc()": counter.labels("0").inc,
        "observe()": lambda: histogram.labels("0").observe(1),
        "queue_metric()": lambda: collector.queue_metric("queued", 1, "gauge", {"a": "b"}),
        "add_metric()": lambda: collector.add_metric("added", 1, "gauge", {"a": "b"}),
        "labels() of a new series": lambda: counter.labels(next(numbers) % 5000),
        "the first inc() of a thread": thread,
        "get_metric()": lambda: collector.get_metric("calls_total", {"n": "7"}),
        "get_statistics()": collector.get_statistics,
        "snapshot()": collector.snapshot,
        "Snapshot.get()": lambda: snapshot.get("calls_total", {"n": "7"}),
        "Snapshot.metrics": lambda: snapshot.metrics,
        "Snapshot.to_columns()": snapshot.to_columns,
        "get_all_current_metrics()": collector.get_all_current_metrics,
        "get_all_metrics_buffer()": collector.get_all_metrics_buffer,
        "generate_latest()": qbus.generate_latest,
        "prometheus_client.generate_latest()": prometheus_client.generate_latest,
        "a performance tracker": lambda: (
            collector.add_performance_tracker("x"),
            collector.end_performance_tracker("x"),
        ),
    }
    sys.setswitchinterval(1e-6)
    gc.disable()
    print(f"{series} series; microseconds\n{'':<38}{'median':>8}{'99 %':>8}{'99.9 %':>8}{'most':>8}")
    for name, call in cases.items():
        found = gaps(call, 0.3)
        if not found:
            print(f"{name:<38}       no gap")
            continue
        of = [found[int(len(found) * part)] / 1e3 for part in (0.5, 0.99, 0.999)]
        print(f"{name:<38}" + "".join(f"{one:>8.1f}" for one in (*of, found[-1] / 1e3)))


main()
