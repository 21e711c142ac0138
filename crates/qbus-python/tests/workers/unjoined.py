"""A parent that comes to its end before its worker, and waits for it there: unjoined.py METHOD."""

import atexit
import multiprocessing
import sys
from typing import Any

import stage

import qbus
from qbus import MetricType


def work(gate: Any) -> None:
    gate.recv()
    collector = qbus.get_metrics_collector()
    added = [collector.add_metric("calls_total", 1, MetricType.COUNTER) for _ in range(10)]
    stage.show(bus=collector.bus, added=added, total=collector.get_metric("calls_total").value)


def main() -> None:
    context = multiprocessing.get_context(sys.argv[1])
    gate, opener = context.Pipe(duplex=False)
    # Called after what is registered later, so after all that a collector would do in the end.
    atexit.register(opener.send, "open")
    collector = qbus.get_metrics_collector()
    context.Process(target=work, args=(gate,)).start()
    stage.show(bus=collector.bus)


if __name__ == "__main__":
    main()
