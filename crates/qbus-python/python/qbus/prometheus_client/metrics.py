"""The metrics: counters, gauges, summaries, histograms, facts and states."""

import os
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Optional, TypeVar, Union

from qbus import _qbus

from . import _bus, values
from .context_managers import ExceptionCounter, InprogressTracker, Timer
from .metrics_core import Metric
from .registry import REGISTRY, Collector, CollectorRegistry
from .samples import Exemplar, Sample
from .utils import INF, floatToGoString
from .validation import _validate_exemplar, _validate_labelnames, _validate_metric_name

T = TypeVar("T", bound="MetricWrapperBase")


def _get_use_created() -> bool:
    disabled = os.environ.get("PROMETHEUS_DISABLE_CREATED_SERIES", "")
    return disabled.lower() not in ("true", "1", "t")


_use_created = _get_use_created()


def disable_created_metrics() -> None:
    """Leaves out since when things are counted.

    >>> disable_created_metrics()
    >>> enable_created_metrics()
    """
    global _use_created
    _use_created = False


def enable_created_metrics() -> None:
    """Says since when things are counted, as it is from the start.

    >>> enable_created_metrics()
    """
    global _use_created
    _use_created = True


def _build_full_name(
    metric_type: Optional[str], name: str, namespace: str, subsystem: str, unit: str
) -> str:
    if not name:
        raise ValueError("Metric name should not be empty")
    full = "_".join(part for part in (namespace, subsystem, name) if part)
    if metric_type == "counter":
        full = full.removesuffix("_total")
    if unit and metric_type in ("info", "stateset"):
        raise ValueError(f"metric {full}: a metric of type {metric_type} has no unit")
    if unit and not full.endswith(f"_{unit}"):
        full = f"{full}_{unit}"
    return full


