"""The cost of one emission from Python, beside that of the libraries in use today.

Each case is a statement in timeit's loop, with everything looked up before, in bursts of 2,000. All
cases take turns, round by round, so that whatever else the machine does meets all of them; a figure
is the median of the rounds, with the quartiles beside it. qbus emits to a named bus that `qbus agg`
drains in another process, prometheus_client is in multiprocess mode, datadog sends to a Unix socket
that is read.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Calls between two pauses: half of what a lane of the default bus holds.
BURST = 2000
#: Bursts of each case in a round.
BURSTS = 5

#: What is promised: at least so many times cheaper than the peer.
BARS = [
    ("counter", "qbus inc()", "prometheus_client inc()", 15.0),
    ("labels", "qbus labels(…).inc()", "prometheus_client labels(…).inc()", 8.0),
    ("histogram", "qbus observe()", "prometheus_client observe()", 25.0),
    ("queue", "qbus queue_metric(…, labels)", "prometheus_client labels(…).inc()", 10.0),
    ("shim counter", "shim inc()", "prometheus_client inc()", 3.0),
    ("shim histogram", "shim observe()", "prometheus_client observe()", 3.0),
    ("page", "page over qbus", "page of prometheus_client", 20.0),
]


def drain(path: Path) -> None:
    """Reads what datadog sends, as its agent would: in a process of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        print("ready", flush=True)
        while True:
            listener.recv(65536)


