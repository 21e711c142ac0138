"""How long one call of the API keeps the interpreter from other threads.

    gil.py [SERIES]    a page of so many series (2,000)

A second thread looks, as often as it gets the interpreter, at how much processor time the calling thread has used: what
comes between two looks, the caller used while it had the interpreter. That is no matter of how busy the machine is, but for
the time that it takes to wake the second thread up, which the first row shows: it calls nothing of qbus. Of each call the
longest of these spans counts; "held" is the least of many calls, and the median stands beside it. CPU is the processor time
of one call, with the interpreter or without. Lists of thousands of objects are freed by Python itself, which gives nobody a
turn meanwhile: that is in the row of who made them.
"""

import ctypes
import gc
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import qbus
from qbus import prometheus_client


#: See prctl(2).
PR_SET_TIMERSLACK = 29


def wake_up_at_once() -> None:
    """Has waits of this thread end when they should, not up to 50 microseconds later; and if that is allowed,
    before whatever else the machine does."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass


def processor_time(call: Callable[[], Any]) -> float:
    """Microseconds of a call: the median of runs of as many as take a hundred microseconds."""
    now = time.thread_time_ns
    start = now()
    call()
    times = max(100_000 // max(now() - start, 1), 1)
    found = []
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        start = now()
        for _ in range(times):
            call()
        found.append((now() - start) / times / 1e3)
    return statistics.median(found)


def spans(call: Callable[[], Any], seconds: float) -> list[float]:
    """Microseconds of the caller between two turns of another thread: the longest span of each call."""
    clock = time.pthread_getcpuclockid(threading.get_ident())
    longest = 0
    is_over = False

    def look() -> None:
        nonlocal longest
        wake_up_at_once()
        used = time.clock_gettime_ns
        last = used(clock)
        while not is_over:
            then, last = last, used(clock)
            if last - then > longest:
                longest = last - then

    watcher = threading.Thread(target=look)
    watcher.start()
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found) < 5:
        longest = 0
        call()
        found.append(longest / 1e3)
    is_over = True
    watcher.join()
    # Of a call that is over before the other thread has its turn, nothing was seen.
    return sorted(span for span in found if span) or [0.0]


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
        "Gauge.inc()": qbus.Gauge("depth").inc,
        "prometheus_client inc()": theirs.labels("0").inc,
        "queue_metric()": lambda: collector.queue_metric("queued", 1, "gauge", {"a": "b"}),
        "add_metric()": lambda: collector.add_metric("added", 1, "gauge", {"a": "b"}),
        "labels() of a new series": lambda: counter.labels(next(numbers) % 900),
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
        "export_to_json()": collector.export_to_json,
        "export_to_csv()": collector.export_to_csv,
        "Snapshot.to_json()": snapshot.to_json,
        "prometheus_client.generate_latest()": prometheus_client.generate_latest,
        "a performance tracker": lambda: (
            collector.add_performance_tracker("x"),
            collector.end_performance_tracker("x"),
        ),
    }
    sys.setswitchinterval(1e-6)
    gc.disable()
    print(f"{series} series; microseconds\n{'':<38}{'held':>8}{'median':>8}{'CPU':>10}")
    for name, call in cases.items():
        cost = processor_time(call)
        found = spans(call, 0.3)
        print(f"{name:<38}{found[0]:>8.1f}{statistics.median(found):>8.1f}{cost:>10.2f}")


main()
