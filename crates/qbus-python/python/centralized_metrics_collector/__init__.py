"""The centralized metrics collector, over qbus.

>>> from centralized_metrics_collector import MetricType, get_metrics_collector
>>> collector = get_metrics_collector()
>>> collector.add_metric("decode_latency", 0.125, MetricType.GAUGE, {"model": "qwen3-vl"})
True
>>> collector.get_metric("decode_latency", {"model": "qwen3-vl"}).value
0.125
"""

from qbus import (
    Metric,
    MetricsCollector,
    MetricType,
    add_performance_metric,
    end_performance_tracking,
    get_metrics_collector,
    queue_performance_metric,
    start_performance_tracking,
)

__all__ = [
    "Metric",
    "MetricType",
    "MetricsCollector",
    "add_performance_metric",
    "end_performance_tracking",
    "get_metrics_collector",
    "queue_performance_metric",
    "start_performance_tracking",
]
