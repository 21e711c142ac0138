"""A process that forks by itself: forks.py ENDING."""

import os
import sys
import threading
import traceback

import stage

import qbus
from qbus import MetricType

CHILDREN = 3
EACH = 300

calls = qbus.Counter("calls", "Calls.", ["who"])
collector = qbus.get_metrics_collector()
spare: list[qbus.MetricsCollector] = []


def work() -> None:
    for _ in range(EACH):
        calls.labels("child").inc()
        assert collector.queue_metric("queued_total", 1, MetricType.COUNTER)


def use_all() -> None:
    """Everything that a child can ask of what it inherited."""
    assert collector.add_metric("latency", 0.25, MetricType.HISTOGRAM)
    assert collector.get_metric("latency") is not None
    assert collector.get_metrics_history("latency")
    assert collector.get_all_metrics_buffer()
    assert "calls_total" in collector.export_to_prometheus()
    assert collector.get_statistics()["has_aggregator"]
    collector.start_collection()
    collector.stop_collection()
    collector.add_performance_tracker("in a child")
    assert collector.end_performance_tracker("in a child")["duration"] >= 0
    threads = [threading.Thread(target=calls.labels("thread of a child").inc) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # It is the parent's: nothing happens.
    collector.close()


def own_collector() -> None:
    """A child's own bus comes and goes; a collector that it inherited goes between."""
    own = qbus.MetricsCollector()
    spare.clear()
    assert own.add_metric("own", 1, MetricType.GAUGE)
    assert own.get_metric("own").value == 1
    own.close()


def child(ending: str) -> None:
    work()
    if ending == "uses all":
        use_all()
    if ending == "own collector":
        own_collector()
    if ending == "sys.exit":
        sys.exit(7)
    if ending == "exception":
        sys.stderr = open(os.devnull, "w")
        raise ValueError("on purpose")
    if ending == "return":
        return
    os._exit(7)


def main() -> None:
    ending = sys.argv[1]
    if ending == "own collector":
        spare.append(qbus.MetricsCollector())
    calls.labels("parent").inc()
    codes = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            try:
                child(ending)
            except AssertionError:
                traceback.print_exc()
                os._exit(1)
            # The end of the script, as the parent's would be.
            return
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    calls.labels("parent").inc()
    for left in spare:
        assert left.add_metric("after", 1, MetricType.GAUGE)
        assert left.get_metric("after").value == 1
        left.close()
    current = collector.get_all_current_metrics()
    stage.show(
        bus=collector.bus,
        pid=os.getpid(),
        codes=codes,
        totals={series: metric.value for series, metric in current.items()},
    )
    stage.pause()


if __name__ == "__main__":
    main()
