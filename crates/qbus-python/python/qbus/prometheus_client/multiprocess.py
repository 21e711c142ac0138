"""One page for all processes of a bus."""

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Optional

from qbus import MetricsCollector

from . import _bus
from .metrics import Gauge
from .metrics_core import Metric
from .samples import Exemplar, Sample
from .utils import INF, floatToGoString

_LIVE_GAUGE_MULTIPROCESS_MODES = {
    mode for mode in Gauge._MULTIPROC_MODES if mode.startswith("live")
}


class MultiProcessCollector:
    """All metrics that the processes of a bus have made with this package.

    The bus is the one that QBUS names, else the one of the folder that the environment's
    PROMETHEUS_MULTIPROC_DIR names (or ``path``).
    """

    def __init__(self, registry: Any, path: Optional[str] = None) -> None:
        self._path = path or _bus.directory()
        if not os.environ.get("QBUS") and (not self._path or not os.path.isdir(self._path)):
            raise ValueError(
                "env PROMETHEUS_MULTIPROC_DIR is not set or not a directory, and QBUS names no bus"
            )
        if registry:
            registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The metrics of all processes as they are now."""
        return _collect(_of(self._path), True)

    @staticmethod
    def merge(files: Iterable[str], accumulate: bool = True) -> Iterable[Metric]:
        """The metrics of the bus that a file of a shared folder names."""
        for file in files:
            if os.path.basename(file) == _bus.FILE:
                return _collect(_bus.of_directory(os.path.dirname(file)), accumulate)
        return []


class Shared:
    """What the processes of a bus with a name have counted together. Nothing, when a page is a
    process's own."""

    def __init__(self) -> None:
        rows = _bus.rows(_bus.collector()) if _bus.is_shared() else []

        def named(by: str) -> set[str]:
            return {labels["family"] for name, _, _, labels, *_ in rows if name == by}

        #: Those of these names that some process has in its default registry.
        self.registered: set[str] = named(_bus.REGISTERED)
        #: Those that are made anew for each registry.
        self.anew: set[str] = named(_bus.ANEW)
        own = _bus.own()
        found = _merged(rows, True, is_sum_first=False)
        unknown = (family for family in found if family.name not in own)
        self.families: dict[str, Metric] = {family.name: family for family in unknown}

    def of(self, metric: Metric, is_computed: bool) -> Metric:
        """A metric of this process as it is with what all others have of it. What a collector has
        ``computed`` is left as it is if it is no longer what was counted."""
        shared = self.families.get(metric.name)
        if shared is None:
            return metric
        # What the bus does not know of it, or by another's words.
        shared.documentation, shared.unit = metric.documentation, metric.unit
        if is_computed:
            known = {(sample.name, *sorted(sample.labels.items())) for sample in shared.samples}
            for sample in metric.samples:
                is_created = sample.name.endswith("_created")
                if not is_created and (sample.name, *sorted(sample.labels.items())) not in known:
                    return metric
        _keep_exemplars(metric, shared)
        # Once written it can be freed.
        return self.families.pop(metric.name)


def _keep_exemplars(own: Metric, shared: Metric) -> None:
    """Exemplars of this process are shown with all of their labels: the bus has the trace alone."""
    exemplars = {
        (sample.name, *sorted(sample.labels.items())): sample.exemplar
        for sample in own.samples
        if sample.exemplar is not None
    }
    if not exemplars:
        return
    for at, sample in enumerate(shared.samples):
        exemplar = exemplars.get((sample.name, *sorted(sample.labels.items())))
        if exemplar is not None:
            known = sample.exemplar
            if known is None or float(exemplar.timestamp or 0) >= float(known.timestamp or 0):
                shared.samples[at] = sample._replace(exemplar=exemplar)


def _of(path: Optional[str]) -> MetricsCollector:
    if path is None or os.environ.get("QBUS"):
        return _bus.collector()
    return _bus.of_directory(path)


def _collect(collector: MetricsCollector, accumulate: bool) -> list[Metric]:
    return _merged(_bus.rows(collector), accumulate)


