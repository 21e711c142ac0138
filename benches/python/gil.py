"""How long one call of the API keeps the interpreter from other threads.

    gil.py [SERIES]    a page of so many series (2,000)

"held" is the longest that a call uses the processor between two points at which other threads can
have the interpreter (holds.c, which needs a C compiler and an interpreter that is a shared
library). A call is made many times, and each of its spans between two points has the median of all
calls: "held" is the longest of these medians. "longest" is the median of the longest span of each
call, where it has as many spans as a call usually has: among thousands of them there is one in
which the machine dealt with an interrupt, as the rows show that only call an empty function.

"seen" is the same as a second thread sees it, which looks as often as it gets the interpreter at
how much processor time the calling thread has used: there the time is in it that it takes to wake
the second thread up, which the first rows show: they call nothing of qbus. CPU is the processor
time of one call, with the interpreter or without.

What a call gives is freed bit by bit here, so that it is not counted. Python itself frees a list in
one go, and gives nobody a turn meanwhile: the last rows show that.
"""

import ctypes
import gc
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import qbus
from qbus import prometheus_client
from qbus.prometheus_client.multiprocess import MultiProcessCollector
from qbus.prometheus_client.openmetrics import exposition as openmetrics


#: See prctl(2).
PR_SET_TIMERSLACK = 29


