"""prometheus_client's programs over qbus: as a module, and unmodified through the shim."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes_scene import qbus_command

from qbus import shim
from qbus.prometheus_client import CollectorRegistry, Gauge, write_to_textfile


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of an unmodified program of several processes."""
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    yield {
        **environment,
        "PYTHONPATH": shim.FOLDER,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }


def run(text: str, environment: dict[str, str]) -> str:
    # A process with a private bus has a thread, which Python 3.12 warns of when it forks.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", text]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


PAGE = """
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(generate_latest(registry).decode(), end="")
"""


def test_an_unmodified_program_of_several_processes(shared: dict[str, str]) -> None:
    page = run(
        """
import os, threading
from prometheus_client import Counter, Gauge, Histogram, Summary
import prometheus_client
assert prometheus_client.__name__ == "qbus.prometheus_client"
jobs = Counter("jobs", "Jobs.", ["kind"])
latency = Histogram("latency_seconds", "Latency.", ["m"], buckets=[.1, .5, 1])
size = Summary("size_bytes", "Sizes.")
depth = Gauge("vllm:depth", "Depth.", multiprocess_mode="sum")
largest = Gauge("largest", "Largest.", multiprocess_mode="max")
living = Gauge("living", "Of the living.", multiprocess_mode="livesum")
living.set(1)

def work():
    for n in range(2000):
        jobs.labels(kind="a").inc()
        latency.labels("x").observe((n % 20) / 10)
        size.observe(2)

for worker in range(4):
    if os.fork() == 0:
        threads = [threading.Thread(target=work) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        depth.set(worker)
        largest.set(worker)
        living.set(10)
        os._exit(0)
for worker in range(4):
    assert os.wait()[1] == 0
"""
        + PAGE.replace("print(", """
import time
# Who died is missed some times a second.
end = time.monotonic() + 30
while registry.get_sample_value("living") != 1:
    assert time.monotonic() < end
    time.sleep(0.01)
print("""),
        shared,
    )
    for line in (
        'jobs_total{kind="a"} 16000.0',
        'latency_seconds_bucket{le="0.1",m="x"} 1600.0',
        'latency_seconds_bucket{le="+Inf",m="x"} 16000.0',
        'latency_seconds_count{m="x"} 16000.0',
        "size_bytes_count 16000.0",
        "size_bytes_sum 32000.0",
        "vllm:depth 6.0",
        "largest 3.0",
        "living 1.0",
    ):
        assert f"{line}\n" in page, page


def test_what_real_programs_reach_for(shared: dict[str, str]) -> None:
    run(
        """
from prometheus_client import REGISTRY, Counter, Histogram, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
import prometheus_client.exposition, prometheus_client.parser
# Where earlier versions have them: the parser of OpenMetrics that is installed may be of one.
from prometheus_client.exposition import CollectorRegistry
from prometheus_client.metrics import _validate_labelname, _validate_labelnames
from prometheus_client.metrics_core import METRIC_LABEL_NAME_RE, METRIC_NAME_RE
counter = Counter("c", "A counter.", ["a"])
counter.labels(**{"a": "x"}).inc(2)
assert counter.labels("x")._value.get() == 2
assert isinstance(counter, MetricWrapperBase) and counter._name == "c"
assert counter in REGISTRY._collector_to_names
assert any(metric.name == "c" for metric in REGISTRY.collect())
# Many observations at once, as SGLang adds them.
histogram = Histogram("h", "A histogram.", buckets=[1, 2])
histogram._sum.inc(7.5)
for bucket, bound in enumerate(histogram._upper_bounds):
    if 1.5 <= bound:
        histogram._buckets[bucket].inc(5)
        break
assert REGISTRY.get_sample_value("h_sum") == 7.5
assert REGISTRY.get_sample_value("h_bucket", {"le": "2.0"}) == 5
from prometheus_client import CollectorRegistry, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
assert registry.get_sample_value("h_sum") == 7.5
assert registry.get_sample_value("h_bucket", {"le": "1.0"}) == 0
assert registry.get_sample_value("h_count") == 5
""",
        shared,
    )


