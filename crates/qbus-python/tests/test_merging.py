"""Gauges of which each process has a value: what they come to, also when processes are killed."""

import os
import signal
from collections.abc import Callable

import pytest
from processes_scene import until

import qbus


def in_child(work: Callable[[], None], go: int) -> int:
    """A forked child that works, then waits until it is killed or the pipe is closed."""
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            work()
            os.write(said, b"x")
            os.read(go, 1)
        finally:
            os._exit(0)
    os.close(said)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


@pytest.mark.parametrize(
    ("mode", "together", "left"),
    [
        ("sum", 6.0, 6.0),
        ("livesum", 6.0, 1.0),
        ("min", 1.0, 1.0),
        ("livemax", 3.0, 1.0),
        ("max", 3.0, 3.0),
        ("livemostrecent", 3.0, 1.0),
    ],
)
def test_values_of_processes_come_to_one(
    collector: qbus.MetricsCollector, mode: str, together: float, left: float
) -> None:
    gauge = qbus.Gauge(
        "depth", "Depth.", ["model"], registry=collector, multiprocess_mode=mode
    )
    # Made before the fork: the children have series of their own all the same.
    child_of = gauge.labels("m")
    child_of.set(1)
    stay, stop = os.pipe()
    pids = []
    for value in (2, 3):
        pids.append(in_child(lambda value=value: child_of.set(value), stay))

    def value() -> object:
        found = collector.snapshot().get("depth", {"model": "m"})
        return None if found is None else found.value

    until(f"{mode}: {together}", lambda: value() == together)
    shown = collector.get_metric("depth", {"model": "m"})
    assert shown is not None and shown.value == together
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(stop)
    os.close(stay)
    until(f"{mode} of who is left: {left}", lambda: value() == left)


def test_all_say_whose_they_are(collector: qbus.MetricsCollector) -> None:
    gauge = qbus.Gauge("temperature", registry=collector, multiprocess_mode="all")
    gauge.set(40)
    found = collector.snapshot().get("temperature", {"pid": str(os.getpid())})
    assert found is not None and found.value == 40.0


def test_requests_in_progress_of_killed_workers_vanish(collector: qbus.MetricsCollector) -> None:
    gauge = qbus.Gauge("in_progress", registry=collector, multiprocess_mode="livesum")
    gauge.set(0)
    stay, stop = os.pipe()

    def work() -> None:
        gauge.track_inprogress().__enter__()

    pids = [in_child(work, stay) for _ in range(5)]

    def value() -> object:
        found = collector.snapshot().get("in_progress")
        return None if found is None else found.value

    until("all are at it", lambda: value() == 5.0)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(stop)
    os.close(stay)
    until("none is", lambda: value() == 0.0)


def test_a_mode_that_is_none_is_told(collector: qbus.MetricsCollector) -> None:
    with pytest.raises(qbus.ArgumentError, match="livesum"):
        qbus.Gauge("g", registry=collector, multiprocess_mode="average")
    with pytest.raises(qbus.MetricError, match="pid"):
        qbus.Gauge("g", "", ["pid"], registry=collector, multiprocess_mode="sum").labels("1")