def wake_up_at_once() -> None:
    """Has waits of this thread end when they should, not up to 50 microseconds later; and if that
    is allowed, before whatever else the machine does."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass


def holds_library() -> Optional[ctypes.PyDLL]:
    """holds.c, in this process: it is started anew with it."""
    if "LD_PRELOAD" in os.environ:
        library = ctypes.PyDLL(os.environ["LD_PRELOAD"])
        library.holds_end.restype = ctypes.c_longlong
        library.holds_spans.restype = ctypes.POINTER(ctypes.c_longlong)
        # Any call that gives the interpreter up, made by no function of Python.
        library.holds_begin()
        qbus._qbus.bus_exists("none")
        return library if library.holds_end() > 2 else None
    source = Path(__file__).with_name("holds.c")
    with tempfile.TemporaryDirectory() as folder:
        made = str(Path(folder) / "holds.so")
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", made, str(source)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        environment = {**os.environ, "LD_PRELOAD": made}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)


def held(call: Callable[[], Any], library: Optional[ctypes.PyDLL], is_new: bool) -> list[float]:
    """Microseconds of the longest span of a call, and of the longest in most calls; `is_new` has
    each call made by a thread of its own."""
    if library is None:
        return [math.nan, math.nan]
    calls: list[list[int]] = []

    def measure() -> None:
        library.holds_begin()
        given = call()
        count = library.holds_end()
        calls.append(library.holds_spans()[:count])
        let_go(given)

    end = time.monotonic() + 0.3
    while time.monotonic() < end or len(calls) < 15:
        if is_new:
            thread = threading.Thread(target=measure)
            thread.start()
            thread.join()
        else:
            measure()
    usual = statistics.mode(map(len, calls))
    alike = [spans for spans in calls if len(spans) == usual]
    each = max(statistics.median(spans) for spans in zip(*alike))
    return [each / 1e3, statistics.median(map(max, alike)) / 1e3]


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


def let_go(given: Any) -> None:
    """Frees what a call gave, one object after the other."""
    while isinstance(given, (list, dict)) and given:
        let_go(given.popitem()[1] if isinstance(given, dict) else given.pop())


def spans(call: Callable[[], Any], free: Callable[[Any], None], seconds: float) -> list[float]:
    """Microseconds of the caller between two turns of another thread: the longest span of each
    call."""
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
        given = call()
        found.append(longest / 1e3)
        free(given)
        del given
    is_over = True
    watcher.join()
    # Of a call that is over before the other thread has its turn, nothing was seen.
    return sorted(span for span in found if span) or [0.0]


def turn_by_turn(times: int) -> int:
    """Python itself, which could change threads in each turn of the loop."""
    total = 0
    for n in range(times):
        total += n & 7
    return total


def calls_of_a_function(times: int) -> None:
    """So many points at which another thread could have the interpreter, and nothing else."""
    nothing: Callable[[], None] = lambda: None
    for _ in range(times):
        nothing()


def come_and_go(family: qbus.Counter, series: int) -> None:
    for n in range(series):
        family.labels(n)
    family.clear()


def timed(histogram: qbus.Histogram) -> None:
    with histogram.time():
        pass


def freed(call: Callable[[], Any]) -> float:
    """Microseconds of the processor that it takes to free what a call gave."""
    given = call()
    start = time.thread_time_ns()
    del given
    return (time.thread_time_ns() - start) / 1e3


def main() -> None:
    library = holds_library()
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
    cleared = qbus.Counter("cleared", "Cleared.", ["n"])
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.gettempdir()
    multi = MultiProcessCollector(prometheus_client.CollectorRegistry())
    numbers = iter(range(10**9))
    gauge = qbus.Gauge("depth")
    summary = qbus.Summary("size")
    information = qbus.Info("build")
    told = prometheus_client.Histogram("theirs_seconds", "Times.", ["n"])

    cases: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "2,000 calls of a function": lambda: calls_of_a_function(2000),
        "10,000 calls of a function": lambda: calls_of_a_function(10_000),
        "a loop of Python, 0.1 ms": lambda: turn_by_turn(5000),
        "a loop of Python, 1 ms": lambda: turn_by_turn(50_000),
        "a loop of Python, 8 ms": lambda: turn_by_turn(400_000),
        "inc()": counter.labels("0").inc,
        "observe()": lambda: histogram.labels("0").observe(1),
        "Gauge.inc()": gauge.inc,
        "Summary.observe()": lambda: summary.observe(1),
        "Info.info()": lambda: information.info({"version": "1"}),
        "a block that is timed": lambda: timed(histogram.labels("0")),
        "Counter(…)": lambda: qbus.Counter("calls", "Calls.", ["n"]),
        "remove()": lambda: counter.remove(next(numbers) % 900),
        "prometheus_client inc()": theirs.labels("0").inc,
        "prometheus_client observe()": lambda: told.labels("0").observe(1),
        "queue_metric()": lambda: collector.queue_metric("queued", 1, "gauge", {"a": "b"}),
        "add_metric()": lambda: collector.add_metric("added", 1, "gauge", {"a": "b"}),
        "labels() of a new series": lambda: counter.labels(next(numbers) % 900),
        "the first inc() of a thread": counter.labels("thread").inc,
        "labels() of 1,000 series, clear()": lambda: come_and_go(cleared, 1000),
        "Histogram(…) of 200 buckets": lambda: qbus.Histogram("fine", buckets=range(200)),
        "register_validation_rule()": lambda: collector.register_validation_rule("no", abs),
        "get_metric()": lambda: collector.get_metric("calls_total", {"n": "7"}),
        "get_statistics()": collector.get_statistics,
        "snapshot()": collector.snapshot,
        "snapshot(match=…)": lambda: collector.snapshot("calls*"),
        "Snapshot.get()": lambda: snapshot.get("calls_total", {"n": "7"}),
        "Snapshot.metrics": lambda: snapshot.metrics,
        "Snapshot.to_columns()": snapshot.to_columns,
        "Snapshot.to_columns(flat=True)": lambda: snapshot.to_columns(flat=True),
        "get_metrics_history()": lambda: collector.get_metrics_history("calls_total"),
        "get_all_current_metrics()": collector.get_all_current_metrics,
        "get_all_metrics_buffer()": collector.get_all_metrics_buffer,
        "generate_latest()": qbus.generate_latest,
        "export_to_json()": collector.export_to_json,
        "export_to_csv()": collector.export_to_csv,
        "Snapshot.to_json()": snapshot.to_json,
        "export_to_openmetrics()": collector.export_to_openmetrics,
        "prometheus_client.generate_latest()": prometheus_client.generate_latest,
        "… its OpenMetrics": lambda: openmetrics.generate_latest(prometheus_client.REGISTRY),
        "MultiProcessCollector.collect()": multi.collect,
        "write_to_textfile()": lambda: prometheus_client.write_to_textfile(
            os.devnull, prometheus_client.REGISTRY
        ),
        "a pickled handle": lambda: pickle.loads(pickle.dumps(counter)),
        "a pickled snapshot": lambda: pickle.dumps(snapshot),
        "a collector of the same bus": lambda: qbus.MetricsCollector(bus=collector.bus).close(),
        "a collector of its own": lambda: qbus.MetricsCollector().close(),
        "a server": lambda: qbus.start_http_server(0).close(),
        "a performance tracker": lambda: (
            collector.add_performance_tracker("x"),
            collector.end_performance_tracker("x"),
        ),
    }
    sys.setswitchinterval(1e-6)
    gc.disable()
    print(f"{series} series; microseconds")
    print(f"{'':<38}{'held':>8}{'longest':>9}{'seen':>8}{'CPU':>10}")
    for name, call in cases.items():
        of_each, longest = held(call, library, "of a thread" in name)
        cost = processor_time(call)
        seen = spans(call, let_go, 0.2)[0]
        print(f"{name:<38}{of_each:>8.1f}{longest:>9.1f}{seen:>8.1f}{cost:>10.2f}")
    print("\nmicroseconds in which Python frees what these gave, in one go")
    for name, call in cases.items():
        found = [freed(call) for _ in range(20)]
        if statistics.median(found) > 5:
            print(f"{name:<38}{min(found):>8.1f}{statistics.median(found):>8.1f}")


main()
