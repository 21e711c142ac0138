"""Metrics served, metrics sent on, and metrics taken of StatsD clients."""

import atexit
import os
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Optional, TypeVar, Union

from qbus import _qbus
from qbus._collector import get_metrics_collector
from qbus._qbus import MetricsCollector, MetricsPusher, MetricsServer, StatsdServer

_Texts = Union[str, Iterable[str]]
_Door = TypeVar("_Door", MetricsServer, MetricsPusher, StatsdServer)

#: What is open goes on when nobody keeps its guard.
_open: list[Union[MetricsServer, MetricsPusher, StatsdServer]] = []


def _keep(door: _Door) -> _Door:
    """Has it be closed in the end, unless it was before."""
    _open[:] = [other for other in _open if not other.closed]
    _open.append(door)
    # Before the collector is closed, which was there earlier: what is registered last runs first.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    return door


def _close_all() -> None:
    while _open:
        _open.pop().close()


def _all(texts: Optional[_Texts]) -> list[str]:
    if texts is None:
        return []
    return [texts] if isinstance(texts, str) else list(texts)


def start_http_server(
    port: int, addr: str = "127.0.0.1", registry: Optional[MetricsCollector] = None
) -> MetricsServer:
    """Serves all metrics of the bus, of every process, at /metrics, and the dashboard at /.

    It runs on a native thread until close(), or until the process ends; a forked child has none.
    The port 0 is any free one. An address that other machines can reach has no password: it warns.

    Raises BusError (an OSError) if the address is taken or cannot be bound.

    >>> with start_http_server(0) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """
    address = f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"
    return _keep(_qbus.serve(registry or get_metrics_collector(), address))


def start_pushing(
    remote_write: Optional[_Texts] = None,
    otlp: Optional[_Texts] = None,
    *,
    interval: float = 10.0,
    labels: Optional[Mapping[str, str]] = None,
    queue: Union[str, "os.PathLike[str]", None] = None,
    registry: Optional[MetricsCollector] = None,
) -> MetricsPusher:
    """Sends all metrics of the bus, of every process, on: by remote write, by OTLP, or both.

    A receiver is a URL with options behind commas, as ``qbus agg --remote-write`` and ``--otlp``
    have them (docs/push.md); ``otlp=""`` is where the environment's OTEL_EXPORTER_OTLP_ENDPOINT
    says. ``labels`` tell this bus from others; beside them ``job`` is the bus, or the program where
    that is private, and ``instance`` the host. ``queue`` is a folder in which survives what waits
    for a receiver: of a bus with a name.

    It runs on native threads until close(), or until the process ends, and then sends all of it
    once more; a forked child sends nothing. One process of a bus does this; with a named bus that
    is ``qbus agg`` as a rule.

    Raises MetricError (a ValueError) for what names no receiver, BusError (an OSError) for a file
    or a folder that cannot be used.

    For example ``start_pushing("http://prometheus:9090/api/v1/write", labels={"job":
    "training"})``.
    """
    collector = registry or get_metrics_collector()
    job = os.path.basename(sys.argv[0]) if collector.is_embedded else collector.bus
    own = {"job": job or "python", "instance": socket.gethostname(), **(labels or {})}
    pusher = _qbus.push(
        collector, _all(remote_write), _all(otlp), interval, list(own.items()), queue
    )
    return _keep(pusher)


def start_statsd_server(
    address: _Texts = "127.0.0.1:8125",
    *,
    mapping: Union[str, "os.PathLike[str]", None] = None,
    gauge_deltas: bool = False,
    registry: Optional[MetricsCollector] = None,
) -> StatsdServer:
    """Takes what StatsD and DogStatsD clients send, at one address or several, beside all other
    metrics.

    An address is ``127.0.0.1:8125``, or ``unix:PATH`` (docs/statsd.md); ``mapping`` is a file in
    the format of statsd_exporter, and ``gauge_deltas`` takes a gauge's value with a sign as a
    change.

    It runs on native threads until close(), or until the process ends; a forked child has none.

    Raises MetricError (a ValueError) for what is no address, BusError (an OSError) if it is taken
    or the mapping cannot be used.

    >>> with start_statsd_server("127.0.0.1:0") as server:
    ...     server.addresses[0].startswith("127.0.0.1:")
    True
    """
    return _keep(
        _qbus.listen(registry or get_metrics_collector(), _all(address), mapping, gauge_deltas)
    )
