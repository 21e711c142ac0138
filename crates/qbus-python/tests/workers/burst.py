"""A worker that emits several times what a lane holds, without a pause: burst.py METHOD."""

import multiprocessing
import sys
import warnings

import stage

import qbus
from qbus import MetricType

CALLS = 20_000

calls = qbus.Counter("calls", "Calls.")


def work() -> None:
    # What finds no room is counted, and need not be told.
    warnings.simplefilter("ignore", qbus.RefusedWarning)
    collector = qbus.get_metrics_collector()
    for _ in range(CALLS):
        calls.inc()
        collector.queue_metric("queued_total", 1, MetricType.COUNTER)


def main() -> None:
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    collector = qbus.get_metrics_collector()
    totals = [collector.get_metric(name).value for name in ("calls_total", "queued_total")]
    stage.show(bus=collector.bus, emitted=2 * CALLS, total=sum(totals))
    stage.pause()


if __name__ == "__main__":
    main()
