"""prometheus_client over a bus: the same names and behaviour, and one page for all processes.

>>> from qbus.prometheus_client import Counter, generate_latest
>>> jobs = Counter("jobs", "Jobs that were done.", ["kind"])
>>> jobs.labels("small").inc()
>>> b'jobs_total{kind="small"} 1.0' in generate_latest()
True

What a process counts it keeps for its own page, and emits for all others: ``MultiProcessCollector``
gives the page of all, and so does everything that reads the bus (``qbus dump``, ``qbus serve``).
"""

import importlib.machinery as _machinery
import os as _os
import sys as _sys

from . import (
    exposition,
    gc_collector,
    metrics,
    metrics_core,
    openmetrics,
    platform_collector,
    process_collector,
    registry,
)
from .exposition import (
    CONTENT_TYPE_LATEST,
    CONTENT_TYPE_PLAIN_0_0_4,
    CONTENT_TYPE_PLAIN_1_0_0,
    MetricsHandler,
    delete_from_gateway,
    generate_latest,
    instance_ip_grouping_key,
    make_asgi_app,
    make_wsgi_app,
    push_to_gateway,
    pushadd_to_gateway,
    start_http_server,
    start_wsgi_server,
    write_to_textfile,
)
from .gc_collector import GC_COLLECTOR, GCCollector
from .metrics import (
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    Summary,
    disable_created_metrics,
    enable_created_metrics,
)
from .metrics_core import Metric
from .platform_collector import PLATFORM_COLLECTOR, PlatformCollector
from .process_collector import PROCESS_COLLECTOR, ProcessCollector
from .registry import REGISTRY, CollectorRegistry

__all__ = (
    "CONTENT_TYPE_LATEST",
    "CONTENT_TYPE_PLAIN_0_0_4",
    "CONTENT_TYPE_PLAIN_1_0_0",
    "GC_COLLECTOR",
    "PLATFORM_COLLECTOR",
    "PROCESS_COLLECTOR",
    "REGISTRY",
    "CollectorRegistry",
    "Counter",
    "Enum",
    "GCCollector",
    "Gauge",
    "Histogram",
    "Info",
    "Metric",
    "MetricsHandler",
    "PlatformCollector",
    "ProcessCollector",
    "Summary",
    "delete_from_gateway",
    "disable_created_metrics",
    "enable_created_metrics",
    "generate_latest",
    "instance_ip_grouping_key",
    "make_asgi_app",
    "make_wsgi_app",
    "push_to_gateway",
    "pushadd_to_gateway",
    "start_http_server",
    "start_wsgi_server",
    "write_to_textfile",
)


def _extend(path: list[str], name: str) -> None:
    """Has the modules that are not here (bridges, parsers) come from prometheus_client, if there is
    one: what they import from it is this package's."""
    found = _machinery.PathFinder.find_spec("prometheus_client", _sys.path)
    for place in (found and found.submodule_search_locations) or ():
        folder = _os.path.join(place, name) if name else place
        if folder not in path:
            path.append(folder)


_extend(__path__, "")
_extend(openmetrics.__path__, "openmetrics")
