"""A soak: random calls of the API from threads, forks, spawned processes and signal handlers, with
exact totals.

    soak.py SECONDS SEED    on the bus that QBUS names, which somebody aggregates

Each process keeps account of what it did; the sum of all accounts is what the bus must come to.
"""

import asyncio
import json
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter as Account
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qbus
from qbus import prometheus_client

KINDS = [f"kind {n}" for n in range(20)]

events = qbus.Counter("soak_events", "Calls.", ["kind"])
fractions = qbus.Counter("soak_fractions", "Quarters.")
seconds = qbus.Histogram("soak_seconds", "Observations.", buckets=[1, 2, 4])
sizes = qbus.Summary("soak_sizes", "Observations.")
running = qbus.Gauge("soak_running", "Blocks that run.")
signals = qbus.Counter("soak_signals", "Calls of handlers.")
theirs = prometheus_client.Counter("soak_theirs", "Calls.", ["kind"])
observed = prometheus_client.Histogram("soak_observed", "Observations.", buckets=[1, 2])
handled = 0


def on_signal(*_: object) -> None:
    global handled
    handled += 1
    signals.inc()


class Actor:
    """One thread's random calls, and its account."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.account: Account[str] = Account()
        self.collector = qbus.get_metrics_collector()

    def count(self) -> None:
        kind = self.random.choice(KINDS)
        self.random.choice([lambda: events.labels(kind), lambda: events.labels(kind=kind)])().inc()
        self.account[f"soak_events_total {kind}"] += 1

    def count_fractions(self) -> None:
        quarters = self.random.randrange(1, 9)
        fractions.inc(quarters / 4)
        self.account["soak_fractions_total"] += quarters / 4  # type: ignore[assignment]

    def observe(self) -> None:
        value = self.random.randrange(6)
        seconds.observe(value)
        self.account["soak_seconds count"] += 1
        self.account["soak_seconds sum"] += value

    def summarize(self) -> None:
        sizes.observe(2)
        self.account["soak_sizes count"] += 1

    def nest(self) -> None:
        @running.track_inprogress()
        def block() -> None:
            with sizes.time(), running.track_inprogress():
                self.count()

        block()
        self.account["soak_sizes count"] += 1

    def task(self) -> None:
        @sizes.time()
        async def one() -> None:
            await asyncio.sleep(0)

        async def both() -> None:
            await asyncio.gather(one(), one())

        asyncio.run(both())
        self.account["soak_sizes count"] += 2

    def generate(self) -> None:
        @sizes.time()
        def steps() -> Any:
            yield from range(3)

        made = steps()
        next(made)
        made.close()
        self.account["soak_sizes count"] += 1

    def queue(self) -> None:
        if self.collector.queue_metric(
            "soak_queued_total", 1, "counter", {"a": self.random.choice(KINDS)}
        ):
            self.account["soak_queued_total"] += 1

    def add(self) -> None:
        if self.collector.add_metric("soak_added_total", 2, qbus.MetricType.COUNTER):
            self.account["soak_added_total"] += 2

    def use_theirs(self) -> None:
        kind = self.random.choice(KINDS)
        theirs.labels(kind).inc()
        observed.observe(1.5)
        self.account[f"soak_theirs_total {kind}"] += 1
        self.account["soak_observed count"] += 1

    def send(self) -> None:
        copy = pickle.loads(pickle.dumps(self.random.choice([events, events.labels(KINDS[0])])))
        (copy.labels(KINDS[0]) if copy.name and "{" not in repr(copy) else copy).inc()
        self.account[f"soak_events_total {KINDS[0]}"] += 1

    def err(self) -> None:
        for wrong in (
            lambda: fractions.inc(-1),
            lambda: events.inc(),
            lambda: events.labels("a", "b"),
        ):
            try:
                wrong()
            except ValueError:
                continue
            raise AssertionError("no error")

    def read(self) -> None:
        what: Callable[[], object] = self.random.choice(
            [
                lambda: self.collector.get_metric("soak_fractions_total"),
                lambda: self.collector.get_metrics_history("soak_running", 5),
                lambda: list(qbus.snapshot(match="soak_*")),
                lambda: qbus.snapshot().to_columns(),
                lambda: self.collector.export("json"),
                self.collector.get_statistics,
                qbus.generate_latest,
                prometheus_client.generate_latest,
            ]
        )
        what()

    def run(self, until: float) -> None:
        often = [
            self.count,
            self.count_fractions,
            self.observe,
            self.queue,
            self.use_theirs,
            self.summarize,
        ]
        seldom = [self.nest, self.task, self.generate, self.add, self.send, self.err, self.read]
        while time.monotonic() < until:
            for _ in range(50):
                self.random.choice(often)()
            self.random.choice(seldom)()
            # Half of the calls are faster than the aggregator of a busy machine.
            time.sleep(0.001)


def act(seed: int, until: float, folder: str) -> None:
    """A process: two threads and handlers of signals; its account goes to a file."""
    global handled
    handled = 0
    signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    actors = [Actor(seed * 10 + n) for n in range(2)]
    thread = threading.Thread(target=actors[1].run, args=[until])
    thread.start()
    actors[0].run(until)
    thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    account = actors[0].account + actors[1].account
    account["soak_signals_total"] = handled
    Path(folder, f"{os.getpid()}-{seed}").write_text(json.dumps(account))


def fork(seed: int, until: float, folder: str) -> Callable[[], int]:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act(seed, until, folder)
            status = 0
        finally:
            os._exit(status)
    return lambda: os.waitpid(child, 0)[1]


def spawn(seed: int, until: float, folder: str) -> Callable[[], int]:
    process = multiprocessing.get_context("spawn").Process(target=act, args=(seed, until, folder))
    process.start()

    def wait() -> int:
        process.join()
        return process.exitcode or 0

    return wait


def found(name: str) -> float:
    name, _, of = name.partition(" ")
    if of in ("count", "sum"):
        metric = qbus.snapshot().get(name)
        return float(getattr(metric, of)) if metric is not None else 0.0
    metrics = qbus.snapshot(match=name).metrics
    return sum(metric.value for metric in metrics if not of or metric.labels["kind"] == of)


def main() -> None:
    duration, seed = float(sys.argv[1]), int(sys.argv[2])
    random_of_all = random.Random(seed)
    end = time.monotonic() + duration
    total: Account[str] = Account()
    with tempfile.TemporaryDirectory() as folder:
        generation = 0
        while time.monotonic() < end:
            until = min(time.monotonic() + random_of_all.uniform(1, 4), end + 1)
            children = []
            for start in (fork, fork, spawn):
                generation += 1
                children.append(start(seed * 1000 + generation, until, folder))
            codes = [wait() for wait in children]
            assert codes == [0, 0, 0], codes
        for file in Path(folder).iterdir():
            total.update(json.loads(file.read_text()))
        assert len(list(Path(folder).iterdir())) == generation
    for name, expected in sorted(total.items()):
        assert found(name) == expected, (name, found(name), expected)
    assert found("soak_running") == 0
    # The bus counts a metric of many labels once for each.
    assert sum(total.values()) > 0
    print(json.dumps({"processes": generation, "calls": sum(total.values())}))


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    main()
