"""What handles give as context managers and decorators, of functions of every kind.

One object can be used any number of times at once: each use has a time of its own.
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import Any, Optional, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _Around:
    """Does something before and after a block or a call."""

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        if inspect.iscoroutinefunction(function):
            return wrapped_async  # type: ignore[return-value]
        return wrapped  # type: ignore[return-value]

    def _again(self) -> "_Around":
        raise NotImplementedError

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        raise NotImplementedError


class Timer(_Around):
    """Hands the seconds of a block to ``take``."""

    def __init__(self, take: Callable[[float], None]) -> None:
        self._take = take
        # A block within a block of the same timer, and tasks that overlap, have starts of their own.
        self._starts: ContextVar[tuple[float, ...]] = ContextVar("starts", default=())

    def _again(self) -> "Timer":
        return Timer(self._take)

    def __enter__(self) -> "Timer":
        self._starts.set((*self._starts.get(), perf_counter()))
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        *outer, start = self._starts.get()
        self._starts.set(tuple(outer))
        self._take(perf_counter() - start)


class InprogressTracker(_Around):
    """Adds 1 for as long as a block runs."""

    def __init__(self, inc: Callable[[], None], dec: Callable[[], None]) -> None:
        self._inc = inc
        self._dec = dec

    def _again(self) -> "InprogressTracker":
        return self

    def __enter__(self) -> None:
        self._inc()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._dec()


class ExceptionCounter(_Around):
    """Counts the exceptions of a block, and lets them go on."""

    def __init__(
        self,
        inc: Callable[[], None],
        exception: type[BaseException] | tuple[type[BaseException], ...],
    ) -> None:
        self._inc = inc
        self._exception = exception

    def _again(self) -> "ExceptionCounter":
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if isinstance(error, self._exception):
            self._inc()