class MetricWrapperBase(Collector):
    """A metric, or with labels: the family of its series."""

    _type: Optional[str] = None
    _reserved_labelnames: Sequence[str] = ()
    #: What of it is on the bus.
    _on_bus: Any = None

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Optional[CollectorRegistry] = REGISTRY,
        _labelvalues: Optional[Sequence[str]] = None,
    ) -> None:
        self._original_name = name
        self._namespace = namespace
        self._subsystem = subsystem
        self._name = _build_full_name(self._type, name, namespace, subsystem, unit)
        self._labelnames = _validate_labelnames(self, labelnames)
        self._labelvalues = tuple(_labelvalues or ())
        self._kwargs: dict[str, Any] = {}
        self._documentation = documentation
        self._unit = unit
        _validate_metric_name(self._name)
        if self._is_parent():
            self._lock = Lock()
            self._metrics: dict[tuple[str, ...], Any] = {}
        else:
            self._metric_init()
        if registry and not self._labelvalues:
            registry.register(self)

    def _is_parent(self) -> bool:
        return bool(self._labelnames) and not self._labelvalues

    def _is_observable(self) -> bool:
        return not self._is_parent()

    def _raise_if_not_observable(self) -> None:
        if self._is_parent():
            raise ValueError(
                f"{self._type} metric {self._name} is missing label values: call labels() first"
            )

    def _metric_init(self) -> None:
        raise NotImplementedError(f"_metric_init() of {self!r}")

    def _child_samples(self) -> Iterable[Sample]:
        raise NotImplementedError(f"_child_samples() of {self!r}")

    def _get_metric(self) -> Metric:
        return Metric(self._name, self._documentation, self._type or "unknown", self._unit)

    def describe(self) -> Iterable[Metric]:
        """The metric without samples."""
        return [self._get_metric()]

    def collect(self) -> Iterable[Metric]:
        """The metric with its samples."""
        metric = self._get_metric()
        for sample in self._samples():
            metric.add_sample(self._name + sample.name, *sample[1:])
        return [metric]

    def _samples(self) -> Iterable[Sample]:
        return self._multi_samples() if self._is_parent() else self._child_samples()

    def _multi_samples(self) -> Iterable[Sample]:
        with self._lock:
            children = self._metrics.copy()
        for labelvalues, child in children.items():
            labels = dict(zip(self._labelnames, labelvalues))
            for suffix, more, *rest in child._samples():
                yield Sample(suffix, {**labels, **more}, *rest)

    def __str__(self) -> str:
        return f"{self._type}:{self._name}"

    def __repr__(self) -> str:
        return f"{type(self).__module__}.{type(self).__name__}({self._name})"

    def labels(self: T, *labelvalues: object, **labelkwargs: object) -> T:
        """The series of these label values, in the order of the names or by name.

        >>> from qbus.prometheus_client import CollectorRegistry, Counter
        >>> registry = CollectorRegistry()
        >>> requests = Counter("requests", "Requests.", ["method"], registry=registry)
        >>> requests.labels("get") is requests.labels(method="get")
        True
        """
        if not labelkwargs:
            # A tuple of strings that is known needs no lock.
            try:
                return self._metrics[labelvalues]  # type: ignore[index, no-any-return]
            except (KeyError, TypeError, AttributeError):
                pass
        return self._labels(labelvalues, labelkwargs)

    def _labels(self: T, given: tuple[object, ...], named: Mapping[str, object]) -> T:
        if not self._labelnames:
            raise ValueError(f"No label names were set when constructing {self}")
        if self._labelvalues:
            own = dict(zip(self._labelnames, self._labelvalues))
            raise ValueError(
                f"{self} already has labels set ({own}); can not chain calls to .labels()"
            )
        if given and named:
            raise ValueError(
                "Can't pass both *args and **kwargs: label values are given by position or by name"
            )
        if named:
            if sorted(named) != sorted(self._labelnames):
                raise ValueError("Incorrect label names")
            given = tuple(named[name] for name in self._labelnames)
        if len(given) != len(self._labelnames):
            raise ValueError("Incorrect label count")
        texts = tuple(str(value) for value in given)
        with self._lock:
            child = self._metrics.get(texts)
            if child is None:
                child = self._metrics[texts] = self._make_child(texts)
            return child

    def _make_child(self: T, labelvalues: tuple[str, ...]) -> T:
        own: dict[str, Any] = {
            "namespace": self._namespace,
            "subsystem": self._subsystem,
            "unit": self._unit,
        }
        more = {name: value for name, value in self._kwargs.items() if name not in own}
        return self.__class__(
            self._original_name,
            documentation=self._documentation,
            labelnames=self._labelnames,
            _labelvalues=labelvalues,
            **own,
            **more,
        )

    def _announce(self) -> None:
        """Has it be on the pages of all processes of a bus with a name."""
        if self._type in ("counter", "gauge", "histogram", "summary"):
            _bus.register(self._name)

    def _forget(self) -> None:
        """Takes it off the page of all processes: what uses it again brings it back."""
        if self._is_parent():
            with self._lock:
                children = list(self._metrics.values())
            for child in children:
                child._forget()
        # A class of values from elsewhere knows no bus.
        forget = getattr(self._on_bus, "forget", None)
        if forget is not None:
            forget()

    def _remove(self, is_meant: Callable[[tuple[str, ...]], bool]) -> None:
        with self._lock:
            removed = [self._metrics.pop(known) for known in list(self._metrics) if is_meant(known)]
        for child in removed:
            child._forget()

    def remove(self, *labelvalues: Any) -> None:
        """Takes the series of these label values off the page, of all processes too."""
        if not self._labelnames:
            raise ValueError(f"No label names were set when constructing {self}")
        if len(labelvalues) != len(self._labelnames):
            raise ValueError(
                f"Incorrect label count (expected {len(self._labelnames)}, got {labelvalues})"
            )
        wanted = tuple(str(value) for value in labelvalues)
        self._remove(lambda known: known == wanted)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Takes all series off the page that have these labels, and others perhaps."""
        if not self._labelnames:
            raise ValueError(f"No label names were set when constructing {self}")
        if not isinstance(labels, dict):
            raise TypeError("labels are a dict of names and values")
        unknown = [name for name in labels if name not in self._labelnames]
        if unknown:
            raise ValueError(f"Unknown label names: {unknown}; expected {self._labelnames}")
        wanted = {self._labelnames.index(name): str(value) for name, value in labels.items()}
        if wanted:
            self._remove(lambda known: all(known[at] == value for at, value in wanted.items()))

    def clear(self) -> None:
        """Takes all series off the page that this process has used."""
        if self._labelnames:
            self._remove(lambda known: True)

    def _shorten(self, name: str, native: Callable[..., None], base: type) -> None:
        """Has a method be the native one, unless a subclass made it its own."""
        if getattr(type(self), name) is getattr(base, name):
            setattr(self, name, native)


class Counter(MetricWrapperBase):
    """A sum that only grows.

    >>> from qbus.prometheus_client import CollectorRegistry, Counter
    >>> registry = CollectorRegistry()
    >>> failures = Counter("failures", "Failed requests.", registry=registry)
    >>> failures.inc(); failures.inc(1.5)
    >>> registry.get_sample_value("failures_total")
    2.5
    """

    _type = "counter"

    def _metric_init(self) -> None:
        self._value = values.ValueClass(
            self._type,
            self._name,
            f"{self._name}_total",
            self._labelnames,
            self._labelvalues,
            self._documentation,
        )
        self._on_bus = self._value
        self._created = time.time()
        if _is_plain(self._value):
            self._shorten("inc", self._value._native.inc, Counter)

    def inc(self, amount: float = 1, exemplar: Optional[Mapping[str, str]] = None) -> None:
        """Adds an amount, not negative."""
        self._raise_if_not_observable()
        if amount < 0:
            raise ValueError("Counters can only be incremented by non-negative amounts.")
        self._value.inc(amount)
        if exemplar:
            _validate_exemplar(exemplar)
            self._value.set_exemplar(Exemplar(exemplar, amount, time.time()))

    def reset(self) -> None:
        """Begins at 0 on this process's page; on the bus the sum goes on."""
        self._value.set(0)
        self._created = time.time()

    def count_exceptions(
        self, exception: Union[type[BaseException], tuple[type[BaseException], ...]] = Exception
    ) -> ExceptionCounter:
        """Counts the exceptions of a block or function."""
        self._raise_if_not_observable()
        return ExceptionCounter(self, exception)

    def _child_samples(self) -> Iterable[Sample]:
        yield Sample("_total", {}, self._value.get(), None, self._value.get_exemplar())
        if _use_created:
            yield Sample("_created", {}, self._created)


