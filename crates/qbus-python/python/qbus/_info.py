"""Facts as labels."""

from collections.abc import Mapping, Sequence
from typing import Optional

from qbus._collector import get_metrics_collector
from qbus._errors import MetricError
from qbus._qbus import MetricsCollector
from qbus._types import MetricType


class Info:
    """Facts about a process or model as the labels of a gauge NAME_info that is 1.

    >>> build = Info("build", "What was built.")
    >>> build.info({"version": "1.2.3"})
    >>> get_metrics_collector().get_metric("build_info", {"version": "1.2.3"}).value
    1.0
    """

    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: Sequence[str] = (),
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Optional[MetricsCollector] = None,
    ) -> None:
        if unit:
            raise MetricError(f"metric {name}: an Info has no unit, and was given {unit!r}")
        parts = [part for part in (namespace, subsystem, name.removesuffix("_info")) if part]
        self._name = "_".join([*parts, "info"])
        self._documentation = documentation
        self._labelnames = tuple(labelnames)
        self._labels: dict[str, str] = {}
        self._registry = registry or get_metrics_collector()
        self._shown: dict[str, str] = {}
        self._children: dict[tuple[str, ...], Info] = {}

    def labels(self, *labelvalues: object, **labelkwargs: object) -> "Info":
        """The Info of these label values."""
        values: tuple[object, ...] = labelvalues
        if labelkwargs:
            if labelvalues or set(labelkwargs) != set(self._labelnames):
                raise MetricError(f"metric {self._name}: its labels are {self._labelnames}")
            values = tuple(labelkwargs[name] for name in self._labelnames)
        if len(values) != len(self._labelnames):
            raise MetricError(f"metric {self._name}: its labels are {self._labelnames}")
        texts = tuple(map(str, values))
        child = self._children.get(texts)
        if child is None:
            child = Info(self._name, self._documentation, registry=self._registry)
            child._labels = dict(zip(self._labelnames, texts))
            self._children[texts] = child
        return child

    def info(self, val: Mapping[str, str]) -> None:
        """States the facts. Those that were stated before are 0 from then on."""
        if self._labelnames:
            raise MetricError(f"metric {self._name} has labels: call labels() first")
        both = sorted(set(val) & set(self._labels))
        if both:
            raise MetricError(f"metric {self._name}: {both} are labels already")
        labels = {**self._labels, **val}
        if self._shown and self._shown != labels:
            self._emit(0, self._shown)
        self._emit(1, labels)
        self._shown = labels

    def __repr__(self) -> str:
        labels = ",".join(f'{name}="{value}"' for name, value in self._labels.items())
        return f"Info({self._name}{{{labels}}})" if labels else f"Info({self._name})"

    def _emit(self, value: float, labels: Mapping[str, str]) -> None:
        self._registry.queue_metric(
            self._name, value, MetricType.GAUGE, labels, self._documentation
        )
