"""Serves prometheus_client's multiprocess page of so many series, as its documentation has it.

Half counters, half gauges, two labels each; one process wrote them, which is the least. Prints its
port.
"""

import os
import sys
import time

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

count = int(sys.argv[1])
if os.fork() == 0:
    from prometheus_client import Counter, Gauge

    labels = ["service", "instance"]
    counter = Counter("bench_requests", "Requests.", labels)
    gauge = Gauge("bench_level", "A level.", labels, multiprocess_mode="mostrecent")
    for at in range(count):
        values = ["inference", f"worker-{at // 2}"]
        if at % 2 == 0:
            counter.labels(*values).inc(at * 1.25)
        else:
            gauge.labels(*values).set(at * 1.25)
    os._exit(0)
os.wait()
registry = CollectorRegistry()
MultiProcessCollector(registry)
server, _ = start_http_server(0, "127.0.0.1", registry)
print(server.server_port, flush=True)
while os.getppid() != 1:
    time.sleep(0.1)
