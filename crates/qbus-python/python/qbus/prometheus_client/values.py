"""Where values are kept: in this process, and on the bus for all others.

A metric asks ``ValueClass`` for its values when it is made. ``MutexValue`` is for a process that
shows its own page; ``MultiProcessValue`` for one of several that show one page, each gauge under
the name of its process. Any other class with the methods of ``MutexValue`` can take their place.
"""

import os
import weakref
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Optional

from qbus import _qbus

from . import _bus
from .samples import Exemplar

_children: "weakref.WeakSet[Any]" = weakref.WeakSet()


def close_all_multiprocess_files() -> None:
    """Nothing to do: there are no files."""


class _Read:
    """What programs reach for beside the methods: the number, its lock, its exemplar."""

    _exemplar: Optional[Exemplar] = None

    def get(self) -> float:
        """What this process has."""
        raise NotImplementedError

    def set(self, value: float, timestamp: Optional[float] = None) -> None:
        """Sets it."""
        raise NotImplementedError

    @property
    def _value(self) -> float:
        return self.get()

    @_value.setter
    def _value(self, value: float) -> None:
        self.set(value)

    @property
    def _lock(self) -> Any:
        # Nothing here needs it: it is made for who asks.
        made: Any = self.__dict__.setdefault("_made_lock", Lock())
        return made

    def set_exemplar(self, exemplar: Optional[Exemplar]) -> None:
        """Keeps the last exemplar."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Optional[Exemplar]:
        """The last exemplar."""
        return self._exemplar


class ObservedValue(_Read):
    """The sum, or the count of a bucket, of observations, read and written apart."""

    _multiprocess = False

    def __init__(self, observations: Any, bucket: Optional[int] = None) -> None:
        self._observations = observations
        self._bucket = bucket

    def inc(self, amount: float) -> None:
        """Adds to this part alone. Many observations at once are a sum, and then a count."""
        if self._bucket is None:
            self._observations.add_sum(amount)
        else:
            self._observations.add_count(self._bucket, amount)

    def set(self, value: float, timestamp: Optional[float] = None) -> None:
        """Sets this part alone. On the bus, what is more than before is added, and what is less
        begins anew."""
        if self._bucket is None:
            self._observations.set_sum(value)
        else:
            self._observations.set_count(self._bucket, value)

    def get(self) -> float:
        """What this process has."""
        if self._bucket is None:
            return float(self._observations.sum())
        return float(self._observations.counts()[self._bucket])


class MutexValue(_Read):
    """A value of this process."""

    _multiprocess = False
    #: Says which process this is, where several have one page.
    _identify: Callable[[], object] = staticmethod(os.getpid)

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **kwargs: Any,
    ) -> None:
        self._typ = typ
        self._series = _bus.Series(
            typ, metric_name, labelnames, labelvalues, help_text, multiprocess_mode
        )
        self._identity = self._identify()
        self._native = _qbus.Value(self._handle(), typ == "counter", self._keep_exemplar)
        if self._multiprocess or typ == "gauge":
            _children.add(self)

    def _handle(self) -> Any:
        # Histograms and summaries are on the bus as a whole, not value by value.
        if self._typ not in ("counter", "gauge"):
            return None
        is_named = self._typ == "gauge" and self._identify is not os.getpid
        return self._series.handle(str(self._identity) if is_named else None)

    def _keep_exemplar(self, exemplar: Any, amount: float) -> None:
        if exemplar:
            self.set_exemplar(_bus.exemplar(exemplar, amount))

    def _look_who_it_is(self) -> None:
        if self._multiprocess:
            self._follow()

    def _follow(self) -> None:
        identity = self._identify()
        if identity != self._identity:
            self._identity = identity
            # Who shows its own page alone goes on with what it had before the fork.
            self._native.rebind(self._handle(), self._multiprocess)

    def inc(self, amount: float) -> None:
        """Adds an amount."""
        self._look_who_it_is()
        self._native.inc(amount)

    def set(self, value: float, timestamp: Optional[float] = None) -> None:
        """Sets the value. On the bus, a counter adds what is more than before, and what is less
        begins anew."""
        self._look_who_it_is()
        self._native.set(value, timestamp)

    def get(self) -> float:
        """What this process has."""
        self._look_who_it_is()
        return self._native.get()

    def forget(self) -> None:
        """Takes it off the page of all processes; the next change brings it back."""
        self._native.forget()
        self._series.forgotten()


def MultiProcessValue(process_identifier: Callable[[], object] = os.getpid) -> type[MutexValue]:
    """A class of values of one of several processes, which ``process_identifier`` tells apart."""

    class MmapedValue(MutexValue):
        _multiprocess = True
        _is_of_many = True
        _identify = staticmethod(process_identifier)

        @classmethod
        def close_all_files(cls) -> None:
            """Nothing to do: there are no files."""

    return MmapedValue


def is_own(of: type) -> bool:
    """Whether a class of values is this package's: a program's own, also one that is derived from
    these, is called for each change."""
    return of is MutexValue or of.__dict__.get("_is_of_many", False)


def get_value_class() -> type[MutexValue]:
    """The class for this process: several of them, if the environment says so."""
    if _bus.directory() is not None:
        return MultiProcessValue()
    return MutexValue


def _after_fork() -> None:
    for value in list(_children):
        value._follow()


os.register_at_fork(after_in_child=_after_fork)

ValueClass: type[MutexValue] = get_value_class()
if ValueClass._multiprocess:
    _bus.keep()
