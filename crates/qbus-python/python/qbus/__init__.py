"""Lock-free shared-memory telemetry bus: metrics of many processes in one place.

>>> import qbus
>>> requests = qbus.Counter("predictions", "Predictions made.", ["model"])
>>> requests.labels("qwen3-vl").inc()
>>> qbus.snapshot().get("predictions_total", {"model": "qwen3-vl"}).value
1.0

Without set-up all of it is private to this process, its forks and its multiprocessing workers. With
the environment's QBUS naming a bus, it is shared by all who name the same, and ``qbus agg`` folds
it.
"""

from qbus import _interpreter  # isort: skip  # refuses a sub-interpreter, before anything native
from qbus._collector import (
    add_performance_metric,
    end_performance_tracking,
    generate_latest,
    get_metrics_collector,
    queue_performance_metric,
    snapshot,
    start_performance_tracking,
)
from qbus._doors import start_http_server, start_pushing, start_statsd_server
from qbus._errors import (
    ArgumentError,
    BusError,
    MetricError,
    QbusError,
    RefusedWarning,
    TrackerError,
)
from qbus._info import Info
from qbus._qbus import (
    Counter,
    Gauge,
    Histogram,
    Metric,
    MetricsCollector,
    MetricsPusher,
    MetricsServer,
    Snapshot,
    StatsdServer,
    Summary,
)
from qbus._qbus import __version__ as __version__
from qbus._types import CONTENT_TYPE_LATEST, MetricType

_interpreter.prepare()

__all__ = [
    "CONTENT_TYPE_LATEST",
    "ArgumentError",
    "BusError",
    "Counter",
    "Gauge",
    "Histogram",
    "Info",
    "Metric",
    "MetricError",
    "MetricType",
    "MetricsCollector",
    "MetricsPusher",
    "MetricsServer",
    "QbusError",
    "RefusedWarning",
    "Snapshot",
    "StatsdServer",
    "Summary",
    "TrackerError",
    "add_performance_metric",
    "end_performance_tracking",
    "generate_latest",
    "get_metrics_collector",
    "queue_performance_metric",
    "snapshot",
    "start_http_server",
    "start_performance_tracking",
    "start_pushing",
    "start_statsd_server",
]