def test_modules_that_are_not_here_come_from_prometheus_client(shared: dict[str, str]) -> None:
    pytest.importorskip("prometheus_client")
    run(
        """
from prometheus_client import REGISTRY, CollectorRegistry, Counter, metrics_core
from prometheus_client.bridge.graphite import GraphiteBridge
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
registry = CollectorRegistry()
Counter("c", "A counter.", registry=registry).inc(2, {"trace_id": "ab"})
(metric,) = text_string_to_metric_families(generate_latest(registry).decode())
assert type(metric) is metrics_core.Metric
assert metrics_core.__name__ == "qbus.prometheus_client.metrics_core"
assert metric.samples[0].exemplar.labels == {"trace_id": "ab"}
assert GraphiteBridge(("localhost", 9))._registry is REGISTRY
""",
        shared,
    )


def test_a_sitecustomize_that_was_there_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.was_there = True\n")
    path = os.pathsep.join([shim.FOLDER, str(tmp_path)])
    run("assert was_there", {**os.environ, "PYTHONPATH": path})


def test_a_spawned_process_has_it_too(shared: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import multiprocessing
from prometheus_client import Counter
counter = Counter("c", "A counter.")
def work():
    counter.inc()
if __name__ == "__main__":
    workers = [multiprocessing.get_context("spawn").Process(target=work) for _ in range(2)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    from prometheus_client import CollectorRegistry, multiprocess
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    assert registry.get_sample_value("c_total") == 2, registry.get_sample_value("c_total")
"""
    )
    ended = subprocess.run(
        [sys.executable, str(program)], env=shared, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_qbus_run_gives_one_page_for_all_workers(bus: str) -> None:
    """Without a folder, without an aggregator, and the page is the program's own."""
    program = """
import os, sys, time
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest
counter = Counter("c", "A counter.", ["a"])
gauge = Gauge("g", "A gauge.", multiprocess_mode="livesum")
own = Gauge("own", "Of each.")
histogram = Histogram("h", "A histogram.", buckets=[1, 2])
gauge.set(5)
for worker in range(3):
    if os.fork() == 0:
        for _ in range(1000):
            counter.labels("x").inc()
            histogram.observe(1.5)
        gauge.set(100)
        own.set(7)
        os._exit(0)
for worker in range(3):
    assert os.wait()[1] == 0
own.set(3)
end = time.monotonic() + 30
while REGISTRY.get_sample_value("g") != 5:
    # Who died is missed some times a second.
    assert time.monotonic() < end
    time.sleep(0.01)
page = generate_latest().decode()
for line in ('c_total{a="x"} 3000.0', 'h_bucket{le="2.0"} 3000.0', "h_sum 4500.0", "g 5.0",
             "own 3.0"):
    assert line in page, (line, page)
# Whoever reads the bus sees the living alone, and one value.
import qbus
assert [(gauge.value, gauge.labels) for gauge in qbus.snapshot(match="g")] == [(5, {})]
sys.exit(7)
"""
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    ended = subprocess.run(
        qbus_command("run", "-b", bus, "--", sys.executable, "-c", program),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (7, "")


def test_a_worker_shows_what_only_another_one_has(bus: str) -> None:
    """Middlewares make their metrics when the first request comes: one worker may have had none."""
    program = """
import os
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
if os.fork() == 0:
    Counter("requests", "Requests.", ["path"]).labels("/").inc(3)
    Histogram("took_seconds", "Times.", buckets=[1]).observe(0.5)
    Gauge("running", "Requests that run.", ["path"], multiprocess_mode="livesum")
    Gauge("own", "Of each.").set(7)
    Info("build", "Facts.").info({"version": "1"})
    Counter("a.b", "A name that only UTF-8 has.").inc()
    Counter("pushed", "In a registry of its own.", registry=CollectorRegistry()).inc()
    os._exit(0)
assert os.wait()[1] == 0
page = generate_latest().decode()
bucket = 'took_seconds_bucket{le="1.0"} 1.0'
for line in ('requests_total{path="/"} 3.0', bucket, "took_seconds_sum 0.5"):
    assert page.count(line) == 1, (line, page)
for name in ("own", "build", "pushed", "qbus_client"):
    assert f"\\n{name}" not in page, (name, page)
# Who makes it too has it once, with what both counted.
Counter("requests", "Requests.", ["path"]).labels("/").inc(2)
Counter("a.b", "A name that only UTF-8 has.").inc()
page = generate_latest().decode()
assert page.count('requests_total{path="/"} 5.0') == 1, page
assert page.count("# TYPE requests_total ") == 1, page
assert page.count("# TYPE a_b_total ") == 1, page
assert page.count("\\na_b_total 2.0\\n") == 1, page
# Another registry shows what is in it.
assert b"requests" not in generate_latest(CollectorRegistry())
os.environ["QBUS_PAGE"] = "own"
assert b"took_seconds" not in generate_latest()
"""
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    ended = subprocess.run(
        qbus_command("run", "-b", bus, "--", sys.executable, "-c", program),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_qbus_run_ends_as_its_program_does(bus: str) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    for program, code in ((killed, 137), ("pass", 0)):
        ended = subprocess.run(qbus_command("run", "-b", bus, "--", sys.executable, "-c", program))
        assert ended.returncode == code
    ended = subprocess.run(
        qbus_command("run", "-b", bus, "--", "/no/such/program"), capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert "could not run /no/such/program" in ended.stderr


def test_without_prometheus_client_nothing_breaks(tmp_path: Path) -> None:
    # An interpreter without site packages but this one.
    program = """
import sys
import time
sys.path = [place for place in sys.path if "site-packages" not in place]
from prometheus_client import Counter, generate_latest
Counter("c", "A counter.").inc()
assert b"c_total 1.0" in generate_latest()
try:
    import prometheus_client.no_such_module
except ImportError:
    pass
else:
    raise AssertionError
"""
    run(program, {**os.environ, "PYTHONPATH": shim.FOLDER})


def test_what_is_removed_leaves_the_page_of_all(shared: dict[str, str]) -> None:
    run(
        """
import time
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, multiprocess
counter = Counter("c", "A counter.", ["a", "b"])
gauge = Gauge("g", "A gauge.", ["a"], multiprocess_mode="max")
histogram = Histogram("h", "A histogram.", ["a"])
for a in "xyz":
    counter.labels(a, 1).inc()
    gauge.labels(a).set(1)
    histogram.labels(a).observe(1)
page = CollectorRegistry()
multiprocess.MultiProcessCollector(page)

def until(name, labels, expected):
    end = time.monotonic() + 30
    while page.get_sample_value(name, labels) != expected:
        assert time.monotonic() < end, (name, labels, page.get_sample_value(name, labels))
        time.sleep(0.01)

counter.remove("x", 1)
counter.remove_by_labels({"a": "y"})
gauge.remove("x")
histogram.clear()
until("c_total", {"a": "x", "b": "1"}, None)
until("c_total", {"a": "y", "b": "1"}, None)
until("c_total", {"a": "z", "b": "1"}, 1)
until("g", {"a": "x"}, None)
until("g", {"a": "y"}, 1)
until("h_count", {"a": "z"}, None)
# Who uses it again brings it back.
histogram.labels("z").observe(1)
until("h_count", {"a": "z"}, 2)
REGISTRY.unregister(counter)
until("c_total", {"a": "z", "b": "1"}, None)
""",
        shared,
    )


def test_a_trace_is_on_the_page_of_all(shared: dict[str, str]) -> None:
    run(
        """
from prometheus_client import CollectorRegistry, Counter, Histogram, multiprocess
from prometheus_client.openmetrics.exposition import generate_latest
Counter("c", "A counter.").inc(2, exemplar={"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"})
Histogram("h", "A histogram.", buckets=[1, 2]).observe(1.5, {"trace_id": "abc", "user": "x"})
page = CollectorRegistry()
multiprocess.MultiProcessCollector(page)
text = generate_latest(page).decode()
assert 'c_total 2.0 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 2.0 ' in text, text
assert 'h_bucket{le="2.0"} 1.0 # {trace_id="00000000000000000000000000000abc"} 1.5 ' in text, text
""",
        shared,
    )


def test_a_textfile_follows_links_and_leaves_devices_what_they_are(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Gauge("level", "How much there is.", registry=registry).set(3)
    target, link = tmp_path / "target.prom", tmp_path / "link.prom"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to("target.prom")
    write_to_textfile(str(link), registry)
    assert link.is_symlink() and "level 3.0\n" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    # As root, a replacement of this one breaks the machine.
    write_to_textfile("/dev/null", registry)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError):
        write_to_textfile(str(tmp_path), registry)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.prom", "target.prom"]


#: An inference server as they are written: metrics by the dict of a model's labels, one of each
#: engine,
#: registered anew when its registry is wiped, and read back through the registry.
SERVER = """
import os, sys, time
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest, multiprocess

def register():
    # What an earlier engine left in the process's registry.
    for collector in list(REGISTRY._collector_to_names):
        if hasattr(collector, "_name") and "srv" in collector._name:
            REGISTRY.unregister(collector)
    labels = ["model_name", "engine"]
    of_model = [{"model_name": "qwen", "engine": str(engine)} for engine in range(2)]
    gauge = Gauge("srv:num_requests_running", "Running.", labelnames=labels,
                  multiprocess_mode="mostrecent")
    usage = Gauge("srv:kv_cache_usage_perc", "Usage.", labels, multiprocess_mode="livemax")
    config = Gauge("srv:cache_config_info", "Facts.", ["block_size"],
                   multiprocess_mode="mostrecent")
    tokens = Counter(name="srv:generation_tokens", documentation="Tokens.", labelnames=labels)
    success = Counter("srv:request_success", "By reason.", [*labels, "finished_reason"])
    latency = Histogram("srv:inter_token_latency_seconds", "Of a token.", labels,
                        buckets=[0.01, 0.1, 1, 10])
    config.labels(**{"block_size": "16"}).set(1)
    return [(gauge.labels(**one), usage.labels(*one.values()), tokens.labels(**one),
             success.labels(*one.values(), "stop"), latency.labels(**one)) for one in of_model]

def serve(rounds):
    for _ in range(rounds):
        for gauge, usage, tokens, success, latency in register.made:
            gauge.set(3); usage.set(0.5); tokens.inc(7); success.inc()
            # Many equal observations at once, each added to the sum and to the bucket of one.
            latency._sum.inc(4 * 0.05)
            for at, bound in enumerate(latency._upper_bounds):
                if 0.05 <= bound:
                    latency._buckets[at].inc(4)
                    break

register.made = register()
register.made = register()
try:
    Counter("srv:generation_tokens", "Again.")
except ValueError as error:
    assert "Duplicated timeseries" in str(error), error
else:
    raise AssertionError
for worker in range(2):
    if os.fork() == 0:
        serve(50)
        os._exit(0)
for worker in range(2):
    assert os.wait()[1] == 0
serve(50)
if IS_SHARED:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
else:
    registry = REGISTRY

def found(name, **labels):
    return registry.get_sample_value(name, {"model_name": "qwen", "engine": "1", **labels})

assert found("srv:generation_tokens_total") == 3 * 50 * 7, found("srv:generation_tokens_total")
assert found("srv:request_success_total", finished_reason="stop") == 150
assert found("srv:num_requests_running") == 3 and found("srv:kv_cache_usage_perc") == 0.5
assert registry.get_sample_value("srv:cache_config_info", {"block_size": "16"}) == 1
for metric in registry.collect():
    if metric.name == "srv:inter_token_latency_seconds":
        of = [sample for sample in metric.samples if sample.labels["engine"] == "0"]
        buckets = {sample.labels["le"]: sample.value
                   for sample in of if sample.name.endswith("_bucket")}
        assert buckets == {"0.01": 0, "0.1": 600, "1.0": 600, "10.0": 600, "+Inf": 600}, buckets
        (total,) = [sample.value for sample in of if sample.name.endswith("_sum")]
        assert abs(total - 30) < 1e-6, total
        break
else:
    raise AssertionError
assert register.made[0][2]._value.get() == 350
page = generate_latest(registry)
assert b'srv:generation_tokens_total{engine="0",model_name="qwen"} 1050.0' in page
"""


def test_an_inference_server_of_several_processes(shared: dict[str, str]) -> None:
    run("IS_SHARED = True\n" + SERVER, shared)


@pytest.mark.parametrize("is_shared", [True, False])
def test_an_inference_server_under_qbus_run(bus: str, is_shared: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
    ended = subprocess.run(
        qbus_command(
            "run", "-b", bus, "--", sys.executable, "-c", f"IS_SHARED = {is_shared}\n{SERVER}"
        ),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
