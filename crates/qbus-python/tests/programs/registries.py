"""Registries that come and go, collectors that compute, functions that are asked."""

import types

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily


def lines(page):
    return [line for line in page.decode().splitlines() if "_created" not in line]


def probe(number):
    """A registry for each request, as exporters of many targets have it."""
    registry = CollectorRegistry()
    Counter("probe_bytes", "Bytes.", ["target"], registry=registry).labels("x").inc(number)
    Gauge("probe_success", "Success.", registry=registry).set(number)
    Histogram("probe_seconds", "Time.", registry=registry, buckets=[1, 5]).observe(number)
    Summary("probe_size", "Size.", registry=registry).observe(number)
    return lines(generate_latest(registry))


for number in range(3):
    print(*sorted(probe(number)), sep="\n")
first, second = CollectorRegistry(), CollectorRegistry()
Counter("same", "In two registries.", registry=first).inc()
Counter("same", "In two registries.", registry=second).inc(10)
print(second.get_sample_value("same_total"))

Gauge("asked", "A function.", multiprocess_mode="livesum").set_function(lambda: 42)
of_each = Gauge("asked_of", "A function.", ["a"], multiprocess_mode="max")
of_each.labels("x").set_function(lambda: 43)
print(REGISTRY.get_sample_value("asked"), REGISTRY.get_sample_value("asked_of", {"a": "x"}))
kept = Counter("kept", "Kept by a collector.", ["a"], registry=None)
kept.labels("1").inc(4)


class Computed:
    def collect(self):
        for metric in kept.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, "more": "m"}) for sample in metric.samples
            ]
            yield metric


class Handed:
    def describe(self):
        return []

    def collect(self):
        yield from handed.collect()
        yield GaugeMetricFamily("beside", "Computed.", value=3)


handed = Counter("handed", "Kept by a collector.", registry=None)
handed.inc(3)
REGISTRY.register(Computed())
REGISTRY.register(Handed())
print(REGISTRY.get_sample_value("kept_total", {"a": "1", "more": "m"}))
print(REGISTRY.get_sample_value("kept_total", {"a": "1"}))
print(REGISTRY.get_sample_value("handed_total"), REGISTRY.get_sample_value("beside"))

# A module that is loaded again, as servers do that watch their files.
SOURCE = """
from prometheus_client import Counter, Histogram
counter = Counter("loaded", "A counter.", ["a"])
histogram = Histogram("loaded_seconds", "A histogram.", buckets=[1])
"""


def load():
    module = types.ModuleType("module")
    exec(SOURCE, module.__dict__)
    return module


load()
try:
    load()
except ValueError as error:
    print(str(error)[:45])
for collector in list(REGISTRY._collector_to_names):
    REGISTRY.unregister(collector)
module = load()
print(sorted(REGISTRY._names_to_collectors))
module.counter.labels("x").inc(2)
module.counter.labels("y").inc(3)
# What is taken off the page is not on the next.
module.counter.remove("y")
print(REGISTRY.get_sample_value("loaded_total", {"a": "y"}))
page = generate_latest(REGISTRY.restricted_registry(["loaded_total", "loaded_seconds_sum"]))
print(sorted(lines(page)))
module.counter.clear()
print([line for line in lines(generate_latest()) if line.startswith("loaded_total")])
empty = Histogram("empty", "Labels without a value.", ["b", "a"], buckets=[1])
empty.labels("", "x").observe(1)
empty.labels("", "").observe(1)
print(REGISTRY.get_sample_value("empty_sum", {"a": "x", "b": ""}))
print(sorted(line for line in lines(generate_latest()) if line.startswith("empty_sum")))
# Names that only UTF-8 has, and a unit.
dotted = Histogram("http.duration", "Dots.", ["http.method", "b"], unit="seconds", buckets=[1])
dotted.labels("GET", "").observe(0.5)
dotted.labels("GET", "x").observe(2)
labels = {"http.method": "GET", "b": ""}
print(REGISTRY.get_sample_value("http.duration_seconds_sum", labels))
for metric in REGISTRY.collect():
    if metric.name == "http.duration_seconds":
        print(metric.unit, metric.documentation, metric.type, len(metric.samples) > 6)
        print([(sample.name, sorted(sample.labels)) for sample in metric.samples][:2])
# A total that comes from elsewhere, and begins anew there.
outside = Counter("outside", "Counted elsewhere.")
outside._value.set(5)
outside._value.set(8)
print(float(REGISTRY.get_sample_value("outside_total")))