def _is_plain(value: Any) -> bool:
    """Whether a value's native half can be called directly: a fork is noticed by other means
    then."""
    identify = getattr(value, "_identify", None)
    return isinstance(value, values.MutexValue) and identify is os.getpid


class Gauge(MetricWrapperBase):
    """A value that goes up and down.

    ``multiprocess_mode`` says what several processes make of it: the sum, min, max or most recent
    of all or of the living (live…), or a series of each.

    >>> from qbus.prometheus_client import CollectorRegistry, Gauge
    >>> registry = CollectorRegistry()
    >>> mode = "livesum"
    >>> depth = Gauge("waiting", "Requests that wait.", registry=registry, multiprocess_mode=mode)
    >>> depth.set(4); depth.dec()
    >>> registry.get_sample_value("waiting")
    3.0
    """

    _type = "gauge"
    _MULTIPROC_MODES = frozenset(
        live + mode for live in ("", "live") for mode in ("all", "min", "max", "sum", "mostrecent")
    )
    _MOST_RECENT_MODES = frozenset(("mostrecent", "livemostrecent"))

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Optional[CollectorRegistry] = REGISTRY,
        _labelvalues: Optional[Sequence[str]] = None,
        multiprocess_mode: str = "all",
    ) -> None:
        if multiprocess_mode not in self._MULTIPROC_MODES:
            raise ValueError(f"Invalid multiprocess mode: {multiprocess_mode}")
        self._multiprocess_mode = multiprocess_mode
        self._is_most_recent = multiprocess_mode in self._MOST_RECENT_MODES
        super().__init__(
            name,
            documentation,
            labelnames,
            namespace,
            subsystem,
            unit,
            registry,
            _labelvalues,
        )
        self._kwargs["multiprocess_mode"] = multiprocess_mode

    def _metric_init(self) -> None:
        self._value = values.ValueClass(
            self._type,
            self._name,
            self._name,
            self._labelnames,
            self._labelvalues,
            self._documentation,
            multiprocess_mode=self._multiprocess_mode,
        )
        self._on_bus = self._value
        if _is_plain(self._value) and not self._is_most_recent:
            for method in ("inc", "dec", "set"):
                self._shorten(method, getattr(self._value._native, method), Gauge)

    def _announce(self) -> None:
        # Of each process its own is shown.
        if not self._multiprocess_mode.endswith("all"):
            super()._announce()

    def _raise_if_most_recent(self) -> None:
        if self._is_most_recent:
            raise RuntimeError("a gauge of which the most recent value counts can only be set")

    def inc(self, amount: float = 1) -> None:
        """Adds an amount."""
        self._raise_if_most_recent()
        self._raise_if_not_observable()
        self._value.inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtracts an amount."""
        self._raise_if_most_recent()
        self._raise_if_not_observable()
        self._value.inc(-amount)

    def set(self, value: float) -> None:
        """Sets the value."""
        self._raise_if_not_observable()
        self._value.set(float(value), timestamp=time.time() if self._is_most_recent else None)

    def set_to_current_time(self) -> None:
        """Sets the value to the time, in seconds since the Unix epoch."""
        self.set(time.time())

    def track_inprogress(self) -> InprogressTracker:
        """Adds 1 for as long as a block or function runs."""
        self._raise_if_not_observable()
        return InprogressTracker(self)

    def time(self) -> Timer:
        """Sets the value to the seconds that a block or function took."""
        return Timer(self, "set")

    def set_function(self, f: Callable[[], float]) -> None:
        """Has the value be what a function returns when the page is made; of this process alone."""
        self._raise_if_not_observable()

        def samples(_: Gauge) -> Iterable[Sample]:
            return (Sample("", {}, float(f())),)

        self._child_samples = types.MethodType(samples, self)  # type: ignore[method-assign]

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("", {}, self._value.get()),)


class _Part:
    """The sum, or the count of a bucket, of native observations, read and written apart."""

    __slots__ = ("_observations", "_bucket", "_exemplar")

    def __init__(self, observations: Any, bucket: Optional[int] = None) -> None:
        self._observations = observations
        self._bucket = bucket
        self._exemplar: Optional[Exemplar] = None

    def inc(self, amount: float) -> None:
        """Adds to this part alone. Many observations at once are a sum, and then a count."""
        if self._bucket is None:
            self._observations.add_sum(amount)
        else:
            self._observations.add_count(self._bucket, amount)

    def get(self) -> float:
        """What this process has."""
        if self._bucket is None:
            return float(self._observations.sum())
        return float(self._observations.counts()[self._bucket])

    def set_exemplar(self, exemplar: Optional[Exemplar]) -> None:
        """Keeps the last exemplar."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Optional[Exemplar]:
        """The last exemplar."""
        return self._exemplar


