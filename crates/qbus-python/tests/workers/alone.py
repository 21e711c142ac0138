"""Workers of a parent that has no collector: alone.py METHOD."""

import multiprocessing
import sys
from typing import Any

import stage

import qbus
from qbus import MetricType

WORKERS = 2


def work(answers: Any) -> None:
    collector = qbus.get_metrics_collector()
    assert collector.add_metric("calls_total", 1, MetricType.COUNTER)
    answers.put((collector.bus, collector.get_metric("calls_total").value))


def main() -> None:
    context = multiprocessing.get_context(sys.argv[1])
    answers = context.SimpleQueue()
    workers = [context.Process(target=work, args=(answers,)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    got = [answers.get() for _ in range(WORKERS)]
    stage.show(buses=[bus for bus, _ in got], totals=[total for _, total in got])
    stage.pause()


if __name__ == "__main__":
    main()