def cases(folder: Path, bus: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Statements and what they use, by what they are called in the table."""
    os.environ["QBUS"] = bus
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    import datadog.dogstatsd
    import opentelemetry.sdk.metrics
    import prometheus_client
    import qbus
    from qbus import prometheus_client as shim
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    labels = {"endpoint": "/api/predict", "model": "qwen3-vl"}
    names = list(labels)
    collector = qbus.get_metrics_collector()
    ours = qbus.Counter("bench", "A counter.", names).labels(**labels)
    ours_observed = qbus.Histogram("bench_seconds", "A histogram.", names).labels(**labels)
    theirs = prometheus_client.Counter("bench", "A counter.", names)
    theirs_observed = prometheus_client.Histogram("bench_seconds", "A histogram.", names)
    shimmed = shim.Counter("shimmed", "A counter.", names)
    shimmed_observed = shim.Histogram("shimmed_seconds", "A histogram.", names)
    provider = opentelemetry.sdk.metrics.MeterProvider([InMemoryMetricReader()])
    meter = provider.get_meter("bench")
    statsd = datadog.dogstatsd.DogStatsd(
        socket_path=str(folder / "statsd"), disable_telemetry=True, disable_buffering=True
    )
    tags = [f"{name}:{value}" for name, value in labels.items()]
    return {
        "empty loop": ("pass", {}),
        "qbus inc()": ("inc()", {"inc": ours.inc}),
        "prometheus_client inc()": ("inc()", {"inc": theirs.labels(**labels).inc}),
        "shim inc()": ("inc()", {"inc": shimmed.labels(**labels).inc}),
        "shim labels(…).inc()": (
            'labels("/api/predict", "qwen3-vl").inc()',
            {"labels": shimmed.labels},
        ),
        "shim observe()": ("observe(0.25)", {"observe": shimmed_observed.labels(**labels).observe}),
        "opentelemetry add(1, labels)": (
            "add(1, labels)",
            {"add": meter.create_counter("bench").add, "labels": labels},
        ),
        "datadog increment(tags)": (
            'increment("bench", 1, tags)',
            {"increment": statsd.increment, "tags": tags},
        ),
        "qbus queue_metric(…, labels)": (
            'queue_metric("bench_queued", 1, COUNTER, labels)',
            {
                "queue_metric": collector.queue_metric,
                "COUNTER": qbus.MetricType.COUNTER,
                "labels": labels,
            },
        ),
        "qbus queue_metric(keywords, new dict)": (
            'queue_metric(name="bench_queued", value=1, metric_type=COUNTER, '
            'labels={"endpoint": "/api/predict", "model": "qwen3-vl"}, description="Queued.")',
            {"queue_metric": collector.queue_metric, "COUNTER": qbus.MetricType.COUNTER},
        ),
        "qbus labels(…).inc()": (
            'labels("/api/predict", "qwen3-vl").inc()',
            {"labels": qbus.Counter("bench", "A counter.", names).labels},
        ),
        "prometheus_client labels(…).inc()": (
            'labels("/api/predict", "qwen3-vl").inc()',
            {"labels": theirs.labels},
        ),
        "qbus observe()": ("observe(0.25)", {"observe": ours_observed.observe}),
        "prometheus_client observe()": (
            "observe(0.25)",
            {"observe": theirs_observed.labels(**labels).observe},
        ),
        "opentelemetry record(labels)": (
            "record(0.25, labels)",
            {"record": meter.create_histogram("bench_seconds").record, "labels": labels},
        ),
        "datadog histogram(tags)": (
            'histogram("bench_seconds", 0.25, tags)',
            {"histogram": statsd.histogram, "tags": tags},
        ),
    }


def measure(
    statements: dict[str, tuple[str, dict[str, Any]]], rounds: int, settle: Callable[[], object]
) -> dict[str, list[float]]:
    """Nanoseconds of each statement in each round."""
    timers = {name: timeit.Timer(text, globals=used) for name, (text, used) in statements.items()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(rounds):
        if sys.stderr.isatty():
            print(f"\rround {turn + 1} of {rounds}", end="", file=sys.stderr)
        for name, timer in timers.items():
            # Each burst finds empty queues: a record that is dropped would cost less than one that
            # is not.
            seconds = 0.0
            for _ in range(BURSTS):
                settle()
                seconds += timer.timeit(BURST)
            found[name].append(seconds / (BURSTS * BURST) * 1e9)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return found


def pages(rounds: int) -> dict[str, list[float]]:
    """Nanoseconds to collect and write the page of all processes: 1,000 series of 64 workers that
    are dead, and of 2 that live. In a process of its own: it forks."""
    program = Path(__file__).with_name("page.py")
    found = {}
    for name, module in (
        ("page of prometheus_client", "prometheus_client"),
        ("page over qbus", "qbus.prometheus_client"),
    ):
        environment = {name: value for name, value in os.environ.items() if name != "QBUS"}
        with tempfile.TemporaryDirectory() as folder:
            environment["PROMETHEUS_MULTIPROC_DIR"] = folder
            ran = subprocess.run(
                [sys.executable, program, module, str(rounds)],
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
            )
        found[name] = json.loads(ran.stdout)
    return found


def import_seconds() -> float:
    """The median time that `import qbus` takes, beside an interpreter that imports nothing."""

    def run(text: str) -> float:
        start = timeit.default_timer()
        subprocess.run([sys.executable, "-c", text], check=True)
        return timeit.default_timer() - start

    pairs = [(run("import qbus"), run("pass")) for _ in range(11)]
    return statistics.median(with_it - without for with_it, without in pairs)


def machine() -> dict[str, str]:
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": f"{model}, {os.cpu_count()} CPUs",
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(
            f"{name} {version(name)}"
            for name in ("qbus", "prometheus_client", "opentelemetry-sdk", "datadog")
        ),
    }


def report(found: dict[str, list[float]], statistic: dict[str, Any]) -> dict[str, Any]:
    """Prints the table and the bars; all of it as data."""
    about = machine()
    for line in about.values():
        print(line)
    print(f"\n{'':<40}{'median':>10}{'quartiles':>20}")
    medians = {}
    for name, rounds in found.items():
        low, median, high = statistics.quantiles(rounds, n=4)
        medians[name] = median
        print(f"{name:<40}{median:>7.0f} ns{low:>11.0f} … {high:.0f} ns")
    print()
    bars = []
    for what, ours, peer, wanted in BARS:
        ratio = medians[peer] / medians[ours]
        is_met = ratio >= wanted
        print(
            f"{what:<14} {ratio:5.1f} times cheaper than prometheus_client, "
            f"bar {wanted:.0f}: {'met' if is_met else 'not met'}"
        )
        bars.append({"what": what, "ratio": ratio, "bar": wanted, "met": is_met})
    seconds = import_seconds()
    is_met = seconds <= 0.06
    print(f"import qbus    {seconds * 1e3:5.1f} ms, bar 60: {'met' if is_met else 'not met'}")
    bars.append({"what": "import", "seconds": seconds, "bar": 0.06, "met": is_met})
    print(f"qbus: {statistic['delivered']} records delivered, {statistic['dropped']} dropped")
    return {"machine": about, "ns": found, "bars": bars, "statistics": statistic}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path, help="write all rounds to this file")
    parser.add_argument("--drain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drain:
        drain(options.drain)
    folder = Path(tempfile.mkdtemp(prefix="qbus-bench-"))
    bus = f"bench-py-{os.getpid()}"
    command = [sys.executable, "-m", "qbus._command"]
    aggregator = subprocess.Popen(
        [*command, "agg", "-b", bus, "--no-host", "--no-gpu"], stderr=subprocess.PIPE
    )
    agent = subprocess.Popen(
        [sys.executable, __file__, "--drain", str(folder / "statsd")], stdout=subprocess.PIPE
    )
    try:
        assert aggregator.stderr is not None and agent.stdout is not None
        aggregator.stderr.readline()
        agent.stdout.readline()
        statements = cases(folder, bus)
        import qbus

        collector = qbus.get_metrics_collector()
        found = measure(statements, options.rounds, lambda: collector.get_metric("nothing"))
        found.update(pages(options.rounds))
        data = report(found, collector.get_statistics())
        if options.json:
            options.json.write_text(json.dumps(data, indent=1) + "\n")
    finally:
        for process in (aggregator, agent):
            process.terminate()
            process.wait()
        subprocess.run([*command, "rm", "--force", "-b", bus], check=False)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