class Summary(MetricWrapperBase):
    """Count and sum of observations.

    >>> from qbus.prometheus_client import CollectorRegistry, Summary
    >>> registry = CollectorRegistry()
    >>> sizes = Summary("size_bytes", "Sizes of requests.", registry=registry)
    >>> sizes.observe(512)
    >>> registry.get_sample_value("size_bytes_count"), registry.get_sample_value("size_bytes_sum")
    (1.0, 512.0)
    """

    _type = "summary"
    _count: Any
    _sum: Any
    _reserved_labelnames = ("quantile",)

    def _metric_init(self) -> None:
        self._created = time.time()
        common = (self._labelnames, self._labelvalues, self._documentation)
        if not issubclass(values.ValueClass, values.MutexValue):
            of = values.ValueClass
            self._count = of(self._type, self._name, f"{self._name}_count", *common)
            self._sum = of(self._type, self._name, f"{self._name}_sum", *common)
            return
        series = _bus.Series(self._type, self._name, *common)
        observations = _qbus.Observations(series.handle(), [INF], lambda *_: None)
        self._on_bus = observations
        self._count, self._sum = _Part(observations, 0), _Part(observations)
        self._observe = observations.observe
        # Only a histogram's takes an exemplar.
        self._shorten("observe", observations.observe, Summary)

    def observe(self, amount: float) -> None:
        """Adds an observation."""
        self._raise_if_not_observable()
        self._count.inc(1)
        self._sum.inc(amount)

    def time(self) -> Timer:
        """Observes the seconds that a block or function took."""
        return Timer(self, "observe")

    def _child_samples(self) -> Iterable[Sample]:
        yield Sample("_count", {}, self._count.get())
        yield Sample("_sum", {}, self._sum.get())
        if _use_created:
            yield Sample("_created", {}, self._created)


