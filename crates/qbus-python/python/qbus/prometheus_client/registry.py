"""Registries: what is on a page."""

from collections.abc import Iterable
from threading import Lock
from typing import Any, Optional, Protocol

from .metrics_core import Metric

#: Names that the samples of a metric of a type have, beside its own.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
}


class Collector(Protocol):
    """Whatever gives metrics when it is asked."""

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        ...


class _Nothing:
    def collect(self) -> Iterable[Metric]:
        return []


class DuplicateTimeseries(ValueError):
    """Two collectors would give the same names."""

    def __init__(self, duplicates: set[str]) -> None:
        names = ", ".join(repr(name) for name in sorted(duplicates))
        super().__init__(f"Duplicated timeseries in CollectorRegistry: {{{names}}}")
        self.duplicates = duplicates


class CollectorRegistry:
    """Collectors, whose metrics together are a page.

    >>> from qbus.prometheus_client import Counter
    >>> registry = CollectorRegistry(target_info={"service": "search"})
    >>> Counter("searches", "Searches.", registry=registry).inc()
    >>> [metric.name for metric in registry.collect()]
    ['target', 'searches']
    """

    def __init__(
        self,
        auto_describe: bool = False,
        target_info: Optional[dict[str, str]] = None,
        support_collectors_without_names: bool = False,
    ) -> None:
        self._collector_to_names: dict[Any, list[str]] = {}
        self._names_to_collectors: dict[str, Any] = {}
        self._auto_describe = auto_describe
        self._lock = Lock()
        self._target_info: Optional[dict[str, str]] = {}
        self._support_collectors_without_names = support_collectors_without_names
        self._collectors_without_names: list[Any] = []
        self.set_target_info(target_info)

    def register(self, collector: Any) -> None:
        """Adds a collector. Raises DuplicateTimeseries if one of its names is taken."""
        with self._lock:
            names = self._get_names(collector)
            taken = set(names).intersection(self._names_to_collectors)
            if taken:
                raise DuplicateTimeseries(taken)
            self._names_to_collectors.update(dict.fromkeys(names, collector))
            self._collector_to_names[collector] = names
            if not names and self._support_collectors_without_names:
                self._collectors_without_names.append(collector)
        announce = getattr(collector, "_announce", None)
        if announce is not None:
            announce(None if self is REGISTRY else self)

    def unregister(self, collector: Any) -> None:
        """Takes a collector out again; a metric leaves the page of all processes as well."""
        with self._lock:
            for name in self._collector_to_names.pop(collector):
                self._names_to_collectors.pop(name, None)
            if collector in self._collectors_without_names:
                self._collectors_without_names.remove(collector)
        forget = getattr(collector, "_forget", None)
        if forget is not None:
            forget()

    def _get_names(self, collector: Any) -> list[str]:
        describe = getattr(collector, "describe", None)
        if describe is None and self._auto_describe:
            describe = collector.collect
        if describe is None:
            return []
        return [
            metric.name + suffix
            for metric in describe()
            for suffix in ("", *_SUFFIXES.get(metric.type, ()))
        ]

    def collect(self) -> Iterable[Metric]:
        """The metrics of all collectors."""
        with self._lock:
            collectors = list(self._collector_to_names)
            target = self._target_info_metric() if self._target_info else None
        if target is not None:
            yield target
        yield from self._collect_of(collectors)

    def _collect_of(self, collectors: Iterable[Any]) -> Iterable[Metric]:
        """The metrics of some collectors, with what the other processes of the bus have of them.
        The default registry has also what another worker made when it was first asked for, and
        this one never was."""
        from . import multiprocess

        collectors = list(collectors)
        if self is not REGISTRY and not any(hasattr(one, "_labelnames") for one in collectors):
            for collector in collectors:
                yield from collector.collect()
            return
        shared = multiprocess.Shared()
        elsewhere = shared.registered if self is REGISTRY else set()
        for collector in collectors:
            is_computed = not hasattr(collector, "_labelnames")
            for metric in collector.collect():
                elsewhere.discard(metric.name)
                if self is not REGISTRY and metric.name in shared.anew:
                    yield metric
                else:
                    yield shared.of(metric, is_computed)
        yield from map(shared.families.pop, sorted(elsewhere & shared.families.keys()))

    def restricted_registry(self, names: Iterable[str]) -> "RestrictedRegistry":
        """A view of this registry: only samples of these names."""
        return RestrictedRegistry(names, self)

    def set_target_info(self, labels: Optional[dict[str, str]]) -> None:
        """States facts about the process as a whole; None takes them back."""
        with self._lock:
            if labels:
                if not self._target_info and "target_info" in self._names_to_collectors:
                    raise ValueError("CollectorRegistry already contains a target_info metric")
                self._names_to_collectors["target_info"] = _Nothing()
            elif self._target_info:
                self._names_to_collectors.pop("target_info", None)
            self._target_info = labels

    def get_target_info(self) -> Optional[dict[str, str]]:
        """The facts that were stated."""
        with self._lock:
            return self._target_info

    def _target_info_metric(self) -> Metric:
        metric = Metric("target", "Target metadata", "info")
        metric.add_sample("target_info", self._target_info or {}, 1)
        return metric

    def get_sample_value(
        self, name: str, labels: Optional[dict[str, str]] = None
    ) -> Optional[float]:
        """The value of one sample, or None: for tests."""
        labels = labels or {}
        for metric in self.collect():
            for sample in metric.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


class RestrictedRegistry:
    """Only the samples of some names of a registry."""

    def __init__(self, names: Iterable[str], registry: CollectorRegistry) -> None:
        self._name_set = set(names)
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """The metrics that have such samples."""
        registry, target = self._registry, None
        with registry._lock:
            collectors = dict.fromkeys(registry._collectors_without_names)
            if "target_info" in self._name_set and registry._target_info:
                target = registry._target_info_metric()
            for name in self._name_set - {"target_info"}:
                if name in registry._names_to_collectors:
                    collectors[registry._names_to_collectors[name]] = None
        if target is not None:
            yield target
        for metric in registry._collect_of(collectors):
            restricted = metric._restricted_metric(self._name_set)
            if restricted is not None:
                yield restricted


REGISTRY = CollectorRegistry(auto_describe=True)
