"""Uses the API as a program does that is checked strictly: by mypy, by pyright, and by running
it."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional

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


@c.labels("y").count_exceptions((OSError, KeyError))
def tokens() -> Iterator[int]:
    yield 1


@Gauge("in_progress", multiprocess_mode="livesum").track_inprogress()
async def stream() -> AsyncIterator[int]:
    yield 1


@h.time()
class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    @h.time()
    @classmethod
    def small(cls) -> "Model":
        return cls(1)


async def use() -> int:
    async with h.time() as timed, Gauge("in_block").track_inprogress():
        print(await g(1))
    seconds: Optional[float] = timed.duration
    assert seconds is not None
    return sum([token async for token in stream()])


sizes: list[int] = [Model(2).size, Model.small().size, *tokens(), asyncio.run(use())]
c.labels(None).inc(Decimal("0.5"))
with MetricsCollector(0.5, sampler={"no-collector.hwmon": True}) as own:
    own.register_validation_rule("m", lambda value: value > 0)
    own.add_metric("m", 1, "gauge", {"a": 1}, "Help.", datetime.datetime.now())
    text: str = own.export_to_csv(Path("/dev/null"))
    statistics: dict[str, Any] = own.get_statistics()
with qbus.start_http_server(0, registry=collector) as server:
    print(server.url, sizes, text, statistics["refused"])
with qbus.start_statsd_server(["127.0.0.1:0"], gauge_deltas=True) as statsd:
    print(statsd.addresses, collector.get_metric("m", {"a": "b"}))
p = pc.Counter("x", "X.", ["l"])
p.labels("a").inc()
pc.Gauge("y", "Y.", multiprocess_mode="livesum").set(1)
print(pc.generate_latest(pc.REGISTRY))
