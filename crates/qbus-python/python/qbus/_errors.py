"""Exceptions and the warning. Each exception is also of the builtin class that fits it."""


class QbusError(Exception):
    """The base of all exceptions of this package."""


class MetricError(QbusError, ValueError):
    """A metric, a label, a value or an option that cannot be."""


class ArgumentError(QbusError, TypeError):
    """An argument of the wrong type; the message names it."""


class BusError(QbusError, OSError):
    """A bus, a snapshot or a file that cannot be used."""


class TrackerError(QbusError, ValueError, KeyError):
    """A performance tracker that does not run."""

    # A KeyError would show the message in quotes.
    __str__ = Exception.__str__


class RefusedWarning(RuntimeWarning):
    """Something found no room and is lost. Given once for each cause; get_statistics() counts."""


for _class in (QbusError, MetricError, ArgumentError, BusError, TrackerError, RefusedWarning):
    _class.__module__ = "qbus"
del _class
