"""Pages in the Prometheus text format."""

from typing import Any

from qbus import _qbus

from .openmetrics import exposition as openmetrics
from .registry import REGISTRY, Collector
from .utils import floatToGoString, free

#: Types that the text format has under another name, and what is added to the metric's.
_TYPES = {
    "counter": ("counter", "_total"),
    "info": ("gauge", "_info"),
    "stateset": ("gauge", ""),
    "gaugehistogram": ("histogram", ""),
    "unknown": ("untyped", ""),
}
#: Samples that only OpenMetrics has: gauges of their own here.
_APART = ("_created", "_gsum", "_gcount")


def generate_latest(
    registry: Collector = REGISTRY, escaping: str = openmetrics.UNDERSCORES
) -> bytes:
    """The page of a registry in the Prometheus text format.

    >>> from qbus.prometheus_client import CollectorRegistry, Gauge
    >>> registry = CollectorRegistry()
    >>> Gauge("depth", "Requests that wait.", registry=registry).set(2)
    >>> print(generate_latest(registry).decode(), end="")
    # HELP depth Requests that wait.
    # TYPE depth gauge
    depth 2.0
    """
    page = _qbus.Page()
    used: list[Any] = []
    metric: Any = None
    for metric in registry.collect():
        free(used)
        try:
            _write_metric(metric, escaping, page)
        except Exception as error:
            error.args = (*(error.args or ("",)), metric)
            raise
        used.append(metric.samples)
    del metric
    free(used)
    return page.take()


def _write_metric(metric: Any, escaping: str, page: _qbus.Page) -> None:
    typ, suffix = _TYPES.get(metric.type, (metric.type, ""))
    text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")

    def head(name: str, typ: str) -> None:
        escaped = openmetrics.escape_metric_name(name, escaping)
        page.write(f"# HELP {escaped} {text}\n# TYPE {escaped} {typ}\n")

    head(metric.name + suffix, typ)
    names_apart = {metric.name + suffix: [] for suffix in _APART}  # type: dict[str, list[str]]
    if escaping == openmetrics.UNDERSCORES and type(metric.samples) is list:
        if not any(sample.name in names_apart for sample in metric.samples):
            if page.write_samples(metric.samples):
                return
    for sample in metric.samples:
        series = openmetrics.series_text(sample.name, sample.labels, escaping)
        line = f"{series} {floatToGoString(sample.value)}"
        if sample.timestamp is not None:
            line = f"{line} {int(float(sample.timestamp) * 1000)}"
        apart = names_apart.get(sample.name)
        if apart is None:
            page.write(f"{line}\n")
        else:
            apart.append(f"{line}\n")
    for name, apart in sorted(names_apart.items()):
        if apart:
            head(name, "gauge")
            for line in apart:
                page.write(line)
