"""No call keeps the interpreter from other threads: what copies and makes many objects lets others
have it."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes_scene import until

import qbus
from qbus import Gauge, MetricsCollector, prometheus_client
from qbus.prometheus_client.core import GaugeMetricFamily, Sample
from qbus.prometheus_client.openmetrics import exposition as openmetrics
from qbus.prometheus_client.utils import free

#: Of one name alone there is a limit.
SERIES = [(name, n) for name in "abcd" for n in range(500)]


@pytest.fixture
def full(collector: MetricsCollector) -> MetricsCollector:
    """A collector of many series."""
    for name in "abcd":
        counter = qbus.Counter(name, labelnames=["n"], registry=collector)
        for n in range(len(SERIES) // 4):
            counter.labels(n).inc()
    until("all are there", lambda: len(collector.snapshot()) == len(SERIES))
    return collector


def pauses_in(call: Any) -> tuple[int, Any]:
    """How many times a call lets others have the interpreter, and what it gives."""
    pause = importlib.import_module("qbus._interpreter").pause.__code__
    pauses = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal pauses
        pauses += event == "call" and frame.f_code is pause

    sys.setprofile(look)
    try:
        given = call()
    finally:
        sys.setprofile(None)
    return pauses, given


def test_loops_that_make_objects_pause_every_few(full: MetricsCollector) -> None:
    snapshot = full.snapshot()
    counts = {
        "metrics": lambda: snapshot.metrics,
        "rows": snapshot._rows,
        "iteration": lambda: list(snapshot),
        "current": full.get_all_current_metrics,
        "buffer": full.get_all_metrics_buffer,
        "history": lambda: full.get_metrics_history("a_total"),
    }
    for name, call in counts.items():
        pauses, given = pauses_in(call)
        assert len(given) >= 500 and pauses >= len(given) // 4, name
    pauses, columns = pauses_in(snapshot.to_columns)
    assert pauses >= len(columns) * (len(SERIES) // 4)
    pauses, (function, arguments) = pauses_in(snapshot.__reduce__)
    assert pauses >= len(SERIES)
    pauses, same = pauses_in(lambda: function(*arguments))
    assert pauses >= len(SERIES) and same.metrics == snapshot.metrics


def test_a_page_of_prometheus_client_pauses_every_few() -> None:
    page = qbus._qbus.Page()
    samples = [("name", {"n": str(n)}, n, None) for n in range(1000)]
    pauses, is_written = pauses_in(lambda: page.write_samples(samples))
    assert is_written and pauses >= 1000 // 4
    lines = page.take().decode().splitlines()
    assert len(lines) == 1000 and lines[999] == 'name{n="999"} 999.0'
    assert page.take() == b""


@pytest.mark.parametrize("widest", ["a", "\u00e9", "\u6f22", "\U0001f600"])
def test_texts_are_whole_however_long_and_wide(collector: MetricsCollector, widest: str) -> None:
    """Long ones are made in another way than short ones, those of ASCII in another than others."""
    gauge = Gauge("g", labelnames=["text"], registry=collector)
    gauge.labels(widest).set(1)
    snapshot = collector.snapshot()
    lengths = set()
    for n in range(60):
        gauge.labels(f"{widest}{n} " + "x" * 200).set(n)
        snapshot = collector.snapshot()
        texts = [snapshot.to_prometheus(), snapshot.to_json(), snapshot.to_csv()]
        for text in texts:
            # Another string of the same characters, as Python itself makes it.
            same = text.encode().decode()
            assert text == same and hash(text) == hash(same) and len(text) == len(same)
            assert sys.getsizeof(text) <= sys.getsizeof(same) + len(text.encode()) + 1
            assert text.isascii() == (widest == "a") and max(text) == max(same)
        lengths.add(len(texts[0]))
    assert min(lengths) < 4096 < max(lengths)
    assert qbus.generate_latest(collector).decode() == collector.export_to_prometheus()
    pauses, text = pauses_in(collector.snapshot().to_prometheus)
    assert pauses >= (0 if widest == "a" else len(text) // 1024)


#: Says how long a call uses the processor at most before others can have the interpreter.
HOLDS = Path(__file__).parents[3] / "benches" / "python" / "holds.c"

MEASURED = """
import ctypes, gc, os, statistics, sys, time
import qbus
holds = ctypes.PyDLL(os.environ["LD_PRELOAD"])
holds.holds_end.restype = ctypes.c_longlong
holds.holds_spans.restype = ctypes.POINTER(ctypes.c_longlong)
collector = qbus.get_metrics_collector()
for name in "abcd":
    counter = qbus.Counter(name, "A long help. " * 20, labelnames=["n"])
    for n in range(1000):
        counter.labels("x" * 500 + str(n)).inc()
