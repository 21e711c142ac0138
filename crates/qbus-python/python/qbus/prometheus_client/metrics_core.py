"""Metrics as collectors give them: a name with samples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, Union

from .samples import Exemplar, NativeHistogram, Sample, Timestamp
from .validation import METRIC_LABEL_NAME_RE as METRIC_LABEL_NAME_RE
from .validation import METRIC_NAME_RE as METRIC_NAME_RE
from .validation import RESERVED_METRIC_LABEL_NAME_RE as RESERVED_METRIC_LABEL_NAME_RE
from .validation import _validate_metric_name

METRIC_TYPES = (
    "counter",
    "gauge",
    "summary",
    "histogram",
    "gaugehistogram",
    "unknown",
    "info",
    "stateset",
)
_Time = Optional[Union[Timestamp, float]]
_Bucket = Union[tuple[str, float], tuple[str, float, Exemplar]]


class Metric:
    """A name with its type, help, unit and samples.

    >>> metric = Metric("disk_free", "Free space.", "gauge", "bytes")
    >>> metric.add_sample("disk_free_bytes", {"disk": "sda"}, 512)
    >>> metric.name, metric.samples[0].value
    ('disk_free_bytes', 512)
    """

    def __init__(self, name: str, documentation: str, typ: str, unit: str = "") -> None:
        if unit and not name.endswith(f"_{unit}"):
            name = f"{name}_{unit}"
        _validate_metric_name(name)
        typ = "unknown" if typ == "untyped" else typ
        if typ not in METRIC_TYPES:
            raise ValueError(f"Invalid metric type: {typ}")
        self.name = name
        self.documentation = documentation
        self.unit = unit
        self.type = typ
        self.samples: list[Sample] = []

    def add_sample(
        self,
        name: str,
        labels: dict[str, str],
        value: float,
        timestamp: _Time = None,
        exemplar: Optional[Exemplar] = None,
        native_histogram: Optional[NativeHistogram] = None,
    ) -> None:
        """Adds a sample as it is."""
        self.samples.append(Sample(name, labels, value, timestamp, exemplar, native_histogram))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metric) and all(
            getattr(self, part) == getattr(other, part)
            for part in ("name", "documentation", "type", "unit", "samples")
        )

    def __repr__(self) -> str:
        return (
            f"Metric({self.name}, {self.documentation}, {self.type}, {self.unit}, {self.samples})"
        )

    def _restricted_metric(self, names: Iterable[str]) -> Optional["Metric"]:
        kept = [sample for sample in self.samples if sample.name in names]
        if not kept:
            return None
        restricted = Metric(self.name, self.documentation, self.type)
        restricted.samples = kept
        return restricted


class _Family(Metric):
    """What the families of custom collectors share."""

    _of_type = ""
    #: What is given in place of labels.
    _given = "value"

    def _begin(
        self,
        name: str,
        documentation: str,
        labels: Optional[Sequence[str]],
        has_value: bool,
        unit: str = "",
    ) -> None:
        Metric.__init__(self, name, documentation, self._of_type, unit)
        if labels is not None and has_value:
            raise ValueError(f"Can only specify at most one of {self._given} and labels.")
        self._labelnames = tuple(labels or ())

    def _add(
        self,
        suffix: str,
        labels: Sequence[str],
        value: Any,
        timestamp: _Time = None,
        exemplar: Optional[Exemplar] = None,
        more: Optional[Mapping[str, str]] = None,
    ) -> None:
        pairs = {**dict(zip(self._labelnames, labels)), **(more or {})}
        self.samples.append(Sample(self.name + suffix, pairs, value, timestamp, exemplar))


class _ValueFamily(_Family):
    def __init__(
        self,
        name: str,
        documentation: str,
        value: Optional[float] = None,
        labels: Optional[Sequence[str]] = None,
        unit: str = "",
    ) -> None:
        self._begin(name, documentation, labels, value is not None, unit)
        if value is not None:
            self.add_metric([], value)

    def add_metric(self, labels: Sequence[str], value: float, timestamp: _Time = None) -> None:
        """Adds the value of some label values."""
        self._add("", labels, value, timestamp)


class UnknownMetricFamily(_ValueFamily):
    """Values of no known type."""

    _of_type = "unknown"


UntypedMetricFamily = UnknownMetricFamily


class GaugeMetricFamily(_ValueFamily):
    """Values that go up and down."""

    _of_type = "gauge"


class CounterMetricFamily(_Family):
    """Sums that only grow."""

    _of_type = "counter"

    def __init__(
        self,
        name: str,
        documentation: str,
        value: Optional[float] = None,
        labels: Optional[Sequence[str]] = None,
        created: Optional[float] = None,
        unit: str = "",
        exemplar: Optional[Exemplar] = None,
    ) -> None:
        self._begin(name.removesuffix("_total"), documentation, labels, value is not None, unit)
        if value is not None:
            self.add_metric([], value, created, exemplar=exemplar)

    def add_metric(
        self,
        labels: Sequence[str],
        value: float,
        created: Optional[float] = None,
        timestamp: _Time = None,
        exemplar: Optional[Exemplar] = None,
    ) -> None:
        """Adds the sum of some label values, and since when it is counted."""
        self._add("_total", labels, value, timestamp, exemplar)
        if created is not None:
            self._add("_created", labels, created, timestamp)


class SummaryMetricFamily(_Family):
    """Counts and sums of observations."""

    _of_type = "summary"

    def __init__(
        self,
        name: str,
        documentation: str,
        count_value: Optional[int] = None,
        sum_value: Optional[float] = None,
        labels: Optional[Sequence[str]] = None,
        unit: str = "",
    ) -> None:
        if (count_value is None) != (sum_value is None):
            raise ValueError("count_value and sum_value must be provided together.")
        self._begin(name, documentation, labels, count_value is not None, unit)
        if count_value is not None and sum_value is not None:
            self.add_metric([], count_value, sum_value)

    def add_metric(
        self, labels: Sequence[str], count_value: int, sum_value: float, timestamp: _Time = None
    ) -> None:
        """Adds count and sum of some label values."""
        self._add("_count", labels, count_value, timestamp)
        self._add("_sum", labels, sum_value, timestamp)


class HistogramMetricFamily(_Family):
    """Observations counted in buckets."""

    _of_type = "histogram"
    _given = "buckets"

    def __init__(
        self,
        name: str,
        documentation: str,
        buckets: Optional[Sequence[_Bucket]] = None,
        sum_value: Optional[float] = None,
        labels: Optional[Sequence[str]] = None,
        unit: str = "",
    ) -> None:
        if sum_value is not None and buckets is None:
            raise ValueError("sum value cannot be provided without buckets.")
        self._begin(name, documentation, labels, buckets is not None, unit)
        if buckets is not None:
            self.add_metric([], buckets, sum_value)

    def add_metric(
        self,
        labels: Sequence[str],
        buckets: Sequence[_Bucket],
        sum_value: Optional[float],
        timestamp: _Time = None,
    ) -> None:
        """Adds cumulative counts by bound, ``+Inf`` last, each with an exemplar if it has one."""
        for bound, value, *rest in buckets:
            exemplar: Any = rest[0] if rest else None
            self._add("_bucket", labels, value, timestamp, exemplar, {"le": bound})
        # A sum over negative observations is no counter.
        if float(buckets[0][0]) >= 0 and sum_value is not None:
            self._add("_count", labels, buckets[-1][1], timestamp)
            self._add("_sum", labels, sum_value, timestamp)


class GaugeHistogramMetricFamily(_Family):
    """Counts in buckets that go up and down."""

    _of_type = "gaugehistogram"
    _given = "buckets"

    def __init__(
        self,
        name: str,
        documentation: str,
        buckets: Optional[Sequence[tuple[str, float]]] = None,
        gsum_value: Optional[float] = None,
        labels: Optional[Sequence[str]] = None,
        unit: str = "",
    ) -> None:
        self._begin(name, documentation, labels, buckets is not None, unit)
        if buckets is not None:
            self.add_metric([], buckets, gsum_value)

    def add_metric(
        self,
        labels: Sequence[str],
        buckets: Sequence[tuple[str, float]],
        gsum_value: Optional[float],
        timestamp: _Time = None,
    ) -> None:
        """Adds cumulative counts by bound, ``+Inf`` last."""
        for bound, value in buckets:
            self._add("_bucket", labels, value, timestamp, None, {"le": bound})
        self._add("_gcount", labels, buckets[-1][1], timestamp)
        self._add("_gsum", labels, gsum_value, timestamp)


class InfoMetricFamily(_Family):
    """Facts as labels."""

    _of_type = "info"

    def __init__(
        self,
        name: str,
        documentation: str,
        value: Optional[Mapping[str, str]] = None,
        labels: Optional[Sequence[str]] = None,
    ) -> None:
        self._begin(name, documentation, labels, value is not None)
        if value is not None:
            self.add_metric([], value)

    def add_metric(
        self, labels: Sequence[str], value: Mapping[str, str], timestamp: _Time = None
    ) -> None:
        """Adds the facts of some label values."""
        self._add("_info", labels, 1, timestamp, None, value)


class StateSetMetricFamily(_Family):
    """Which of some states hold."""

    _of_type = "stateset"

    def __init__(
        self,
        name: str,
        documentation: str,
        value: Optional[Mapping[str, bool]] = None,
        labels: Optional[Sequence[str]] = None,
    ) -> None:
        self._begin(name, documentation, labels, value is not None)
        if value is not None:
            self.add_metric([], value)

    def add_metric(
        self, labels: Sequence[str], value: Mapping[str, bool], timestamp: _Time = None
    ) -> None:
        """Adds states, each with whether it holds."""
        for state, holds in sorted(value.items()):
            self._add("", labels, 1 if holds else 0, timestamp, None, {self.name: state})
