"""Forks while other threads emit, register and read."""

import os
import threading

import stage

import qbus
from qbus import MetricType

CHILDREN = 25
EACH = 20

collector = qbus.get_metrics_collector()
calls = qbus.Counter("calls", "Calls.", ["who"])
stop = threading.Event()


def emit(counts: list[int], index: int) -> None:
    while not stop.is_set():
        # Waits for a lane that is full.
        assert collector.add_metric("emitted_total", 1, MetricType.COUNTER)
        counts[index] += 1


def register() -> None:
    number = 0
    while not stop.is_set():
        number = (number + 1) % 500
        collector.add_metric("many", number, MetricType.GAUGE, {"number": str(number)})


def read() -> None:
    while not stop.is_set():
        collector.get_metric("emitted_total")
        collector.export_to_json()


def come_and_go() -> None:
    while not stop.is_set():
        thread = threading.Thread(target=calls.labels("thread").inc)
        thread.start()
        thread.join()


def main() -> None:
    counts = [0, 0]
    threads = [threading.Thread(target=emit, args=(counts, index)) for index in range(2)]
    threads += [threading.Thread(target=target) for target in (register, read, come_and_go)]
    for thread in threads:
        thread.start()
    codes = set()
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            for _ in range(EACH):
                calls.labels("child").inc()
                collector.add_metric("emitted_total", 1, MetricType.COUNTER)
            own = collector.get_metric("calls_total", {"who": "child"})
            collector.add_metric("many", 0, MetricType.GAUGE, {"number": f"of {os.getpid()}"})
            os._exit(0 if own.value >= EACH else 1)
        codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()
    stage.show(
        bus=collector.bus,
        pid=os.getpid(),
        codes=sorted(codes),
        expected=sum(counts) + CHILDREN * EACH,
        emitted=collector.get_metric("emitted_total").value,
        of_children=collector.get_metric("calls_total", {"who": "child"}).value,
        expected_of_children=CHILDREN * EACH,
    )
    stage.pause()


if __name__ == "__main__":
    main()
