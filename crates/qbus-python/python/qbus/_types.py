"""Plain types that the native module shares with Python code."""

from enum import Enum

#: The content type of what generate_latest() gives.
CONTENT_TYPE_LATEST = "text/plain; version=0.0.4; charset=utf-8"


class MetricType(str, Enum):
    """What becomes of the values of a name.

    >>> MetricType.GAUGE.value
    'gauge'
    """

    #: A sum that only grows; values are increments.
    COUNTER = "counter"
    #: A value that goes up and down; the last one counts.
    GAUGE = "gauge"
    #: Observations counted in buckets.
    HISTOGRAM = "histogram"
    #: Observations whose quantiles are kept.
    SUMMARY = "summary"
    #: A value of which nobody says how it behaves; kept as a gauge is.
    UNTYPED = "untyped"

    def __str__(self) -> str:
        return str(self.value)
