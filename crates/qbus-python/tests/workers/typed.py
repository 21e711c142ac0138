"""Uses the API as a program does that is checked strictly: by mypy, by pyright, and by running
it."""

import qbus
from qbus import Counter, Gauge, Histogram, Summary, Info, MetricsCollector, MetricType
from qbus import prometheus_client as pc

c = Counter("c", "C.", ["a"])
c.labels("x").inc()
c.labels(a=1).inc(2, exemplar={"trace_id": "ab"})
c.remove("x")
c.clear()
h = Histogram("h", buckets=[1, 2])


@h.time()
def f(x: int) -> str:
    return str(x)


@h.time()
async def g(x: int) -> str:
    return f(x)


with h.time() as timer:
    pass
d = timer.duration
collector: MetricsCollector = qbus.get_metrics_collector()
ok: bool = collector.add_metric("m", 1, MetricType.GAUGE, {"a": "b"})
snap = qbus.snapshot()
for metric in snap:
    print(metric.name, metric.value, metric.labels, metric.buckets, metric.exemplars)
columns = snap.to_columns()
print(columns["name"], Gauge("g").name, Summary("s").name, qbus.__version__)
Info("i").info({"a": "b"})
p = pc.Counter("x", "X.", ["l"])
p.labels("a").inc()
pc.Gauge("y", "Y.", multiprocess_mode="livesum").set(1)
print(pc.generate_latest(pc.REGISTRY))
