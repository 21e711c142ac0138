"""How long the page of all processes takes: 1,000 series of 64 dead and 2 living workers.

    page.py MODULE ROUNDS    nanoseconds of each round, as JSON
"""

import importlib
import json
import os
import sys
import time

DEAD, LIVING, SERIES = 64, 2, 1000


def main() -> None:
    module, rounds = sys.argv[1], int(sys.argv[2])
    client = importlib.import_module(module)
    multiprocess = importlib.import_module(f"{module}.multiprocess")
    counter = client.Counter("jobs", "Jobs.", ["kind"])

    def work() -> None:
        for kind in range(SERIES):
            counter.labels(kind).inc()

    for _ in range(DEAD):
        if os.fork() == 0:
            work()
            os._exit(0)
        assert os.wait()[1] == 0
    ready, told = os.pipe()
    stay, leave = os.pipe()
    for _ in range(LIVING):
        if os.fork() == 0:
            os.close(leave)
            work()
            os.write(told, b".")
            os.read(stay, 1)
            os._exit(0)
        os.read(ready, 1)
    took = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        page = client.generate_latest(registry)
        took.append(time.perf_counter_ns() - start)
    assert f'jobs_total{{kind="7"}} {DEAD + LIVING}.0\n'.encode() in page, page[:500]
    os.close(leave)
    for _ in range(LIVING):
        os.wait()
    json.dump(took, sys.stdout)


main()
