"""Exceptions and the warning. Each exception is also of the builtin class that fits it."""


class QbusError(Exception):
    """The base of all exceptions of this package.

    >>> all(issubclass(error, QbusError) for error in (MetricError, ArgumentError, BusError))
    True
    """


class MetricError(QbusError, ValueError):
    """A metric, a label, a value or an option that cannot be.

    >>> import qbus
    >>> qbus.Gauge("1st")
    Traceback (most recent call last):
        ...
    qbus.MetricError: "1st" is no metric name: expected [a-zA-Z_:][a-zA-Z0-9_:]*, at most 255 bytes
    """


class ArgumentError(QbusError, TypeError):
    """An argument of the wrong type; the message names it.

    >>> import qbus
    >>> qbus.Gauge("room_temperature").set("warm")
    Traceback (most recent call last):
        ...
    qbus.ArgumentError: argument "value" is 'warm' (str), expected a number
    """


class BusError(QbusError, OSError):
    """A bus, a snapshot or a file that cannot be used.

    >>> import qbus
    >>> try:
    ...     qbus.snapshot("/no/such/bus")
    ... except BusError as error:
    ...     isinstance(error, OSError)
    True
    """


class TrackerError(QbusError, ValueError, KeyError):
    """A performance tracker that does not run.

    >>> import qbus
    >>> try:
    ...     qbus.end_performance_tracking("load")
    ... except TrackerError as error:
    ...     print(error)
    no performance tracker "load" is running: it was not started, or ended already
    """

    def __str__(self) -> str:
        # A KeyError would show the message in quotes.
        return Exception.__str__(self)


class RefusedWarning(RuntimeWarning):
    """Something found no room and is lost. Given once for each cause; get_statistics() counts.

    >>> import warnings
    >>> warnings.simplefilter("ignore", RefusedWarning)  # for who looks at the counts
    """


for _class in (QbusError, MetricError, ArgumentError, BusError, TrackerError, RefusedWarning):
    _class.__module__ = "qbus"
del _class
