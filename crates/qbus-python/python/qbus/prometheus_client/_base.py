"""What all metrics share: the family of the series of a metric, and each series by itself."""

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Optional, TypeVar

from qbus import _qbus

from . import _bus
from .metrics_core import Metric
from .registry import REGISTRY, Collector, CollectorRegistry
from .samples import Sample
from .validation import _validate_labelnames, _validate_metric_name

T = TypeVar("T", bound="MetricWrapperBase")
F = TypeVar("F", bound=Callable[..., Any])

#: The methods that a native one stands in for, by name, as this package defines them.
_HAVE_NATIVE: dict[str, list[Any]] = {}


def has_native(method: F) -> F:
    """Marks a method that a native one may stand in for, as long as it is this one."""
    _HAVE_NATIVE.setdefault(method.__name__, []).append(method)
    return method


class Replaceable:
    """A value of a metric, kept among its attributes. When a program puts another in its place, the
    metric's own methods use that one."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    # Without __get__ it is read as any attribute is.
    def __set__(self, metric: "MetricWrapperBase", value: Any) -> None:
        metric.__dict__[self._name] = value
        metric._on_bus = None
        metric._use_native({})


class _MetricType(type(Collector)):  # type: ignore[misc]
    """Notices that a program replaces a method of a class, as tests do with a mock: metrics that
    were made before call what it put there, and the native method again when it is taken back."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        cls._look_again(name)

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        cls._look_again(name)

    def _look_again(cls, name: str) -> None:
        if name in _HAVE_NATIVE:
            # Seldom, and nobody pays for it until then: metrics are in no list of their own.
            for found in gc.get_objects():
                if isinstance(type(found), _MetricType) and issubclass(type(found), cls):
                    found._choose_method(name)


def _build_full_name(
    metric_type: Optional[str], name: str, namespace: str, subsystem: str, unit: str
) -> str:
    if not name:
        raise ValueError("Metric name should not be empty")
    full = "_".join(part for part in (namespace, subsystem, name) if part)
    if metric_type == "counter":
        full = full.removesuffix("_total")
    if unit and metric_type in ("info", "stateset"):
        raise ValueError(f"Metric name is of a type that cannot have a unit: {full}")
    if unit and not full.endswith(f"_{unit}"):
        full = f"{full}_{unit}"
    return full


class MetricWrapperBase(Collector, metaclass=_MetricType):
    """A metric, or with labels: the family of its series."""

    _type: Optional[str] = None
    _reserved_labelnames: Sequence[str] = ()
    #: What of it is on the bus.
    _on_bus: Any = None
    #: Its series, if it is not a value's own.
    _series: Optional[_bus.Series] = None
    #: Stand in for its own methods of these names.
    _native_methods: Mapping[str, Callable[..., None]] = {}

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
                f"{self._type} metric is missing label values: call labels() of {self._name} first"
            )

    def _metric_init(self) -> None:
        raise NotImplementedError(f"_metric_init() must be implemented by {self!r}")

    def _child_samples(self) -> Iterable[Sample]:
        raise NotImplementedError(f"_child_samples() must be implemented by {self!r}")

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
        # A copy of the dict would take ten times as long, in one go.
        with self._lock:
            known = list(self._metrics)
        for labelvalues in known:
            child = self._metrics.get(labelvalues)
            if child is None:
                continue
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
            # A tuple of strings that is known needs no lock. Others may be equal to a string that
            # they are not shown as: members of an enum.
            try:
                child: Optional[T] = _qbus.known_child(self._metrics, labelvalues)
            except (AttributeError, TypeError):
                child = None
            if child is not None:
                return child
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
            raise ValueError("Can't pass both *args and **kwargs")
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

    def _announce(self, registry: Optional[CollectorRegistry]) -> None:
        """Has it be on the pages of all processes of a bus with a name. None is the default
        registry."""
        if self._type in ("counter", "gauge", "histogram", "summary"):
            _bus.register(self._name, registry)

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
        if self._series is not None:
            self._series.forgotten()

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
            raise TypeError("labels must be a dict of {label_name: label_value}")
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

    def _use_native(self, methods: Mapping[str, Callable[..., None]]) -> None:
        for name, native in self._native_methods.items():
            if self.__dict__.get(name) is native:
                del self.__dict__[name]
        self._native_methods = methods
        for name in methods:
            self._choose_method(name)

    def _choose_method(self, name: str) -> None:
        """Has the native method stand in for that of the class, unless a subclass or a test made
        that its own."""
        native = self._native_methods.get(name)
        method = getattr(type(self), name)
        if native is None:
            return
        if any(method is known for known in _HAVE_NATIVE[name]):
            self.__dict__.setdefault(name, native)
        elif self.__dict__.get(name) is native:
            del self.__dict__[name]
