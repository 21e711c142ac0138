"""Workers that are killed while they emit as fast as they can: killed.py METHOD inc|queue|add.

Each writes to a file that both map how often a call has returned, at once after it.
"""

import mmap
import multiprocessing
import os
import signal
import sys
import time
import warnings

import stage

import qbus
from qbus import MetricType

#: How often a call of each worker has returned, at least, when it is killed.
TARGETS = [1, 400, 2500, 9000]
#: Less than a lane holds.
BURST = 1000

collector = qbus.get_metrics_collector()
calls = qbus.Counter("calls", "Calls.", ["worker"])


def counts_of(path: str) -> memoryview:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


def emit(means: str, path: str, worker: int) -> None:
    counts, labels = counts_of(path), {"worker": str(worker)}
    handle = calls.labels(**labels)
    # What is refused is counted here, and need not be told.
    warnings.simplefilter("ignore", qbus.RefusedWarning)
    accepted = refused = 0
    emit_one = collector.add_metric if means == "add" else collector.queue_metric
    while True:
        if means == "inc":
            if accepted % BURST == 0:
                while accepted and collector.get_metric("calls_total", labels).value < accepted:
                    pass
            handle.inc()
            accepted += 1
        elif emit_one("calls_total", 1, MetricType.COUNTER, labels):
            accepted += 1
        else:
            refused += 1
            counts[len(TARGETS) + worker] = refused
            continue
        counts[worker] = accepted


def main() -> None:
    method, means = sys.argv[1:]
    path = os.path.abspath("counts")
    with open(path, "wb") as file:
        file.write(bytes(2 * 8 * len(TARGETS)))
    counts = counts_of(path)
    context = multiprocessing.get_context(method)
    totals = []
    for worker, target in enumerate(TARGETS):
        process = context.Process(target=emit, args=(means, path, worker), daemon=True)
        process.start()
        deadline = time.monotonic() + stage.PATIENCE
        while counts[worker] < target and time.monotonic() < deadline:
            time.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        total = collector.get_metric("calls_total", {"worker": str(worker)})
        totals.append(total.value if total else 0)
    stage.show(
        bus=collector.bus,
        targets=TARGETS,
        returned=list(counts[: len(TARGETS)]),
        refused=sum(counts[len(TARGETS) :]),
        totals=totals,
    )
    stage.pause()


if __name__ == "__main__":
    main()
