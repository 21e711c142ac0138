"""The process's own collector, and shorthands for it."""

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, Optional
from weakref import WeakValueDictionary

from qbus import _qbus
from qbus._errors import BusError, MetricError
from qbus._qbus import MetricsCollector, Snapshot
from qbus._types import MetricType

#: Where the workers that multiprocessing starts anew find the private bus of their parent.
_EMBEDDED = "QBUS_EMBEDDED"

_collector: Optional[MetricsCollector] = None
_making = threading.Lock()
#: Collectors of buses that came with handles from other processes: one for all handles of a bus.
_attached: WeakValueDictionary[str, MetricsCollector] = WeakValueDictionary()


def _unlock_child() -> None:
    # Another thread may have held it when this process was forked.
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_unlock_child)


def get_metrics_collector() -> MetricsCollector:
    """The process's collector, made when it is first asked for.

    >>> get_metrics_collector() is get_metrics_collector()
    True
    """
    if _collector is not None:
        return _collector
    with _making:
        return _make()


def _make() -> MetricsCollector:
    global _collector
    if _collector is None:
        collector = _of_parent() or _new()
        if collector.is_embedded:
            os.environ[_EMBEDDED] = collector.bus
            _warn_of_other_workers()
        _close_with_multiprocessing()
        _collector = collector
    return _collector


def _new() -> MetricsCollector:
    """A collector on the bus that the environment names, or on a private one.

    Metrics never end a program: without a bus it goes on, and counts what it cannot deliver.
    """
    try:
        return MetricsCollector()
    except (BusError, MetricError) as error:
        _qbus.tell(
            f"no bus for the metrics of this process, which goes on without: {error}. What it "
            "emits is counted as refused (get_statistics())",
            4,
        )
        return _qbus.without_bus(str(error))


def _warn_of_other_workers() -> None:
    """Says so when a server's worker is about to keep its metrics to itself."""
    server = _prefork_server()
    if server is not None:
        _qbus.tell(
            f"this worker of {server} has a collector of its own: each worker's page shows its own "
            "metrics alone, and they end with it. Import qbus before the workers are forked "
            "(gunicorn --preload, say), or name a bus for all (environment QBUS, and `qbus agg`)",
            5,
        )


def _prefork_server() -> Optional[str]:
    """The server whose forked worker this process is, if it has more than one."""
    frame = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("gunicorn.workers"):
            configuration = getattr(frame.f_locals.get("self"), "cfg", None)
            return "gunicorn" if getattr(configuration, "workers", 2) > 1 else None
        if module.startswith("celery.concurrency.prefork") or module == "billiard.pool":
            return "celery"
        frame = frame.f_back  # type: ignore[assignment]
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None and uwsgi.worker_id() > 0 and uwsgi.numproc > 1:
        return "uwsgi"
    return None


#: What was imported before this package ends after what it registered with atexit.
_MULTIPROCESSING_ENDS_LATER = "multiprocessing.util" in sys.modules


def _close() -> None:
    """Removes a private bus with the last process that has it: a forked child leaves it to its
    parent, if that lives."""
    # Daemon threads would find their bus gone, and say so.
    _qbus.end()
    for collector in (_collector, *_attached.values()):
        if collector is not None:
            collector._end()


def close_in_the_end() -> None:
    """Has the process close its collector as late as can be: to be called when the package is
    imported. What a program registers from then on runs earlier, and can use metrics still."""
    if not _MULTIPROCESSING_ENDS_LATER:
        atexit.register(_close)


def _close_with_multiprocessing() -> None:
    """The same, where multiprocessing ends the process later than what is registered here."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and (_MULTIPROCESSING_ENDS_LATER or _is_worker()):
        # Below 0 is after the workers have been waited for: they emit until then. And the workers
        # themselves skip atexit, not this.
        util.Finalize(None, _close, exitpriority=-1)


def _of_parent() -> Optional[MetricsCollector]:
    """A collector on the parent's private bus, in a worker that multiprocessing started anew."""
    if os.environ.get("QBUS") or not _is_worker():
        return None
    bus = os.environ.get(_EMBEDDED)
    if bus is None:
        _warn_alone("its parent had none when the worker, or its fork server, was started")
        return None
    try:
        return MetricsCollector(bus=bus)
    except BusError as error:
        _warn_alone(str(error))
        return None


