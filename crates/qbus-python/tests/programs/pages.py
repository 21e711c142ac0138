"""Pages over HTTP, in files, at gateways; of metrics as they are, and of what collectors give."""

import copy
import decimal
import gzip
import importlib.util
import os
import pickle
import tempfile
from urllib.request import Request, urlopen

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Metric,
    delete_from_gateway,
    generate_latest,
    push_to_gateway,
    pushadd_to_gateway,
    start_http_server,
    write_to_textfile,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.samples import Sample

registry = CollectorRegistry()
Gauge("g", "A gauge.", registry=registry, unit="seconds").set(1e21)
Histogram("h", "", registry=registry, buckets=[0.1, 1e7]).observe(3, {"trace_id": "ab", "u": "v"})
Info("i", "Facts.", registry=registry).info({"b": "c"})
Enum("e", "A state.", states=["a", "b"], registry=registry).state("b")
for name, value in (("neg", -0.0), ("inf", float("-inf")), ("nan", float("nan"))):
    Gauge(name, "A value.", registry=registry).set(value)
for name, value in (("big", 123456789012), ("small", 1e-7)):
    Gauge(name, "A value.", registry=registry).set(value)
counter = Counter("c", 'With "q" \\ \n x', ["a"], registry=registry)
counter.labels('v"\\\n').inc(2, exemplar={"t": "1"})

server, thread = start_http_server(0, "127.0.0.1", registry=registry)


def get(path="/metrics", **headers):
    request = Request(f"http://127.0.0.1:{server.server_port}{path}", headers=headers)
    with urlopen(request) as answer:
        page, found = answer.read(), answer.headers
        print(answer.status, found.get("Content-Type"), found.get("Content-Encoding"))
    if found.get("Content-Encoding") == "gzip":
        page = gzip.decompress(page)
    for family in sorted(page.decode().split("# HELP ")):
        for line in family.splitlines():
            if "created" not in line:
                # Without the time of an exemplar.
                sample, *exemplar = line.split(" # ")
                print(sample, *(part.rsplit(" ", 1)[0] for part in exemplar))


get()
get(Accept="application/openmetrics-text; version=1.0.0")
get("/?name[]=g_seconds&name[]=c_total")
get("/anything", **{"Accept-Encoding": "gzip"})
get(Accept="text/plain;version=1.0.0;escaping=allow-utf-8")
get(Accept="application/openmetrics-text; version=1.0.0; escaping=dots")
server.shutdown()
server.server_close()
thread.join()
print(thread.daemon)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "x.prom")
    write_to_textfile(path, registry)
    print(os.listdir(folder), oct(os.stat(path).st_mode))


def handler(url, method, timeout, headers, data):
    return lambda: print(url, method, timeout, headers, bool(data))


grouping = {"x": "", "y": "a b", "z": 1}
push_to_gateway("gw:9091", "a/b", registry, grouping_key=grouping, handler=handler)
pushadd_to_gateway("https://gw:9091/", job="j", registry=registry, handler=handler, timeout=None)
delete_from_gateway("gw", job="j", handler=handler)


class Given:
    def __init__(self, collect):
        self.collect = collect


def odd():
    metric = GaugeMetricFamily("odd", "Odd values.", labels=["a", "b"])
    metric.add_metric(["1", "2"], True)
    metric.add_metric(["1"], decimal.Decimal("1.5"))
    metric.add_metric(["3", "4", "5"], "7", timestamp=12.5)
    yield metric


def tuples():
    metric = Metric("odd", "Tuples for samples.", "gauge")
    metric.samples = [("odd", {"a": "b"}, 1)]
    yield metric


def numbers():
    metric = GaugeMetricFamily("odd", "Numbers for label values.", labels=["a"])
    metric.add_metric([5], 1)
    yield metric


for collect in (odd, tuples, numbers):
    page = CollectorRegistry()
    page.register(Given(collect))
    try:
        print(generate_latest(page).decode())
    except (AttributeError, ValueError) as error:
        print(type(error).__name__, error.args[-1])
family = CounterMetricFamily("f", "A family.", labels=["x"])
family.add_metric(["1"], 2)
print(pickle.loads(pickle.dumps(family)) == family == copy.deepcopy(family))
print(pickle.loads(pickle.dumps(Sample("a", {}, 1))), pickle.dumps(Sample("a", {}, 1), 0)[:40])
for copied in (pickle.dumps, copy.deepcopy):
    try:
        copied(counter)
    except TypeError as error:
        print(type(error).__name__)
print(copy.copy(counter)._name, hash(counter) == hash(counter), len({counter, counter}))
# What is found by its name is sent by its name: by pools, by Ray.
if importlib.util.find_spec("cloudpickle"):
    cloudpickle = importlib.import_module("cloudpickle")
    for what in (Counter, generate_latest, Sample, CollectorRegistry, GaugeMetricFamily):
        sent = cloudpickle.dumps(what)
        print(len(sent) < 100, pickle.loads(sent) is what, what.__module__)
