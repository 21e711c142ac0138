"""The bus under the values: which one it is, and what a series of it is called.

What this package puts on a bus it also names there, in the family ``qbus_client_family``: so any
process knows which families a page of it has. How the gauges of several processes become one is the
bus's own to know, unless the processes are told apart by other means than their pids.
"""

import os
import sys
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import qbus
from qbus import MetricsCollector, _qbus
from qbus._collector import get_metrics_collector

from .samples import Exemplar
from .validation import _validate_exemplar

#: Names the families of this package on a bus.
FAMILIES = "qbus_client_family"
#: Bytes of a help text that a bus takes.
_HELP_MAX = 2048
#: Between the label names of a family.
SEPARATOR = ","
#: Names those that a process has in its default registry: they are on the pages of all.
REGISTERED = "qbus_client_registered"
#: Names those that some process has in one registry after another, as who answers each request
#: with a registry of its own: there each page shows what was counted for it.
ANEW = "qbus_client_anew"
#: Says which processes were marked as dead.
DEAD = "qbus_client_dead"
#: In the folder of PROMETHEUS_MULTIPROC_DIR: names the private bus of the processes that share it.
FILE = "qbus.db"

_collectors: dict[str, MetricsCollector] = {}
_told: set[str] = set()


def directory() -> Optional[str]:
    """The folder that several processes share, if the environment names one."""
    old, new = "prometheus_multiproc_dir", "PROMETHEUS_MULTIPROC_DIR"
    if old in os.environ and new not in os.environ:
        os.environ[new] = os.environ[old]
        message = f"the environment's {old} is called {new} now"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
    return os.environ.get(new)


def collector() -> MetricsCollector:
    """The bus of this process: named by QBUS, shared in a folder, or private."""
    path = directory()
    if path is None or os.environ.get("QBUS"):
        return get_metrics_collector()
    return of_directory(path)


def is_shared() -> bool:
    """Whether this process's own page shows what all processes of its bus have counted. It does on
    a bus that has a name, unless the environment's QBUS_PAGE is ``own``, where each process is
    scraped by itself."""
    return bool(os.environ.get("QBUS")) and os.environ.get("QBUS_PAGE") != "own"


def of_directory(path: str) -> MetricsCollector:
    """The private bus of the processes that share a folder; the first one makes it."""
    known = _collectors.get(path)
    if known is not None:
        return known
    file = Path(path) / FILE
    for _ in range(2):
        try:
            name = file.read_text()
        except OSError:
            name = ""
        if name and _qbus.bus_exists(name):
            found = MetricsCollector(bus=name)
            break
        made = MetricsCollector()
        mine = file.with_name(f"{FILE}.{os.getpid()}.new")
        try:
            mine.write_text(made.bus)
            if name:
                os.replace(mine, file)
                found = made
                break
            os.link(mine, file)
            found = made
            break
        except FileExistsError:
            made.close()
        except OSError:
            return get_metrics_collector()
        finally:
            mine.unlink(missing_ok=True)
    else:
        return get_metrics_collector()
    _collectors[path] = found
    return found


def keep() -> None:
    """Holds on to the bus of the shared folder from now on: who only starts others, one after
    another, keeps what they counted."""
    if not os.environ.get("QBUS"):
        try:
            collector()
        except (ValueError, OSError) as error:
            _tell("there is no page of all processes", error)


def exemplar(labels: Mapping[str, str], value: float) -> Exemplar:
    """An exemplar of now."""
    _validate_exemplar(labels)
    return Exemplar(labels, value, time.time())


def _tell(what: str, why: object) -> None:
    if what not in _told:
        _told.add(what)
        # Where the program called this package.
        level, frame = 2, sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__", "").startswith("qbus."):
            level, frame = level + 1, frame.f_back
        _qbus.tell(f"{what}: {why}. This is said once", level)


def escape(name: str, also: str = "") -> str:
    """A name as the bus takes it: whatever else is legal in Prometheus becomes an underscore."""
    legal = "".join(c if c.isascii() and (c.isalnum() or c in "_" + also) else "_" for c in name)
    return f"_{legal}" if legal[:1].isdigit() else legal