class Histogram(MetricWrapperBase):
    """Observations counted in buckets.

    >>> from qbus.prometheus_client import CollectorRegistry, Histogram
    >>> registry = CollectorRegistry()
    >>> latency = Histogram("latency_seconds", "To answer.", registry=registry, buckets=[0.1, 1])
    >>> latency.observe(0.5)
    >>> registry.get_sample_value("latency_seconds_bucket", {"le": "1.0"})
    1.0
    """

    _type = "histogram"
    _sum: Any
    _reserved_labelnames = ("le",)
    DEFAULT_BUCKETS = (
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, INF,
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Optional[CollectorRegistry] = REGISTRY,
        _labelvalues: Optional[Sequence[str]] = None,
        buckets: Iterable[Union[float, str]] = DEFAULT_BUCKETS,
    ) -> None:
        buckets = tuple(buckets)
        self._prepare_buckets(buckets)
        super().__init__(
            name,
            documentation,
            labelnames,
            namespace,
            subsystem,
            unit,
            registry,
            _labelvalues,
        )
        self._kwargs["buckets"] = buckets

    def _prepare_buckets(self, source_buckets: Sequence[Union[float, str]]) -> None:
        bounds = [float(bound) for bound in source_buckets]
        if bounds != sorted(bounds):
            raise ValueError("Buckets not in sorted order")
        if bounds and bounds[-1] != INF:
            bounds.append(INF)
        if len(bounds) < 2:
            raise ValueError("Must have at least two buckets")
        self._upper_bounds = bounds

    def _metric_init(self) -> None:
        self._created = time.time()
        common = (self._labelnames, self._labelvalues, self._documentation)
        if not issubclass(values.ValueClass, values.MutexValue):
            of = values.ValueClass
            self._sum = of(self._type, self._name, f"{self._name}_sum", *common)
            self._buckets: list[Any] = [
                of(
                    self._type,
                    self._name,
                    f"{self._name}_bucket",
                    (*self._labelnames, "le"),
                    (*self._labelvalues, floatToGoString(bound)),
                    self._documentation,
                )
                for bound in self._upper_bounds
            ]
            return
        series = _bus.Series(
            self._type, self._name, *common, bounds=self._upper_bounds[:-1]
        )
        observations = _qbus.Observations(
            series.handle(), self._upper_bounds, self._keep_exemplar
        )
        self._on_bus = observations
        self._sum = _Part(observations)
        self._buckets = [_Part(observations, at) for at in range(len(self._upper_bounds))]
        self._shorten("observe", observations.observe, Histogram)

    def _keep_exemplar(self, exemplar: Mapping[str, str], amount: float, bucket: int) -> None:
        if exemplar and bucket < len(self._buckets):
            self._buckets[bucket].set_exemplar(_bus.exemplar(exemplar, amount))

    def observe(self, amount: float, exemplar: Optional[Mapping[str, str]] = None) -> None:
        """Adds an observation."""
        self._raise_if_not_observable()
        self._sum.inc(amount)
        for bucket, bound in enumerate(self._upper_bounds):
            if amount <= bound:
                self._buckets[bucket].inc(1)
                if exemplar:
                    self._keep_exemplar(exemplar, amount, bucket)
                break

    def time(self) -> Timer:
        """Observes the seconds that a block or function took."""
        return Timer(self, "observe")

    def _child_samples(self) -> Iterable[Sample]:
        total = 0.0
        for bound, bucket in zip(self._upper_bounds, self._buckets):
            total += bucket.get()
            le = {"le": floatToGoString(bound)}
            yield Sample("_bucket", le, total, None, bucket.get_exemplar())
        yield Sample("_count", {}, total)
        if self._upper_bounds[0] >= 0:
            yield Sample("_sum", {}, self._sum.get())
        if _use_created:
            yield Sample("_created", {}, self._created)


