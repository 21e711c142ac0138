"""Daemon threads that use one part of the package until the process ends."""

import random
import sys
import threading
import time

import qbus

counter = qbus.Counter("c", "A counter.", ["label"])
gauge = qbus.Gauge("g", "A gauge.")
histogram = qbus.Histogram("h", "A histogram.")
collector = qbus.get_metrics_collector()


class Label:
    """Its text and its number are Python code, which gives the interpreter up."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return f"v{self.number % 5}"

    def __float__(self) -> float:
        return float(self.number)


def timers(n: int) -> None:
    with histogram.time():
        pass


def labels(n: int) -> None:
    counter.labels(Label(n)).inc(Label(1))
    counter.labels(label=Label(n)).inc()


def values(n: int) -> None:
    gauge.set(Label(n))
    gauge.dec(n)
    histogram.observe(Label(n))


def added(n: int) -> None:
    collector.add_metric("added", 1, "counter", {"label": Label(n)})


def queued(n: int) -> None:
    collector.queue_metric("queued", Label(n), qbus.MetricType.GAUGE)


def read(n: int) -> None:
    histogram.observe(1)
    qbus.snapshot().get("h").to_dict()  # type: ignore[union-attr]
    collector.get_metric("c_total")
    collector.get_statistics()


def exported(n: int) -> None:
    qbus.generate_latest()
    collector.export("json")


def made(n: int) -> None:
    qbus.Counter(f"made{n % 50}", "Made.", ["label"]).labels("x").inc()


def decorated(n: int) -> None:
    @histogram.time()
    @counter.labels("decorated").count_exceptions()
    @gauge.track_inprogress()
    def function() -> None:
        pass

    function()


def ruled(n: int) -> None:
    collector.register_validation_rule("ruled", lambda value: value > 0)
    collector.add_metric("ruled", 1, "gauge")


def tracked(n: int) -> None:
    name = str(threading.get_ident())
    collector.add_performance_tracker(name)
    collector.end_performance_tracker(name)


def mistaken(n: int) -> None:
    for mistake in (
        lambda: counter.inc(),
        lambda: histogram.observe("x"),  # type: ignore[arg-type]
        lambda: qbus.Counter("1"),
    ):
        try:
            mistake()
        except (ValueError, TypeError):
            pass


def collectors(n: int) -> None:
    qbus.MetricsCollector().close()


def main() -> None:
    use = globals()[sys.argv[1]]

    def work() -> None:
        n = 0
        while True:
            n += 1
            use(n)

    for _ in range(3):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(0.05 + random.random() * 0.1)
    sys.exit(7)


main()
