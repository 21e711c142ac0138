"""What the garbage collector does."""

import gc
import platform
from collections.abc import Iterable
from typing import Any

from .metrics_core import CounterMetricFamily, Metric
from .registry import REGISTRY, Collector

_COUNTS = (
    ("collected", "objects_collected", "Objects collected during gc"),
    ("uncollectable", "objects_uncollectable", "Uncollectable objects found during GC"),
    ("collections", "collections", "Number of times this generation was collected"),
)


class GCCollector(Collector):
    """Objects collected, by generation.

    >>> from qbus.prometheus_client import CollectorRegistry
    >>> [metric.name for metric in GCCollector(CollectorRegistry()).collect()][0]
    'python_gc_objects_collected'
    """

    def __init__(self, registry: Any = REGISTRY) -> None:
        if hasattr(gc, "get_stats") and platform.python_implementation() == "CPython":
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        families = []
        statistics = gc.get_stats()
        for key, name, text in _COUNTS:
            family = CounterMetricFamily(f"python_gc_{name}", text, labels=["generation"])
            for generation, counts in enumerate(statistics):
                family.add_metric([str(generation)], value=counts[key])
            families.append(family)
        return families


GC_COLLECTOR = GCCollector()
