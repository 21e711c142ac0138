"""Timers, trackers and counters around blocks and functions of every kind."""

import asyncio
import contextlib
import functools
import pickle
import sys
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import pytest
from processes_scene import until

import qbus
from qbus import Counter, Gauge, Histogram, MetricsCollector

LONG = 0.02


@pytest.fixture
def seconds(collector: MetricsCollector) -> Histogram:
    return Histogram("took_seconds", registry=collector)


def taken(collector: MetricsCollector) -> tuple[int, float]:
    found = collector.get_metric("took_seconds")
    return (found.count or 0, found.sum or 0) if found else (0, 0)


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_a_million_uses_take_no_memory(collector: MetricsCollector) -> None:
    histogram = Histogram("took_seconds", registry=collector)
    gauge = Gauge("running", registry=collector)
    counter = Counter("failed", registry=collector)
    shared = histogram.time()

    def use() -> None:
        for _ in range(100_000):
            with histogram.time(), gauge.track_inprogress(), counter.count_exceptions():
                pass
            with shared, shared:
                pass

    use()
    before = resident_bytes()
    use()
    # It was 75 bytes for each use.
    assert resident_bytes() - before < 2_000_000


def test_a_generator_counts_until_it_is_exhausted_or_closed(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    @seconds.time()
    def tokens(n: int) -> Iterator[int]:
        for token in range(n):
            time.sleep(LONG)
            yield token

    @seconds.time()
    def returned(n: int) -> Any:
        return (time.sleep(LONG) or token for token in range(n))

    for make in (tokens, returned):
        before = taken(collector)
        assert list(make(2)) == [0, 1]
        count, total = taken(collector)
        assert count == before[0] + 1
        assert 2 * LONG <= total - before[1] < 60
        closed = make(5)
        next(closed)
        closed.close()
        assert taken(collector)[0] == before[0] + 2
        assert taken(collector)[1] - total >= LONG


def test_a_generator_gets_what_it_is_sent(seconds: Histogram) -> None:
    @seconds.time()
    def echo() -> Any:
        got = yield 1
        try:
            got = yield got
        except KeyError:
            got = yield "thrown"
        return got

    steps = echo()
    assert next(steps) == 1
    assert steps.send("sent") == "sent"
    assert steps.throw(KeyError) == "thrown"
    with pytest.raises(StopIteration) as ended:
        steps.send("last")
    assert ended.value.value == "last"


def test_an_async_generator_counts_until_it_is_exhausted_or_closed(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    inside = Gauge("inside", registry=collector)

    def current() -> float:
        found = collector.get_metric("inside")
        return found.value if found else 0

    @seconds.time()
    @inside.track_inprogress()
    async def tokens(n: int) -> AsyncIterator[int]:
        for token in range(n):
            await asyncio.sleep(LONG)
            yield token

    async def use() -> None:
        assert [token async for token in tokens(2)] == [0, 1]
        count, total = taken(collector)
        assert count == 1 and 2 * LONG * 0.9 <= total < 60
        steps: Any = tokens(5)
        assert await anext(steps) == 0
        assert current() == 1
        await steps.aclose()
        assert taken(collector)[0] == 2
        assert current() == 0

    asyncio.run(use())


def test_exceptions_of_generators_and_coroutines(collector: MetricsCollector) -> None:
    failed = Counter("failed", registry=collector)

    @failed.count_exceptions(ValueError)
    def generator() -> Iterator[int]:
        yield 1
        raise ValueError

    @failed.count_exceptions(ValueError)
    async def coroutine() -> None:
        await asyncio.sleep(0)
        raise ValueError

    @failed.count_exceptions(ValueError)
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        raise ValueError

    async def exhaust() -> None:
        async for _ in asynchronous():
            pass

    steps = generator()
    next(steps)
    for fails in (
        lambda: next(steps),
        lambda: asyncio.run(coroutine()),
        lambda: asyncio.run(exhaust()),
    ):
        with pytest.raises(ValueError):
            fails()
    found = collector.get_metric("failed_total")
    assert found is not None and found.value == 3


class Task:
    """Whatever can be called."""

    def __call__(self) -> str:
        time.sleep(LONG)
        return "object"

    def method(self) -> str:
        time.sleep(LONG)
        return "method"


class AsyncTask:
    async def __call__(self) -> str:
        await asyncio.sleep(LONG)
        return "async object"


async def slow(word: str) -> str:
    await asyncio.sleep(LONG)
    return word


def test_whatever_can_be_called(collector: MetricsCollector, seconds: Histogram) -> None:
    around: Callable[[Any], Any] = seconds.time()

    class Methods:
        @seconds.time()
        @classmethod
        def of_class(cls) -> str:
            time.sleep(LONG)
            return cls.__name__

        @seconds.time()
        @staticmethod
        def of_nobody() -> str:
            time.sleep(LONG)
            return "static"

    def run(function: Any) -> Any:
        return lambda: asyncio.run(function())

    for call, expected in [
        (around(Task()), "object"),
        (around(Task().method), "method"),
        (around(functools.partial(Task().method)), "method"),
        (run(around(AsyncTask())), "async object"),
        (run(around(functools.partial(slow, "partial"))), "partial"),
        (Methods.of_class, "Methods"),
        (Methods().of_nobody, "static"),
        (run(around(lambda: slow("returned"))), "returned"),
    ]:
        before = taken(collector)
        assert call() == expected
        count, total = taken(collector)
        assert count == before[0] + 1, expected
        assert LONG * 0.9 <= total - before[1] < 60, expected


def test_a_class_stays_a_class(collector: MetricsCollector, seconds: Histogram) -> None:
    @seconds.time()
    class Model:
        def __init__(self, size: int) -> None:
            time.sleep(LONG)
            self.size = size

    class Larger(Model):
        pass

    assert isinstance(Model, type) and isinstance(Model(3), Model)
    assert Larger(4).size == 4
    count, total = taken(collector)
    assert count == 2 and total >= 2 * LONG


def test_overlapping_uses_of_one_timer_have_times_of_their_own(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    timer = seconds.time()

    async def use(first: float) -> None:
        with timer:
            await asyncio.sleep(first)

    async def overlap() -> None:
        await asyncio.gather(use(5 * LONG), use(LONG))

    asyncio.run(overlap())
    found = collector.get_metric("took_seconds")
    assert found is not None and found.count == 2
    assert found.min is not None and found.max is not None
    assert LONG * 0.9 <= found.min < 5 * LONG * 0.9 <= found.max
    assert timer.duration is not None


def test_classes_without_init_are_made_as_before(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    @seconds.time()
    class Point(NamedTuple):
        x: int

    @seconds.time()
    class Made:
        def __new__(cls, x: int) -> "Made":
            time.sleep(LONG)
            made = object.__new__(cls)
            vars(made)["x"] = x
            return made

    @seconds.time()
    class Text(str):
        pass

    @dataclass
    @seconds.time()
    class Late:
        x: int

    @seconds.time()
    class Plain:
        pass

    class Derived(Plain):
        def __init__(self, x: int) -> None:
            self.x = x

    one: Any = Made(2)
    assert (Point(1).x, one.x, Text("3"), Late(4).x) == (1, 2, "3", 4)
    assert Derived(5).x == 5 and isinstance(Plain(), Plain)
    count, total = taken(collector)
    assert count == 6 and total >= LONG
    with pytest.raises(TypeError, match=r"Plain\(\) takes no arguments"):
        Plain(1)  # type: ignore[call-arg]


def test_what_stands_for_a_function_in_a_class(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    around: Callable[[Any], Any] = seconds.time()

    class Methods:
        @around
        @property
        def read(self) -> str:
            time.sleep(LONG)
            return "property"

        @around
        @functools.cached_property
        def once(self) -> str:
            time.sleep(LONG)
            return "cached"

        def add(self, to: str) -> str:
            time.sleep(LONG)
            return to

        part = around(functools.partialmethod(add, "part"))

        @around
        @contextlib.contextmanager
        def block(self) -> Iterator[str]:
            yield "block"

    made = Methods()
    for call, expected in [
        (lambda: made.read, "property"),
        (lambda: made.once, "cached"),
        (lambda: made.part(), "part"),
    ]:
        before = taken(collector)
        assert call() == expected
        count, total = taken(collector)
        assert count == before[0] + 1 and total - before[1] >= LONG, expected
    assert made.once == "cached" and taken(collector)[0] == 3
    with made.block() as given:
        assert given == "block"
    for no_function in (5, None, "text", []):
        with pytest.raises(TypeError, match="cannot be called"):
            around(no_function)


def test_a_coroutine_of_the_old_kind_can_be_awaited(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    @types.coroutine
    def pause() -> Any:
        yield from asyncio.sleep(LONG).__await__()
        return "done"

    async def use(function: Any) -> Any:
        return await function()

    around: Callable[[Any], Any] = seconds.time()
    for function in (around(pause), around(lambda: pause())):
        before = taken(collector)
        assert asyncio.run(use(function)) == "done"
        count, total = taken(collector)
        assert count == before[0] + 1 and total - before[1] >= LONG * 0.9


def test_async_with(collector: MetricsCollector, seconds: Histogram) -> None:
    running = Gauge("running", registry=collector)
    failed = Counter("failed", registry=collector)

    async def use() -> None:
        async with running.track_inprogress(), failed.count_exceptions(), seconds.time() as timer:
            found = collector.get_metric("running")
            assert found is not None and found.value == 1
            await asyncio.sleep(LONG)
        assert timer.duration is not None and timer.duration >= LONG * 0.9
        async with seconds.time(), failed.count_exceptions(KeyError):
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(use())
    count, total = taken(collector)
    assert count == 2 and total >= LONG * 0.9
    for name, expected in (("running", 0), ("failed_total", 1)):
        found = collector.get_metric(name)
        assert found is not None and found.value == expected


def test_any_number_of_blocks_can_be_open(collector: MetricsCollector, seconds: Histogram) -> None:
    """Of one timer, and of another one between them that nobody leaves."""
    timer, other = seconds.time(), seconds.time()
    with timer, timer:
        for _ in range(200_000):
            other.__enter__()
    assert taken(collector)[0] == 2


def test_what_exceptions_cannot_be_is_told_at_once(collector: MetricsCollector) -> None:
    failed = Counter("failed", registry=collector)
    for wrong in (5, "ValueError", ValueError(), [ValueError]):
        with pytest.raises(TypeError, match='argument "exception" is'):
            failed.count_exceptions(wrong)  # type: ignore[arg-type]
    nested: Any = (ValueError, (KeyError, (GeneratorExit,)))
    until("it is shown", lambda: collector.get_metric("failed_total") is not None)
    for raised, counts in ((KeyError(), 1), (GeneratorExit(), 1), (TypeError(), 0)):
        before = collector.get_metric("failed_total")
        assert before is not None
        with pytest.raises(type(raised)), failed.count_exceptions(nested):
            raise raised
        after = collector.get_metric("failed_total")
        assert after is not None and after.value - before.value == counts


default_seconds = qbus.Histogram("default_took_seconds", "Of the process's own collector.")


@default_seconds.time()
def importable() -> str:
    return "imported"


def test_decorated_functions_pickle() -> None:
    assert pickle.loads(pickle.dumps(importable))() == "imported"

    @default_seconds.time()
    def local() -> str:
        return "by value"

    copy = cloudpickle.loads(cloudpickle.dumps(local))
    assert copy() == "by value"
    for around in (
        default_seconds.time(),
        qbus.Gauge("default_running").track_inprogress(),
        qbus.Counter("default_failed").count_exceptions(KeyError),
    ):
        with pickle.loads(pickle.dumps(around)):
            pass
    found = qbus.snapshot().get("default_took_seconds")
    assert found is not None and found.count == 3


@pytest.mark.skipif(sys.version_info < (3, 11), reason="contexts of tasks came with 3.11")
def test_a_timer_that_is_left_in_another_context(
    collector: MetricsCollector, seconds: Histogram
) -> None:
    async def use() -> None:
        timer = seconds.time()
        timer.__enter__()

        async def leave() -> None:
            timer.__exit__(None, None, None)

        await asyncio.create_task(leave())

    asyncio.run(use())
    assert taken(collector)[0] == 1