def _is_worker() -> bool:
    # Who did not import it was not started by it.
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    if process.parent_process() is not None:
        return True
    # A worker has no parent yet while it imports the main module, where handles are made as a rule;
    # nor has the fork server, whose modules the workers inherit.
    importing = getattr(process.current_process(), "_inheriting", False)
    return importing or any("multiprocessing.forkserver import" in word for word in sys.orig_argv)


def _warn_alone(why: str) -> None:
    _qbus.tell(
        f"this worker has a collector of its own, whose metrics end with it: {why}. Make the "
        "collector before the first worker, or name a bus for all (environment QBUS, and "
        "`qbus agg`)",
        4,
    )


def attach(bus: str, configuration: tuple[float, int, bool, int, bool]) -> MetricsCollector:
    """What a collector becomes in another process: the one that it has on the same bus.

    When that bus is gone, with the process that it was private to, say, it is the process's own.
    """
    if bus == os.environ.get("QBUS") or (bus == os.environ.get(_EMBEDDED) and _is_worker()):
        get_metrics_collector()
    if _collector is not None and _collector.bus == bus:
        return _collector
    with _making:
        collector = _attached.get(bus)
        if collector is None and _qbus.bus_exists(bus):
            try:
                collector = _attached[bus] = MetricsCollector(*configuration, bus=bus)
            except BusError:
                pass
        if collector is not None:
            return collector
    return get_metrics_collector()


def rebuild(
    class_name: str,
    name: str,
    documentation: str,
    labelnames: list[str],
    labelvalues: list[str],
    unit: str,
    buckets: list[float],
    registry: Optional[MetricsCollector],
    multiprocess_mode: str = "last",
    window: tuple[float, int] = (600.0, 5),
    native: bool = False,
) -> Any:
    """What a handle becomes in another process: the same metric, on the bus of that process."""
    options: dict[str, Any] = {"unit": unit, "registry": registry}
    if class_name == "Histogram":
        options["buckets"] = buckets
        options["native"] = native
    if class_name == "Gauge":
        options["multiprocess_mode"] = multiprocess_mode
    if class_name == "Summary":
        seconds, steps = window
        options.update(window=seconds if steps else None, window_steps=steps or 5)
    handle = getattr(_qbus, class_name)(name, documentation, labelnames, **options)
    return handle.labels(*labelvalues) if labelvalues else handle


def add_performance_metric(
    name: str,
    value: float,
    labels: Optional[Mapping[str, str]] = None,
    description: str = "",
) -> bool:
    """Adds a gauge to the process's collector.

    >>> add_performance_metric("tokens_per_second", 71.5, {"model": "qwen3-vl"})
    True
    """
    return get_metrics_collector().add_metric(name, value, MetricType.GAUGE, labels, description)


def queue_performance_metric(
    name: str,
    value: float,
    labels: Optional[Mapping[str, str]] = None,
    description: str = "",
) -> bool:
    """Queues a gauge at the process's collector: never waits.

    >>> queue_performance_metric("tokens_per_second", 72.0, {"model": "qwen3-vl"})
    True
    """
    return get_metrics_collector().queue_metric(name, value, MetricType.GAUGE, labels, description)


def start_performance_tracking(name: str) -> None:
    """Starts to track an operation.

    >>> start_performance_tracking("inference")
    >>> result = end_performance_tracking("inference")
    >>> result["duration"] < 60, isinstance(result["memory_delta"], int)
    (True, True)
    """
    get_metrics_collector().add_performance_tracker(name)


def end_performance_tracking(name: str) -> dict[str, Any]:
    """Ends the tracking of an operation: ``duration`` in seconds, ``memory_delta`` in bytes.

    >>> end_performance_tracking("never started")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    qbus.TrackerError: no performance tracker "never started" is running: ...
    """
    return get_metrics_collector().end_performance_tracker(name)


def snapshot(
    bus: Optional[str] = None, *, match: Optional[str] = None, history: bool = False
) -> Snapshot:
    """All series at one commit: of the process's collector, or of a bus by its name or path.

    ``match`` is a pattern of names with ``*`` and ``?``. A bus that is named is read without
    joining it, also when nobody aggregates it any more.

    >>> snapshot(match="no_such_*").metrics
    []
    """
    if bus is not None:
        return _qbus.read_snapshot(bus, match, history)
    return get_metrics_collector().snapshot(match, history)


def generate_latest(registry: Optional[MetricsCollector] = None) -> bytes:
    """All metrics in the Prometheus text format, for a page of your own.

    >>> isinstance(generate_latest(), bytes)
    True
    """
    return (registry or get_metrics_collector())._page()