class Series:
    """A series of a metric, of one process or of all."""

    def __init__(
        self,
        typ: str,
        metric_name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        mode: str = "",
        bounds: Optional[Sequence[float]] = None,
    ) -> None:
        self._typ = typ
        self._given = (metric_name, labelnames)
        self._name = escape(metric_name, ":")
        self._labelnames = [escape(name) for name in labelnames]
        self._labelvalues = labelvalues
        # A page of this process has all of it.
        given = str(help_text or "").encode(errors="ignore")
        self._help = given[:_HELP_MAX].decode(errors="ignore")
        self._mode = mode
        self._bounds = bounds

    def handle(self, identity: Optional[str] = None) -> Any:
        """Its handle, or None when it cannot be on the bus: then it stays in this process.

        The bus itself gives each process a gauge of its own, and merges them. Who tells processes
        apart by other means than their pids names its ``identity``: then this package merges.
        """
        try:
            names, values = self._labelnames, list(self._labelvalues)
            registry = collector()
            options: dict[str, Any] = {"registry": registry}
            if self._bounds is not None:
                options["buckets"] = self._bounds
            if identity is not None:
                names = [*names, "pid"]
                values.append(identity)
            elif self._typ == "gauge":
                # Who tells processes apart by a label of its own has one value of each.
                is_told = "pid" in names
                options["multiprocess_mode"] = "last" if is_told else self._mode or "all"
            kind = getattr(qbus, self._typ.capitalize())
            family = kind(self._name, self._help, names, **options)
            self._name_family(registry, "" if identity is None else self._mode)
            if identity is not None and self._mode.startswith("live"):
                _revive(registry, identity)
            handle = family.labels(*values) if values else family
            _gone.get(registry.bus, set()).discard(self._key())
        except (ValueError, OSError) as error:
            _tell(f"metric {self._name} stays in this process", error)
            return None
        # What is registered is on the page a moment later: to say 0 has it there at once.
        if self._typ == "gauge":
            if "pid" in self._labelnames:
                handle.inc(0)
            elif "mostrecent" not in self._mode:
                handle.set(0)
        elif self._typ == "counter":
            handle.inc(0)
        else:
            _fresh.setdefault(registry.bus, set()).add(self._name)
        return handle

    def forgotten(self) -> None:
        """Has the next page wait until it is off, for as long as that takes as a rule."""
        _gone.setdefault(collector().bus, set()).add(self._key())

    def _key(self) -> tuple[str, frozenset[tuple[str, str]]]:
        full = f"{self._name}_total" if self._typ == "counter" else self._name
        pairs = zip(self._labelnames, self._labelvalues)
        return full, frozenset(pair for pair in pairs if pair[1])

    def _name_family(self, registry: MetricsCollector, mode: str) -> None:
        known = _named.setdefault(registry.bus, set())
        if self._name not in known:
            known.add(self._name)
            name, labelnames = self._given
            labels = {"family": self._name, "type": self._typ, "mode": mode}
            # Pages have names as they were given, and labels without a value, which are none to
            # the bus.
            labels["name"] = name
            labels["labels"] = SEPARATOR.join(labelnames)
            registry.queue_metric(
                FAMILIES, 1, "gauge", labels, "Families of prometheus_client programs."
            )


def register(name: str, registry: Optional[object]) -> None:
    """Says on the bus that a metric is in a registry, or in the default one, if that is None. The
    pages of default registries are of all processes."""
    if not is_shared():
        return
    labels = {"family": name}
    if registry is None:
        text = "Families in the default registries of prometheus_client programs."
        collector().queue_metric(REGISTERED, 1, "gauge", labels, text)
    elif _first_registries.setdefault(name, weakref.ref(registry))() is not registry:
        text = "Families that prometheus_client programs have in one registry after another."
        collector().queue_metric(ANEW, 1, "gauge", labels, text)


#: Histograms and summaries that were registered since this process made a page last, by bus.
_fresh: dict[str, set[str]] = {}
#: Series that were taken off the page since then.
_gone: dict[str, set[tuple[str, frozenset[tuple[str, str]]]]] = {}
#: Far longer than a round of the aggregator takes, and waited for once after a registration at
#: most.
_PATIENCE_SECONDS = 1.0
#: Somewhat longer than it takes to forget a series. Another process may use it on.
_GONE_SECONDS = 0.1


def rows(registry: MetricsCollector) -> list[Any]:
    """All series of a bus as they are after what this process did a moment ago: with those that it
    registered, and without those that it forgot."""
    fresh, gone = _fresh.pop(registry.bus, set()), _gone.pop(registry.bus, set())
    # A private bus finds who aggregates it, and that there is none at all was told.
    name = registry.bus
    if name and os.environ.get("QBUS") and not registry.get_statistics()["has_aggregator"]:
        why = f"nobody aggregates bus {name}, start one: qbus agg -b {name}"
        _tell("pages do not show what all processes have now", why)
        fresh, gone = set(), set()
    start = time.monotonic()
    while True:
        try:
            found = registry.snapshot()._rows()
        except qbus.BusError:
            # Nobody has aggregated it yet: each process has its own page.
            return []
        waited = time.monotonic() - start
        is_whole = fresh.issubset(row[0] for row in found) or waited > _PATIENCE_SECONDS
        is_left = gone and waited < _GONE_SECONDS and any(
            (row[0], frozenset(row[3].items())) in gone for row in found
        )
        if is_whole and not is_left:
            return found
        time.sleep(0.001)


_named: dict[str, set[str]] = {}
_own: set[str] = set()
_first_registries: "dict[str, weakref.ref[object]]" = {}
_revived: set[tuple[str, str, int]] = set()


def keep_own(name: str, is_own: bool) -> None:
    """Has each process's page show its own of a metric, or what all have."""
    (_own.add if is_own else _own.discard)(name)


def own() -> frozenset[str]:
    """The metrics of which a page shows what its process has."""
    return frozenset(_own)


def mark_dead(registry: MetricsCollector, identity: str) -> None:
    """Says on the bus that a process is dead."""
    text = "Processes that were marked as dead."
    registry.queue_metric(DEAD, 1, "gauge", {"pid": identity}, text)


def _revive(registry: MetricsCollector, identity: str) -> None:
    """Says that a process lives, if one of its name was marked as dead."""
    key = (registry.bus, identity, os.getpid())
    if key not in _revived:
        _revived.add(key)
        if registry.get_metric(DEAD, {"pid": identity}) is not None:
            registry.queue_metric(DEAD, 0, "gauge", {"pid": identity})