class Info(MetricWrapperBase):
    """Facts as labels, of this process.

    >>> from qbus.prometheus_client import CollectorRegistry, Info
    >>> registry = CollectorRegistry()
    >>> Info("build", "What was built.", registry=registry).info({"version": "1.2.3"})
    >>> registry.get_sample_value("build_info", {"version": "1.2.3"})
    1.0
    """

    _type = "info"

    def _metric_init(self) -> None:
        self._facts: dict[str, str] = {}

    def info(self, val: Mapping[str, str]) -> None:
        """States the facts."""
        both = set(self._labelnames).intersection(val)
        if both:
            raise ValueError(f"metric {self._name}: {sorted(both)} are labels already")
        if any(value is None for value in val.values()):
            raise ValueError(f"metric {self._name}: a fact is None, expected a string")
        self._facts = dict(val)

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("_info", self._facts, 1.0),)


class Enum(MetricWrapperBase):
    """Which of some states holds, in this process.

    >>> from qbus.prometheus_client import CollectorRegistry, Enum
    >>> registry = CollectorRegistry()
    >>> task = Enum("task", "Its state.", states=["starting", "running"], registry=registry)
    >>> task.state("running")
    >>> registry.get_sample_value("task", {"task": "running"})
    1
    """

    _type = "stateset"

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        namespace: str = "",
        subsystem: str = "",
        unit: str = "",
        registry: Optional[CollectorRegistry] = REGISTRY,
        _labelvalues: Optional[Sequence[str]] = None,
        states: Optional[Sequence[str]] = None,
    ) -> None:
        if name in labelnames:
            raise ValueError(f"metric {name}: its own name is no label")
        if not states:
            raise ValueError(f"metric {name}: an Enum has states")
        self._states = states
        super().__init__(
            name,
            documentation,
            labelnames,
            namespace,
            subsystem,
            unit,
            registry,
            _labelvalues,
        )
        self._kwargs["states"] = states

    def _metric_init(self) -> None:
        self._value = 0

    def state(self, state: str) -> None:
        """States which one holds."""
        self._raise_if_not_observable()
        self._value = self._states.index(state)

    def _child_samples(self) -> Iterable[Sample]:
        return [
            Sample("", {self._name: state}, int(at == self._value))
            for at, state in enumerate(self._states)
        ]