end = time.monotonic() + 30
while len(snapshot := collector.snapshot()) != 4000:
    assert time.monotonic() < end
# Its turns are Python's own.
gc.disable()

def held(call):
    start = time.thread_time_ns()
    holds.holds_begin()
    given = call()
    count = holds.holds_end()
    return holds.holds_spans()[:count], time.thread_time_ns() - start, given

def copied(text):
    start = time.thread_time_ns()
    same = str(text, "ascii") if isinstance(text, bytes) else text.encode()
    return time.thread_time_ns() - start

# The call itself, and what comes after it.
if len(held(collector._page)[0]) <= 2:
    sys.exit("the interpreter is no shared library")
calls = {
    "text": snapshot.to_prometheus,
    "json": collector.export_to_json,
    "bytes": qbus.generate_latest,
    "metrics": lambda: snapshot.metrics,
    "columns": snapshot.to_columns,
    "rows": snapshot._rows,
    "current": collector.get_all_current_metrics,
    "buffer": collector.get_all_metrics_buffer,
}
for name, call in calls.items():
    calls_spans, calls_took = [], []
    for _ in range(20):
        spans, took, given = held(call)
        calls_spans.append(spans)
        calls_took.append(took)
    # Of each span the usual time: in one or the other the machine dealt with an interrupt.
    usual = statistics.mode(map(len, calls_spans))
    alike = zip(*(spans for spans in calls_spans if len(spans) == usual))
    longest, took = max(map(statistics.median, alike)), statistics.median(calls_took)
    limit = took / 20
    if isinstance(given, (str, bytes)):
        assert len(given) > 1_000_000
        limit = min(copied(given) for _ in range(20)) / 2
    assert longest < limit, (name, longest, took, limit)
"""


def test_nothing_long_is_done_with_the_interpreter(tmp_path: Path) -> None:
    """By processor time: it does not know how busy the machine is."""
    library = tmp_path / "holds.so"
    if not HOLDS.exists() or shutil.which("cc") is None:
        pytest.skip("a C compiler is not installed")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HOLDS], check=True)
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "is no shared library" in ended.stderr:
        pytest.skip("the interpreter is no shared library")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_samples_of_a_page_are_freed_one_by_one_if_nobody_has_them() -> None:
    lists: list[Any] = []
    lists_left = []

    class Element:
        def __del__(self) -> None:
            lists_left.append(len(lists))

    kept = [Element(), Element()]
    lists += [[Element(), Element(), Element()], kept]
    free(lists)
    # The list itself was still there when each of its elements went.
    assert lists_left == [1, 1, 1] and lists == [] and len(kept) == 2


@pytest.mark.parametrize("write", [prometheus_client.generate_latest, openmetrics.generate_latest])
def test_a_page_leaves_the_samples_of_a_programs_own_collectors(write: Any) -> None:
    class Keeps:
        """Gives the same metric, and the same list in another metric, each time."""

        metric = GaugeMetricFamily("metric", "Kept.", value=1)
        samples = [Sample("listed", {}, 2)]

        def collect(self) -> Any:
            yield self.metric
            listed = prometheus_client.Metric("listed", "Kept.", "gauge")
            listed.samples = self.samples
            yield listed

    registry = prometheus_client.CollectorRegistry()
    registry.register(Keeps())
    first = write(registry)
    assert b"\nmetric 1.0\n" in first and b"\nlisted 2.0\n" in first
    assert write(registry) == first
