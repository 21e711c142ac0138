"""What prometheus_client's module of that name is used for."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Optional


class ArgSpec(NamedTuple):
    """The arguments of a function, seen through its decorators."""

    args: list[str]
    varargs: Optional[str]
    varkw: Optional[str]
    defaults: Optional[tuple[Any, ...]]


def getargspec(f: Callable[..., Any]) -> ArgSpec:
    """The arguments of a function, seen through its decorators."""
    found = inspect.getfullargspec(inspect.unwrap(f))
    return ArgSpec(found.args, found.varargs, found.varkw, found.defaults)


def decorate(func: Callable[..., Any], caller: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls ``caller(func, …)``."""

    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return caller(func, *args, **kwargs)

    return wrapped
