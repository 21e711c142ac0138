"""Timers, trackers and exception counters of metrics."""

from time import perf_counter
from types import TracebackType
from typing import Any, Literal, Optional, Union

from qbus._timing import decorate

_Class = Optional[type[BaseException]]


class _Around:
    def __call__(self, f: Any) -> Any:
        return decorate(self, f)

    def _again(self) -> Any:
        return self

    def _abandon(self) -> None:
        pass


class ExceptionCounter(_Around):
    """Counts the exceptions of a block or function."""

    def __init__(
        self, counter: Any, exception: Union[type[BaseException], tuple[type[BaseException], ...]]
    ) -> None:
        self._counter = counter
        self._exception = exception

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, typ: _Class, value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> Literal[False]:
        if isinstance(value, self._exception):
            self._counter.inc()
        return False


class InprogressTracker(_Around):
    """Adds 1 to a gauge for as long as a block or function runs."""

    def __init__(self, gauge: Any) -> None:
        self._gauge = gauge

    def __enter__(self) -> None:
        self._gauge.inc()

    def __exit__(
        self, typ: _Class, value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._gauge.dec()


class Timer(_Around):
    """Hands the seconds of a block or function to a metric."""

    def __init__(self, metric: Any, callback_name: str) -> None:
        self._metric = metric
        self._callback_name = callback_name
        self._start: Optional[float] = None
        self.duration: Optional[float] = None

    def _again(self) -> "Timer":
        return self.__class__(self._metric, self._callback_name)

    _new_timer = _again

    def _abandon(self) -> None:
        self._start = None

    def __enter__(self) -> "Timer":
        self._start = perf_counter()
        return self

    def __exit__(
        self, typ: _Class, value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        if self._start is not None:
            self.duration = max(perf_counter() - self._start, 0)
            getattr(self._metric, self._callback_name)(self.duration)

    def labels(self, *args: object, **kw: object) -> None:
        """Which series of the metric it is for: known only inside of the block, often."""
        self._metric = self._metric.labels(*args, **kw)
