"""Goes on while its bus is taken away and made anew: rejoining.py BUS"""

import sys
import time
import warnings

import qbus

bus = sys.argv[1]
collector = qbus.MetricsCollector(bus=bus)
counter = qbus.Counter("c", "A counter.", ["kind"], registry=collector).labels("x")
gauge = qbus.Gauge("g", registry=collector)


def emit() -> None:
    counter.inc()
    gauge.set(1)
    collector.queue_metric("added", 1, "gauge")


def until_told(said: list[warnings.WarningMessage]) -> None:
    while not said:
        emit()
    # Once: whatever is emitted later is counted.
    for _ in range(1000):
        emit()
    assert len(said) == 1 and issubclass(said[0].category, qbus.RefusedWarning), said
    assert "removed" in str(said[0].message), said[0].message
    assert collector.get_statistics()["dropped"] > 0


emit()
while "c_total" not in collector.snapshot():
    pass
print("shown", flush=True)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    until_told(said)
    print("told", flush=True)

    def names() -> set[str]:
        try:
            return {metric.name for metric in qbus.snapshot(bus)}
        except qbus.BusError:
            return set()

    while not {"c_total", "g", "added"} <= names():
        emit()
        time.sleep(0.01)
    # What was emitted last is shown as well: then the total stands still.
    shown = 0.0
    while True:
        time.sleep(0.1)
        found = qbus.snapshot(bus).get("c_total", {"kind": "x"})
        if found is not None and found.value == shown:
            break
        shown = found.value if found is not None else 0.0
    assert len(said) == 1, said
    print("joined", flush=True)
    sys.stdin.readline()
    for _ in range(1000):
        counter.inc()
    print("done", flush=True)
    sys.stdin.read()
