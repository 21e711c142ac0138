"""Decorators: what a timer, an in-progress tracker or an exception counter does around a function.

A function is anything that can be called. What counts is the time until it is done: until a
coroutine returned, a generator was exhausted or closed. A class stays a class, and its construction
counts.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Optional

#: Starts of blocks that are open twice at once, of all timers: a chain (timer, start, rest). One
#: variable for all, since the interpreter never forgets one.
STARTS: ContextVar[Optional[tuple[Any, ...]]] = ContextVar("qbus starts", default=None)


def again(handle: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """What a pickled timer, tracker or counter becomes: the same of the same handle."""
    return getattr(handle, method)(*arguments)


def decorate(around: Any, function: Any) -> Any:
    """Wraps whatever can be called."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorate(around, function.__func__))
    if inspect.isclass(function):
        return _class(around, function)
    # The `__call__` of an object says what kind of function it is.
    called = function
    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called):
        called = getattr(called, "__call__", called)
    if inspect.isasyncgenfunction(called):
        return _async_generator_function(around, function)
    if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(function):
        return _coroutine_function(around, function)
    if inspect.isgeneratorfunction(called):
        return _generator_function(around, function)
    return _function(around, function)


def _class(around: Any, cls: Any) -> Any:
    try:
        cls.__init__ = _function(around, cls.__init__)
    except TypeError:
        # A class of C takes no attributes.
        return _function(around, cls)
    return cls


def _function(around: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        context = around._again()
        with context:
            result = function(*args, **kwargs)
            go_on = _UNFINISHED.get(type(result))
            if go_on is None:
                return result
            context._abandon()
        # Nothing of it has run yet: it counts from its first step on.
        return go_on(around, result)

    return wrapped


def _coroutine_function(around: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        with around._again():
            return await function(*args, **kwargs)

    return wrapped


def _generator_function(around: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with around._again():
            return (yield from function(*args, **kwargs))

    return wrapped


def _async_generator_function(around: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = function(*args, **kwargs)
        with around._again():
            try:
                item = await steps.__anext__()
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        item = await steps.athrow(error)
                    else:
                        item = await steps.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await steps.aclose()

    return wrapped


#: What a function may return that runs only later, and how it is then counted.
_UNFINISHED: dict[type, Callable[[Any, Any], Any]] = {
    GeneratorType: lambda around, steps: _generator_function(around, lambda: steps)(),
    CoroutineType: lambda around, rest: _coroutine_function(around, lambda: rest)(),
    AsyncGeneratorType: lambda around, steps: _async_generator_function(around, lambda: steps)(),
}
