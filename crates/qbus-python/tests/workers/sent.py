"""Handles that a worker gets one by one, of the default collector and of another: sent.py
METHOD."""

import multiprocessing
import os
import sys
from typing import Any

import stage

import qbus

HANDLES = 30


def work(handles: Any) -> None:
    kept = []
    for handle in iter(handles.get, None):
        handle.inc()
        kept.append(handle)


def main() -> None:
    context = multiprocessing.get_context(sys.argv[1])
    collector = qbus.get_metrics_collector()
    other = qbus.MetricsCollector(bus=os.environ.get("OTHER_BUS"))
    handles = context.SimpleQueue()
    worker = context.Process(target=work, args=(handles,))
    worker.start()
    for number in range(HANDLES):
        for registry in (collector, other):
            labelled = qbus.Counter("sent", "Sent.", ["parity"], registry=registry)
            handles.put(labelled.labels(number % 2))
            handles.put(qbus.Gauge("number_sent", "How many.", registry=registry))
    handles.put(None)
    worker.join()
    assert worker.exitcode == 0
    stage.show(
        buses=[collector.bus, other.bus],
        totals=[
            [registry.get_metric("sent_total", {"parity": parity}).value for parity in "01"]
            + [registry.get_metric("number_sent").value]
            for registry in (collector, other)
        ],
        expected=[HANDLES / 2, HANDLES / 2, HANDLES],
    )
    stage.pause()
    other.close()


if __name__ == "__main__":
    main()
