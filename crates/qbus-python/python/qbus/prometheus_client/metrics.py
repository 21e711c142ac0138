"""The metrics: counters, gauges, summaries, histograms, facts and states."""

import os
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Optional, Union

from qbus import _qbus

from . import _bus, values
from ._base import MetricWrapperBase, Replaceable, has_native
from ._base import _build_full_name as _build_full_name
from .context_managers import ExceptionCounter, InprogressTracker, Timer
from .metrics_core import Metric as Metric
from .registry import REGISTRY, CollectorRegistry
from .registry import Collector as Collector
from .samples import Exemplar, Sample
from .utils import INF, floatToGoString
from .validation import _validate_exemplar
from .validation import _validate_labelname as _validate_labelname
from .validation import _validate_labelnames as _validate_labelnames
from .validation import _validate_metric_name as _validate_metric_name

# It is called as prometheus_client calls it, by whoever prints it.
MetricWrapperBase.__module__ = __name__


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
    _value: Any = Replaceable()

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
            self._use_native({"inc": self._value._native.inc})

    @has_native
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
    return values.is_own(type(value)) and identify is os.getpid


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
    _value: Any = Replaceable()
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
            native = self._value._native
            self._use_native({"inc": native.inc, "dec": native.dec, "set": native.set})

    def _announce(self, registry: Optional[CollectorRegistry]) -> None:
        # Of each process its own is shown.
        is_own = self._multiprocess_mode.endswith("all")
        _bus.keep_own(self._name, is_own)
        if not is_own:
            super()._announce(registry)

    def _raise_if_most_recent(self, method: str) -> None:
        if self._is_most_recent:
            raise RuntimeError(f"{method} must not be used with the mostrecent mode: only set")

    @has_native
    def inc(self, amount: float = 1) -> None:
        """Adds an amount."""
        self._raise_if_most_recent("inc")
        self._raise_if_not_observable()
        self._value.inc(amount)

    @has_native
    def dec(self, amount: float = 1) -> None:
        """Subtracts an amount."""
        self._raise_if_most_recent("dec")
        self._raise_if_not_observable()
        self._value.inc(-amount)

    @has_native
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

        _bus.keep_own(self._name, True)
        self._child_samples = types.MethodType(samples, self)  # type: ignore[method-assign]

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("", {}, self._value.get()),)


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
    _count: Any = Replaceable()
    _sum: Any = Replaceable()
    _reserved_labelnames = ("quantile",)

    def _metric_init(self) -> None:
        self._created = time.time()
        common = (self._labelnames, self._labelvalues, self._documentation)
        if not values.is_own(values.ValueClass):
            of = values.ValueClass
            self._count = of(self._type, self._name, f"{self._name}_count", *common)
            self._sum = of(self._type, self._name, f"{self._name}_sum", *common)
            return
        self._series = _bus.Series(self._type, self._name, *common)
        observations = _qbus.Observations(self._series.handle(), [INF], lambda *_: None)
        self._count = values.ObservedValue(observations, 0)
        self._sum = values.ObservedValue(observations)
        self._on_bus = observations
        # Only a histogram's takes an exemplar.
        self._use_native({"observe": observations.observe})

    @has_native
    def observe(self, amount: float) -> None:
        """Adds an observation."""
        self._raise_if_not_observable()
        if self._on_bus is not None:
            self._on_bus.observe(amount)
            return
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
    _sum: Any = Replaceable()
    _buckets: Any = Replaceable()
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
        buckets = buckets if isinstance(buckets, Sequence) else tuple(buckets)
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
        if not values.is_own(values.ValueClass):
            of = values.ValueClass
            self._sum = of(self._type, self._name, f"{self._name}_sum", *common)
            self._buckets = [
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
        self._series = _bus.Series(
            self._type, self._name, *common, bounds=self._upper_bounds[:-1]
        )
        observations = _qbus.Observations(
            self._series.handle(), self._upper_bounds, self._keep_exemplar
        )
        self._sum = values.ObservedValue(observations)
        self._buckets = [
            values.ObservedValue(observations, at) for at in range(len(self._upper_bounds))
        ]
        self._on_bus = observations
        self._use_native({"observe": observations.observe})

    def _keep_exemplar(self, exemplar: Mapping[str, str], amount: float, bucket: int) -> None:
        if exemplar and bucket < len(self._buckets):
            self._buckets[bucket].set_exemplar(_bus.exemplar(exemplar, amount))

    @has_native
    def observe(self, amount: float, exemplar: Optional[Mapping[str, str]] = None) -> None:
        """Adds an observation."""
        self._raise_if_not_observable()
        if self._on_bus is not None:
            self._on_bus.observe(amount, exemplar)
            return
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
        self._labelname_set = set(self._labelnames)
        self._lock = Lock()
        self._value: dict[str, str] = {}

    def info(self, val: Mapping[str, str]) -> None:
        """States the facts."""
        both = self._labelname_set.intersection(val)
        if both:
            raise ValueError(
                f"Overlapping labels for Info metric, metric: {self._name}: {sorted(both)}"
            )
        if any(value is None for value in val.values()):
            raise ValueError(f"Label value cannot be None: a fact of metric {self._name}")
        with self._lock:
            self._value = dict(val)

    def _child_samples(self) -> Iterable[Sample]:
        return (Sample("_info", self._value, 1.0),)


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
            raise ValueError(f"Overlapping labels for Enum metric: {name}")
        if not states:
            raise ValueError(f"No states provided for Enum metric: {name}")
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
        self._lock = Lock()
        self._value = 0

    def state(self, state: str) -> None:
        """States which one holds."""
        self._raise_if_not_observable()
        with self._lock:
            self._value = self._states.index(state)

    def _child_samples(self) -> Iterable[Sample]:
        return [
            Sample("", {self._name: state}, int(at == self._value))
            for at, state in enumerate(self._states)
        ]