def _merged(rows: list[Any], accumulate: bool, is_sum_first: bool = True) -> list[Metric]:
    """The metrics that rows are of. A collector of many processes gives a histogram's sum first, a
    page of one process last, and readers of pages may rely on either."""
    known_families = {
        labels["family"]: _Family(labels)
        for name, _, _, labels, *_ in rows
        if name == _bus.FAMILIES
    }
    dead = {labels["pid"] for name, _, _, labels, value, *_ in rows if name == _bus.DEAD and value}
    families: dict[str, Metric] = {}
    gauges: dict[str, dict[tuple[tuple[str, str], ...], _Merged]] = defaultdict(dict)
    rows.reverse()
    while rows:
        # Each is freed by itself: all of them at once would keep the interpreter from other
        # threads.
        full, kind, text, labels, value, time, count, total, buckets, traced = rows.pop()
        known = known_families.get(full.removesuffix("_total") if kind == "counter" else full)
        if known is None or known.type != kind:
            continue
        name, labels = known.name, known.labels_of(labels)
        family = families.get(name)
        if family is None:
            family = families[name] = Metric(name, text, kind)
        if kind == "counter":
            last = max(traced, key=lambda one: float(one["timestamp"]), default=None)
            exemplar = _exemplar(last) if last is not None else None
            family.samples.append(Sample(f"{name}_total", labels, value, None, exemplar))
        elif kind == "gauge" and not known.mode:
            family.samples.append(Sample(name, labels, value))
        elif kind == "gauge":
            _merge(gauges[name], labels, value, time, known.mode, dead)
        elif kind == "histogram":
            of_sum = Sample(f"{name}_sum", labels, total or 0.0)
            if is_sum_first:
                family.samples.append(of_sum)
            _buckets(family, labels, buckets or [], list(map(_exemplar, traced)), accumulate)
            if not is_sum_first:
                family.samples.append(of_sum)
        else:
            family.samples.append(Sample(f"{name}_count", labels, float(count or 0)))
            family.samples.append(Sample(f"{name}_sum", labels, total or 0.0))
    for name, merged in gauges.items():
        for pairs, one in merged.items():
            families[name].samples.append(Sample(name, dict(pairs), one.value))
    return list(families.values())


class _Family:
    """A family as it was made: its type, how its gauges are merged, and its names, some of which
    the bus writes otherwise."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.type = labels["type"]
        self.mode = labels.get("mode", "")
        self.name = labels.get("name", labels["family"])
        names = labels.get("labels", "").split(_bus.SEPARATOR)
        self._labels = {_bus.escape(name): name for name in names if name}
        self._names = frozenset(self._labels.values())
        self._is_renamed = any(escaped != name for escaped, name in self._labels.items())

    def labels_of(self, labels: dict[str, str]) -> dict[str, str]:
        """The labels of a row under their own names, with those that have no value."""
        if self._is_renamed:
            labels = {self._labels.get(escaped, escaped): labels[escaped] for escaped in labels}
        if not labels.keys() >= self._names:
            labels = {**dict.fromkeys(self._labels.values(), ""), **labels}
        return labels


def _exemplar(traced: dict[str, Any]) -> Exemplar:
    return Exemplar({"trace_id": traced["trace_id"]}, traced["value"], traced["timestamp"])


def _buckets(
    family: Metric,
    labels: dict[str, str],
    buckets: list[tuple[float, int]],
    exemplars: list[Exemplar],
    accumulate: bool,
) -> None:
    name, before, below = family.name, 0, -INF
    for bound, cumulative in buckets:
        le = {**labels, "le": floatToGoString(bound)}
        count = cumulative if accumulate else cumulative - before
        exemplar = next((one for one in exemplars if below < one.value <= bound), None)
        family.samples.append(Sample(f"{name}_bucket", le, float(count), None, exemplar))
        before, below = cumulative, bound
    if accumulate:
        family.samples.append(Sample(f"{name}_count", labels, float(before)))


class _Merged:
    """The value of a gauge over processes that are told apart by other means than their pids."""

    __slots__ = ("time", "value")

    def __init__(self, value: float, time: float) -> None:
        self.value = value
        self.time = time


def _merge(
    merged: dict[tuple[tuple[str, str], ...], _Merged],
    labels: dict[str, str],
    value: float,
    time: float,
    mode: str,
    dead: set[str],
) -> None:
    if mode.startswith("live") and labels.get("pid") in dead:
        return
    mode = mode.removeprefix("live")
    if mode != "all":
        labels.pop("pid", None)
    key = tuple(labels.items())
    known = merged.get(key)
    if known is None:
        merged[key] = _Merged(value, time)
    elif mode == "min":
        known.value = min(known.value, value)
    elif mode == "max":
        known.value = max(known.value, value)
    elif mode == "sum":
        known.value += value
    elif time >= known.time:
        known.value, known.time = value, time


def mark_process_dead(pid: object, path: Optional[str] = None) -> None:
    """Takes a process's gauges of the living (live…) off the page. When processes are told apart by
    their pids, that is done without this as soon as they end."""
    _bus.mark_dead(_of(path or _bus.directory()), str(pid))
