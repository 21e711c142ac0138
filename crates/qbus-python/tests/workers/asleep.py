"""Daemon threads that are asleep in Python code, under a call of the package, when the process
ends: they wake up when the interpreter is gone, or about to be."""

import pathlib
import sys
import threading
import time
import warnings
from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import qbus

#: Longer than the end waits for those inside; it takes as long again.
NAP = 0.9

counter = qbus.Counter("c", "A counter.", ["label"])
gauge = qbus.Gauge("g", "A gauge.")
collector = qbus.get_metrics_collector()


def nap(given: Any) -> Any:
    time.sleep(NAP)
    return given


class Text:
    def __str__(self) -> str:
        return nap("x")


class Shown:
    def __repr__(self) -> str:
        return nap("x")


class Number:
    def __float__(self) -> float:
        return nap(1.0)


class Class(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return nap(False)


class Error(Exception, metaclass=Class):
    pass


class Mapping(UserDict[str, str]):
    def __getitem__(self, key: str) -> Any:
        return nap("ab")


class Time:
    def timestamp(self) -> float:
        return nap(1.0)


class Path(pathlib.PurePosixPath):
    def __fspath__(self) -> str:
        return nap("/dev/null")


def one_by_one(given: list[Any]) -> Iterator[Any]:
    for item in given:
        yield nap(item)


def mistaken() -> None:
    try:
        gauge.set(Shown())  # type: ignore[arg-type]
    except TypeError:
        pass


def excepted() -> None:
    try:
        with counter.labels("x").count_exceptions(Error):
            raise ValueError
    except ValueError:
        pass


def ruled() -> None:
    collector.register_validation_rule("ruled", nap)
    collector.add_metric("ruled", 1, "gauge")


def told() -> None:
    warnings.simplefilter("always")
    warnings.showwarning = lambda *_, **__: nap(None)
    qbus.Counter("told").inc(float("nan"))


USES: list[Callable[[], object]] = [
    lambda: counter.labels(Text()),
    lambda: gauge.set(Number()),
    lambda: collector.add_metric("added", Number(), "gauge", {"label": Text()}),
    lambda: collector.add_metric("added", 1, "gauge", Mapping(label="x")),
    lambda: collector.add_metric("added", 1, "gauge", timestamp=Time()),  # type: ignore[arg-type]
    lambda: counter.labels("x").inc(1, Mapping(trace_id="ab")),
    lambda: qbus.Counter("made", "", one_by_one(["a", "b"])),
    lambda: qbus.Histogram("h", buckets=one_by_one([1, 2])),
    lambda: qbus.snapshot().get("c_total", {"label": Text()}),
    lambda: collector.export_to_json(Path("x")),
    mistaken,
    excepted,
    ruled,
    told,
]


class Last:
    """Ends late, and slowly."""

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(NAP)


def again_and_again(use: Callable[[], object]) -> None:
    while True:
        use()


for use in USES:
    threading.Thread(target=again_and_again, args=[use], daemon=True).start()
time.sleep(0.2)
sys.last = Last()  # type: ignore[attr-defined]
sys.exit(7)
