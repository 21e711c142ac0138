"""Reads the Prometheus text format (0.0.4 and 1.0.0) back into metrics."""

import importlib.machinery
import importlib.util
import io
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Optional

from .metrics_core import Metric
from .samples import Sample
from .validation import _is_valid_legacy_metric_name

_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SPACE = re.compile(r"[ \t]*")
_NAME = re.compile(r'[^ \t{}"=,]+')
#: What the samples of a metric of a type are called, beside its own name.
_SUFFIXES = {
    "summary": ("_count", "_sum", ""),
    "histogram": ("_count", "_sum", "_bucket"),
}


def text_string_to_metric_families(text: str) -> Iterable[Metric]:
    """The metrics of a page.

    >>> page = '# TYPE jobs_total counter\\njobs_total{kind="a"} 2\\n'
    >>> [metric] = text_string_to_metric_families(page)
    >>> metric.name, metric.samples[0].labels, metric.samples[0].value
    ('jobs', {'kind': 'a'}, 2.0)
    """
    yield from text_fd_to_metric_families(io.StringIO(text))


def text_fd_to_metric_families(fd: Iterable[str]) -> Iterable[Metric]:
    """The metrics of a page that is read line by line."""
    page = _Page()
    for line in fd:
        yield from page.take(line.strip(" \t\r\n"))
    yield from page.finished()


class _Page:
    """The metric that is being read: its lines stand together."""

    def __init__(self) -> None:
        self._begin("")

    def _begin(self, name: str) -> None:
        self._name = name
        self._type = "untyped"
        self._help = ""
        self._samples: list[Sample] = []

    def finished(self) -> Iterable[Metric]:
        """The metric, if there is one."""
        if self._name:
            yield _metric(self._name, self._help, self._type, self._samples)

    def take(self, line: str) -> Iterable[Metric]:
        """Reads a line; the metrics that are whole by then."""
        if line.startswith("#"):
            yield from self._take_comment(line)
        elif line:
            sample = _sample(line)
            suffixes = _SUFFIXES.get(self._type, ("",))
            if self._name and sample.name in [self._name + suffix for suffix in suffixes]:
                self._samples.append(sample)
                return
            yield from self.finished()
            self._begin("")
            # Without a head it is a metric of its own.
            yield _metric(sample.name, "", "untyped", [sample])

    def _take_comment(self, line: str) -> Iterable[Metric]:
        after = _SPACE.match(line, 1).end()  # type: ignore[union-attr]
        kind = line[after : after + 4]
        if kind not in ("HELP", "TYPE") or line[after + 4 : after + 5] not in (" ", "\t"):
            return
        name, rest = _head(line[after + 5 :].strip(" \t"))
        if name != self._name:
            yield from self.finished()
            self._begin(name)
        if kind == "HELP":
            self._help = _ESCAPED.sub(
                lambda found: {"n": "\n", "\\": "\\"}.get(found[1], found[0]), rest
            )
        elif not rest:
            raise ValueError(f"no type in the line {line!r}")
        else:
            self._type = rest


def _metric(name: str, text: str, kind: str, samples: list[Sample]) -> Metric:
    if kind == "counter":
        if name.endswith("_total"):
            name = name.removesuffix("_total")
        else:
            samples = [Sample(f"{sample.name}_total", *sample[1:]) for sample in samples]
    metric = Metric(name, text, kind)
    metric.samples = samples
    return metric


def _head(text: str) -> tuple[str, str]:
    """The name that a HELP or TYPE begins with, and what follows."""
    quoted = _QUOTED.match(text)
    if quoted is not None:
        return _unescape(quoted[1]), text[quoted.end() :].strip(" \t")
    name, *rest = re.split(r"[ \t]+", text, maxsplit=1)
    if not _is_valid_legacy_metric_name(name):
        raise ValueError(f"{name!r} is no metric name")
    return name, rest[0] if rest else ""


def _unescape(text: str) -> str:
    of = {"n": "\n", "\\": "\\", '"': '"'}
    return _ESCAPED.sub(lambda found: of.get(found[1], found[0]), text)


def _sample(line: str) -> Sample:
    named = _NAME.match(line)
    name = named[0] if named is not None else None
    start = named.end() if named is not None else 0
    at = _SPACE.match(line, start).end()  # type: ignore[union-attr]
    labels: dict[str, str] = {}
    if line[at : at + 1] == "{":
        quoted, at = _labels(line, at + 1, labels)
        if (name is None) == (quoted is None):
            raise ValueError(f"a sample has one name, in the line {line!r}")
        name = name or quoted
    if name is None or (named is not None and not _is_valid_legacy_metric_name(name)):
        raise ValueError(f"no metric name in the line {line!r}")
    value, *time = line[at:].split()
    if len(time) > 1:
        raise ValueError(f"too much behind the value in the line {line!r}")
    timestamp = float(time[0]) / 1000 if time else None
    return Sample(name, labels, float(value), timestamp)


def _labels(line: str, at: int, labels: dict[str, str]) -> tuple[Optional[str], int]:
    """Reads labels up to the closing brace; a name in quotes that is among them, and where they
    end."""
    name: Optional[str] = None

    def skip(at: int) -> int:
        return _SPACE.match(line, at).end()  # type: ignore[union-attr]

    def wrong(expected: str) -> ValueError:
        return ValueError(f"expected {expected} at column {at + 1} of the line {line!r}")

    at = skip(at)
    is_first = True
    while line[at : at + 1] != "}":
        if is_first and line[at : at + 1] == ",":
            at = skip(at + 1)
            is_first = False
            continue
        is_first = False
        quoted = _QUOTED.match(line, at)
        found = quoted or _NAME.match(line, at)
        if found is None:
            raise wrong("a label name")
        token = _unescape(quoted[1]) if quoted is not None else found[0]
        at = skip(found.end())
        if line[at : at + 1] == "=":
            at = skip(at + 1)
            value = _QUOTED.match(line, at)
            if value is None:
                raise wrong("a value in quotes")
            if token in labels:
                raise ValueError(f"the label {token!r} is there twice in the line {line!r}")
            labels[token] = _unescape(value[1])
            at = skip(value.end())
        elif quoted is not None and name is None:
            name = token
        else:
            raise wrong("=")
        if line[at : at + 1] == ",":
            at = skip(at + 1)
        elif line[at : at + 1] != "}":
            raise wrong(", or }")
    return name, at + 1


def __getattr__(name: str) -> Any:
    """Parts of prometheus_client's parser, if it is installed: its parser of OpenMetrics is made of
    them."""
    found = importlib.machinery.PathFinder.find_spec("prometheus_client", sys.path)
    for place in (found and found.submodule_search_locations) or ():
        path = os.path.join(place, "parser.py")
        spec = importlib.util.spec_from_file_location(f"{__package__}._their_parser", path)
        if not name.startswith("__") and spec is not None and spec.loader is not None:
            theirs = sys.modules.get(spec.name)
            if theirs is None:
                theirs = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(theirs)
                sys.modules[spec.name] = theirs
            return getattr(theirs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
