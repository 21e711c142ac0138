"""Timers, trackers and counters around blocks and functions of every kind."""

import asyncio
import functools
import pickle
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

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
