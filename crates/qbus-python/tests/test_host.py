"""What the host program must not feel: exceptions, waits, and losses that nobody counts."""

import importlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from processes_scene import until

import qbus
from qbus import Counter, Gauge, Histogram, MetricsCollector, Summary


def program(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_is_not_finite_ends_no_loop(collector: MetricsCollector) -> None:
    gauge = Gauge("loss", registry=collector)
    for value in (math.nan, math.inf, -math.inf):
        gauge.set(value)
        found = collector.get_metric("loss")
        assert found is not None
        assert found.value == value or (math.isnan(value) and math.isnan(found.value))
    counter = Counter("steps", registry=collector)
    histogram = Histogram("took", registry=collector)
    summary = Summary("size", registry=collector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (math.nan, math.inf):
            counter.inc(value)
            histogram.observe(value)
            summary.observe(value)
            gauge.inc(value)
            # As Prometheus has it, infinity is an observation.
            assert collector.add_metric("took", value, "histogram") == (value == math.inf)
            assert not collector.queue_metric("steps_total", value, "counter")
    histogram.observe(1)
    found = collector.get_metric("took")
    assert found is not None and (found.count, found.sum) == (3, math.inf)
    assert collector.get_statistics()["invalid"] == 3
    until("all are counted", lambda: collector.get_statistics()["dropped"] == 7)


def test_a_negative_increment_is_a_mistake(collector: MetricsCollector) -> None:
    with pytest.raises(ValueError, match="counter increment is -1"):
        Counter("steps", registry=collector).inc(-1)


class Fails:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error


def test_what_a_value_raises_is_passed_on(collector: MetricsCollector) -> None:
    gauge = Gauge("loss", registry=collector)
    for error in (KeyboardInterrupt(), RuntimeError("CUDA error"), SystemExit(3), OverflowError()):
        for call in (
            gauge.set,
            gauge.inc,
            Summary("s", registry=collector).observe,
            lambda value: collector.add_metric("loss", value, "gauge"),
        ):
            with pytest.raises(type(error)) as raised:
                call(Fails(error))
            assert raised.value is error
    with pytest.raises(TypeError, match='argument "value" is') as translated:
        gauge.set(Fails(TypeError("no number")))
    assert isinstance(translated.value.__cause__, TypeError)
    assert str(translated.value.__cause__) == "no number"
    for nothing in (gauge.inc, gauge.dec, Counter("c", registry=collector).inc):
        with pytest.raises(TypeError, match='argument "amount" is None'):
            nothing(None)  # type: ignore[operator]
    with pytest.raises(OverflowError):
        gauge.set(10**400)
    gauge.set(Decimal("1.5"))
    found = collector.get_metric("loss")
    assert found is not None and found.value == 1.5


def test_a_warning_that_is_made_an_error_ends_no_loop() -> None:
    """It is shown, once, and the call goes on."""
    text = """
import math
import qbus
counter = qbus.Counter("c", "A counter.", ["n"])
counter.set_max_series(2)
for n in range(100):
    counter.labels(n).inc()
    counter.labels(0).inc(math.nan)
collector = qbus.get_metrics_collector()
print(collector.add_metric("c_total", math.nan, "counter", {"n": "0"}))
print(qbus.snapshot().get("c_total", {"n": "0"}))
if collector.bus:
    with qbus.start_http_server(0, "0.0.0.0") as server:
        print(server.closed)
"""
    emit = [sys.executable, "-W", "error", "-c", text]
    for environment in ({}, {"QBUS": "/proc/no/such/bus"}):
        ended = subprocess.run(
            emit, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, ended.stderr
        shown, told = ended.stdout.splitlines(), ended.stderr
        if environment:
            assert shown == ["False", "None"] and told.count("RefusedWarning: no bus") == 1, told
        else:
            assert shown[0] == "False" and "c_total" in shown[1]
            assert told.count("RefusedWarning: metric c_total has 2 series") == 1, told
            assert told.count("RefusedWarning: metric c_total: counter increment") == 1, told
            assert shown[2] == "False" and told.count("RuntimeWarning: http://0.0.0.0") == 1, told


class Hashed(str):
    """Says who it is in code of its own, which fails."""

    def __hash__(self) -> int:
        raise RuntimeError("asked for its hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("asked whether it is equal")


def test_texts_of_classes_of_ones_own_are_texts(collector: MetricsCollector) -> None:
    counter = Counter("c", labelnames=["a"], registry=collector)
    for _ in range(2):
        counter.labels(Hashed("x")).inc()
        counter.labels(a=Hashed("x")).inc()
        assert collector.queue_metric("q", 1, "counter", {"a": Hashed("x")})
    counter.labels("x").inc()
    for name, expected in (("c_total", 5), ("q", 2)):
        until("it is there", lambda: collector.get_metric(name, {"a": "x"}) is not None)
        found = collector.get_metric(name, {"a": Hashed("x")})
        assert found is not None and found.value == expected
    counter.remove(Hashed("x"))


def test_texts_that_are_none_are_told_by_argument(collector: MetricsCollector) -> None:
    with pytest.raises(qbus.MetricError, match='argument "name" is'):
        collector.queue_metric("\udcff", 1, "gauge")
    # A description is not worth a failure.
    assert collector.add_metric("g", 1, "gauge", None, "of /tmp/\udcff")
    assert "# HELP g of /tmp/\ufffd" in collector.export_to_prometheus()


def test_an_interrupt_that_comes_with_a_mistake_is_passed_on(collector: MetricsCollector) -> None:
    class Shown:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Gauge("g", registry=collector).set(Shown())  # type: ignore[arg-type]


def test_as_an_engineer_expects(collector: MetricsCollector) -> None:
    counter = Counter("c", labelnames=(name for name in ["kind"]), registry=collector)
    counter.labels([1]).inc()
    counter.labels({"a": 1}).inc()
    histogram = Histogram("h", buckets=(n / 2 for n in range(1, 4)), registry=collector)
    histogram.observe(1)
    Gauge("g", labelnames=["a"], registry=collector).labels("").set(2)
    snapshot = collector.snapshot()
    assert "h" in snapshot and "nothing" not in snapshot
    assert snapshot.get("c_total", {"kind": "[1]"}) is not None
    assert snapshot.get("g", {"a": ""}) is not None
    assert snapshot.get("g") is not None
    assert snapshot.get("h", {"a": ""}) is not None
    # A value that is too long is cut, with a mark.
    counter.labels("x" * 2000).inc()
    cut = "x" * 1021 + "…"
    assert collector.get_metric("c_total", {"kind": cut}).value == 1
    with pytest.raises(ValueError, match='argument "limit" is -1, expected an int'):
        collector.get_metrics_history("h", -1)
    with pytest.raises(TypeError, match='argument "limit" is \'1\', expected an int'):
        collector.get_metrics_history("h", "1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"max_metrics_buffer" is 1000000'):
        MetricsCollector(max_metrics_buffer=10**30)
    assert qbus.__version__.count(".") == 2


def test_names_of_others(collector: MetricsCollector) -> None:
    usage = Gauge("vllm:kv_cache_usage", registry=collector)
    usage.set(0.5)
    assert "\nvllm:kv_cache_usage 0.5\n" in collector.export_to_prometheus()


def test_a_full_registry_is_asked_once_a_second() -> None:
    ended = program(
        """
import time, warnings
import qbus
collector = qbus.get_metrics_collector()
capacity = collector.get_statistics()["series_capacity"]
# Of one name alone there is a limit.
counters = [qbus.Counter(f"c_{at}", labelnames=["n"]) for at in range(capacity // 1000 + 1)]
warnings.simplefilter("ignore")
for n in range(capacity):
    counter = counters[n // 1000]
    counter.labels(n).inc()
    if n % 1000 == 0:
        # Beyond the cells of a lane an increment is a record.
        collector.get_metric("nothing")
counter.labels("first").inc()
start = time.perf_counter()
for n in range(1000):
    counter.labels("again").inc()
    counters[0].labels(n).inc()
# It was 4 ms each.
assert time.perf_counter() - start < 1
assert collector.get_statistics()["refused"] == 1001
# All of it is in the ledger of the bus too, a moment later.
end = time.monotonic() + 30
while collector.get_statistics()["dropped"] != 1001:
    assert time.monotonic() < end
    time.sleep(0.01)
assert collector.get_metric("c_0_total", {"n": "7"}).value == 2
"""
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_program_goes_on_without_a_bus() -> None:
    ended = program(
        """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import qbus
    counter = qbus.Counter("c", "A counter.", ["label"])
    for n in range(10):
        counter.labels(n).inc()
    histogram = qbus.Histogram("h")
    with histogram.time():
        pass
    collector = qbus.get_metrics_collector()
    assert not collector.add_metric("m", 1, "gauge")
    qbus.start_performance_tracking("work")
    assert qbus.end_performance_tracking("work")["duration"] < 60
    assert collector.get_metric("c_total") is None
    assert len(qbus.snapshot()) == 0
    assert qbus.generate_latest() == b""
    collector.export("json"), collector.export("csv")
    collector.start_collection(); collector.stop_collection(); collector.reset()
    collector.register_validation_rule("m", bool)
assert len(caught) == 1, caught
assert "goes on without" in str(caught[0].message), caught[0].message
assert caught[0].filename == "<string>", caught[0].filename
assert collector.get_statistics()["refused"] == 12, collector.get_statistics()
assert "could not create" in collector.get_statistics()["last_background_error"]
""",
        QBUS="/proc/no/such/folder/bus",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_bus_name_that_is_none_ends_no_program() -> None:
    for name in ("a b", "/", "x" * 400):
        ended = program("import qbus; qbus.Counter('c').inc()", QBUS=name)
        assert ended.returncode == 0, ended.stderr
        assert "goes on without" in ended.stderr


def test_a_name_that_is_no_text_ends_no_program() -> None:
    environment = {**os.environb, b"QBUS": b"/tmp/bus-\xff"}
    emit = [sys.executable, "-c", "import qbus; qbus.Counter('c').inc()"]
    ended = subprocess.run(emit, env=environment, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert b"in UTF-8" in ended.stderr and b"goes on without" in ended.stderr, ended.stderr


def test_label_values_that_are_no_text_are_shown_replaced(collector: MetricsCollector) -> None:
    counter = Counter("c_total", labelnames=["path"], registry=collector)
    for path in (os.fsdecode(b"/tmp/\xff"), "\udcff"):
        counter.labels(path).inc()
        assert collector.add_metric("g", 1, "gauge", labels={"path": path})
    values = {labels["path"] for labels in (dict(series.labels) for series in collector.snapshot())}
    assert values == {"/tmp/\ufffd\ufffd\ufffd", "\ufffd\ufffd\ufffd"}


@pytest.mark.parametrize("version", [1, 1000])
def test_a_bus_of_another_build_ends_no_program(bus: str, version: int) -> None:
    """A wheel beside an aggregator whose layout is older, or newer."""
    command = [sys.executable, "-m", "qbus._command"]
    subprocess.run([*command, "create", "-b", bus], check=True, capture_output=True)
    with Path(f"/dev/shm/qbus.{bus}").open("r+b") as file:
        # The second word is the version.
        file.seek(8)
        file.write(version.to_bytes(8, "little"))
    ended = program(
        """
import qbus
counter, collector = qbus.Counter("c"), qbus.get_metrics_collector()
for n in range(1000):
    counter.inc()
    assert not collector.add_metric("m", n, "gauge")
assert qbus.generate_latest() == b""
print(collector.get_statistics()["refused"])
""",
        QBUS=bus,
    )
    assert (ended.returncode, ended.stdout) == (0, "2000\n"), ended.stderr
    # Once, with what to do.
    assert ended.stderr.count(f"has layout version {version}") == 1, ended.stderr
    assert "qbus rm" in ended.stderr and "goes on without" in ended.stderr
    for view in ("stat", "rm"):
        seen = subprocess.run([*command, view, "-b", bus], capture_output=True, text=True)
        assert seen.returncode == 0 or f"layout version {version}" in seen.stderr, seen
    assert not Path(f"/dev/shm/qbus.{bus}").exists()


def test_waits_are_bounded_together(bus: str) -> None:
    collector = MetricsCollector(bus=bus)
    gauge = Gauge("g", registry=collector)
    capacity = collector.get_statistics()["lane_capacity"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        for n in range(capacity + 200):
            gauge.set(n)
        for n in range(200):
            collector.add_metric("g", n, "gauge")
        # Nobody aggregates: it was a second for each.
        assert time.perf_counter() - start < 1
    collector.close()


def test_an_interrupt_ends_a_wait(bus: str) -> None:
    """The aggregator is stopped, so the lane stays full."""
    # What a shell starts in the background ignores it, and so would all of this.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    aggregator = subprocess.Popen(
        [sys.executable, "-m", "qbus._command", "agg", "-b", bus, "--no-host", "--no-gpu"]
    )
    try:
        collector = MetricsCollector(bus=bus)
        until("it is aggregated", lambda: collector.get_statistics()["has_aggregator"])
        aggregator.send_signal(signal.SIGSTOP)
        gauge = Gauge("g", registry=collector)
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):
            warnings.simplefilter("ignore")
            end = time.monotonic() + 30
            while time.monotonic() < end:
                gauge.set(1)
        aggregator.send_signal(signal.SIGCONT)
        collector.close()
    finally:
        aggregator.kill()
        aggregator.wait()
        signal.signal(signal.SIGINT, before)


def test_handles_and_readings_pickle(collector: MetricsCollector) -> None:
    histogram = Histogram("h", "Help.", ["a"], buckets=[1, 2], registry=collector)
    histogram.labels("x").observe(1.5)
    collector.add_metric("s", 2.5, "summary")
    collector.add_metric("g", math.nan, "gauge", timestamp=1.5)
    for metric in collector.snapshot(history=True):
        copy = pickle.loads(pickle.dumps(metric))
        assert repr(copy) == repr(metric)
        assert str(copy.to_dict()) == str(metric.to_dict())
        assert str(copy.history) == str(metric.history)
    snapshot = collector.snapshot()
    copied: Any = pickle.loads(pickle.dumps(snapshot))
    assert copied.to_json() == snapshot.to_json()


def test_a_handle_finds_the_bus_of_the_process_that_loads_it(tmp_path: Path, bus: str) -> None:
    made = """
import pickle, qbus
handle = qbus.Histogram("h", "Help.", ["a"], buckets=[1, 2]).labels("x")
handle.observe(1)
alone = qbus.Counter("c", registry=qbus.MetricsCollector())
with open(PATH, "wb") as file:
    pickle.dump([handle, alone], file)
"""
    loaded = """
import pickle, qbus
with open(PATH, "rb") as file:
    handle, alone = pickle.load(file)
handle.observe(1.5)
alone.inc()
assert repr(handle) == 'Histogram(h{a="x"})'
print(qbus.get_metrics_collector().bus)
"""
    path = f"PATH = {str(tmp_path / 'pickle')!r}\n"
    for first, second in (({}, {}), ({"QBUS": bus}, {"QBUS": bus + "-other"}), ({}, {"QBUS": bus})):
        dumped = program(path + made, **first)
        assert (dumped.returncode, dumped.stderr) == (0, "")
        taken = program(path + loaded, **second)
        assert (taken.returncode, taken.stderr) == (0, "")
        assert taken.stdout.strip() == second.get("QBUS", taken.stdout.strip())


def test_a_worker_of_a_server_that_was_not_preloaded_is_told() -> None:
    # Its module is all that is looked at: gunicorn's workers run the program from there.
    text = """
import sys, types
worker = types.ModuleType("gunicorn.workers.base")
exec('''
class Configuration: workers = %d
class Worker:
    cfg = Configuration()
    def load_wsgi(self):
        import qbus
        qbus.Counter("c").inc()
''', worker.__dict__)
worker.Worker().load_wsgi()
"""
    assert "this worker of gunicorn has a collector of its own" in program(text % 4).stderr
    assert program(text % 1).stderr == ""


def test_workers_of_gunicorn_itself_are_told(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text("import qbus\nqbus.Counter('c').inc()\napp = print\n")
    serve = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", "127.0.0.1:0", "application:app"]
    log = tmp_path / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(serve, cwd=tmp_path, stderr=errors)
    told = "this worker of gunicorn has a collector of its own"
    try:
        until("both are told", lambda: log.read_text().count(told) == 2)
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_columns_are_of_one_length(collector: MetricsCollector) -> None:
    Gauge("g", registry=collector, labelnames=["a"]).labels("x").set(2)
    Histogram("h", registry=collector).observe(1)
    columns = collector.snapshot().to_columns()
    assert {len(column) for column in columns.values()} == {2}
    assert columns["name"] == ["g", "h"]
    assert columns["labels"] == [{"a": "x"}, {}]
    assert columns["count"] == [None, 1]


def test_a_snapshot_finds_names_that_begin_alike(collector: MetricsCollector) -> None:
    names = ["a", "a:b", "a_b", "aa", "A", "a_", "b", "abcdefghij", "abcdefghi", "a9", "_a"]
    for name in names:
        for label in ("", "x"):
            collector.add_metric(name, len(name), "gauge", {"l": label})
    snapshot = collector.snapshot()
    assert len(snapshot) == 2 * len(names)
    for name in names:
        assert name in snapshot
        for labels in ({}, {"l": "x"}):
            found = snapshot.get(name, labels)
            assert found is not None and (found.name, found.value) == (name, len(name))
    assert (
        "a_c" not in snapshot and snapshot.get("a", {"l": "y"}) is None and snapshot.get("") is None
    )


def test_columns_are_what_data_frames_take(collector: MetricsCollector) -> None:
    gauge = Gauge("g", registry=collector, labelnames=["a"])
    for n in range(200):
        gauge.labels(n).set(n)
    Gauge("last", registry=collector, labelnames=["a", "b"]).labels("x", "y").set(2)
    Histogram("other", registry=collector).observe(1)
    snapshot = collector.snapshot()
    columns, flat = snapshot.to_columns(), snapshot.to_columns(flat=True)
    assert [*flat] == [
        name
        for known in columns
        for name in (["label_a", "label_b"] if known == "labels" else [known])
    ]
    assert flat["label_a"][-3:] == ["99", "x", None] and flat["label_b"][-3:] == [None, "y", None]
    taken = 0
    for module, make in (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")):
        try:
            make_table = getattr(importlib.import_module(module), make)
        except ImportError:
            continue
        assert make_table(columns).shape == (202, len(columns))
        table = make_table(flat)
        assert table.shape == (202, len(flat))
        # Those of Arrow are objects of their own.
        assert str(table["label_b"][200]) == "y"
        taken += 1
    if not taken:
        pytest.skip("pandas, polars and pyarrow are not installed")
