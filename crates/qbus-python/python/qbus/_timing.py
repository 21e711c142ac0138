"""Decorators: what a timer, an in-progress tracker or an exception counter does around a function.

A function is anything that can be called. What counts is the time until it is done: until a
coroutine returned, a generator was exhausted or closed. A class stays a class, and its construction
counts.
"""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Optional

from qbus._errors import ArgumentError

#: Starts of blocks that are open twice at once, of all timers: a chain (timer, start, rest). One
#: variable for all, since the interpreter never forgets one.
STARTS: ContextVar[Optional[tuple[Any, ...]]] = ContextVar("qbus starts", default=None)


def again(handle: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    """What a pickled timer, tracker or counter becomes: the same of the same handle."""
    return getattr(handle, method)(*arguments)


async def enter(around: Any) -> Any:
    """What `async with` asks for."""
    return around.__enter__()


async def leave(around: Any, *raised: Any) -> Any:
    """What `async with` asks for."""
    return around.__exit__(*raised)


def decorate(around: Any, function: Any) -> Any:
    """Wraps whatever can be called, and what stands for it in a class."""
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(decorate(around, function.__func__))
    if isinstance(function, property):
        return function.getter(decorate(around, function.fget))
    if isinstance(function, functools.cached_property):
        return functools.cached_property(decorate(around, function.func))
    if isinstance(function, functools.partialmethod):
        method = decorate(around, function.func)
        return functools.partialmethod(method, *function.args, **function.keywords)
    if inspect.isclass(function):
        return _class(around, function)
    if not callable(function):
        raise ArgumentError(f"{function!r:.60} cannot be called, so it cannot be decorated")
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
        return _generator_function(around, function, called.__code__)
    return _function(around, function)


def _class(around: Any, cls: Any) -> Any:
    try:
        # That of `object` takes no arguments, and refuses them as soon as it is another one's.
        if cls.__init__ is object.__init__:
            cls.__new__ = staticmethod(_constructor(around, cls.__new__))
        else:
            cls.__init__ = _function(around, cls.__init__)
    except TypeError:
        # A class of C takes no attributes.
        return _function(around, cls)
    return cls


def _constructor(around: Any, make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def wrapped(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with around._again():
            if make is not object.__new__:
                return make(cls, *args, **kwargs)
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            return make(cls)

    return wrapped


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


def _generator_function(
    around: Any, function: Callable[..., Any], code: types.CodeType
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with around._again():
            return (yield from function(*args, **kwargs))

    # One that can be awaited, since `types.coroutine` made it.
    is_awaitable = code.co_flags & inspect.CO_ITERABLE_COROUTINE
    return types.coroutine(wrapped) if is_awaitable else wrapped


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
    GeneratorType: lambda around, steps: _generator_function(
        around, lambda: steps, steps.gi_code
    )(),
    CoroutineType: lambda around, rest: _coroutine_function(around, lambda: rest)(),
    AsyncGeneratorType: lambda around, steps: _async_generator_function(around, lambda: steps)(),
}
