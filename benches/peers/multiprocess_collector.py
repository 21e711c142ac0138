"""Milliseconds that prometheus_client's multiprocess collector takes for so many series.

Half counters, half gauges, two labels each; one process wrote them, which is the least.
"""

import statistics
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

count, rounds = int(sys.argv[1]), int(sys.argv[2])
labels = ["service", "instance"]
counter = Counter("bench_requests", "Requests.", labels)
gauge = Gauge("bench_level", "A level.", labels, multiprocess_mode="mostrecent")
for at in range(count):
    values = ["inference", f"worker-{at // 2}"]
    if at % 2 == 0:
        counter.labels(*values).inc(at * 1.25)
    else:
        gauge.labels(*values).set(at * 1.25)

took = []
for _ in range(rounds):
    start = time.perf_counter()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    page = generate_latest(registry)
    took.append((time.perf_counter() - start) * 1e3)
assert page.count(b"worker-") >= count
print(statistics.median(took))
