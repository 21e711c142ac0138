"""What a page is made of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional, Union


class Timestamp:
    """A time with nanoseconds.

    >>> str(Timestamp(12, 5))
    '12.000000005'
    """

    def __init__(self, sec: float, nsec: float) -> None:
        if not 0 <= nsec < 1e9:
            raise ValueError(f"nanoseconds are {nsec}, expected 0 to 999,999,999")
        self.sec: int = int(sec)
        self.nsec: int = int(-nsec if sec < 0 else nsec)

    def __str__(self) -> str:
        return f"{self.sec}.{self.nsec:09d}"

    def __repr__(self) -> str:
        return f"Timestamp({self.sec}, {self.nsec})"

    def __float__(self) -> float:
        return self.sec + self.nsec / 1e9

    def _key(self) -> tuple[int, int]:
        return self.sec, self.nsec

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __lt__(self, other: "Timestamp") -> bool:
        return self._key() < other._key()

    def __gt__(self, other: "Timestamp") -> bool:
        return self._key() > other._key()


class Exemplar(NamedTuple):
    """One observation that stands for others, with the labels of its trace."""

    labels: Mapping[str, str]
    value: float
    timestamp: Optional[Union[float, Timestamp]] = None


class BucketSpan(NamedTuple):
    """Consecutive buckets of a native histogram."""

    offset: int
    length: int


class NativeHistogram(NamedTuple):
    """A histogram with exponential buckets."""

    count_value: float
    sum_value: float
    schema: int
    zero_threshold: float
    zero_count: float
    pos_spans: Optional[Sequence[BucketSpan]] = None
    neg_spans: Optional[Sequence[BucketSpan]] = None
    pos_deltas: Optional[Sequence[int]] = None
    neg_deltas: Optional[Sequence[int]] = None
    nh_exemplars: Optional[Sequence[Exemplar]] = None


class Sample(NamedTuple):
    """One line of a page."""

    name: str
    labels: dict[str, str]
    value: float
    timestamp: Optional[Union[float, Timestamp]] = None
    exemplar: Optional[Exemplar] = None
    native_histogram: Optional[NativeHistogram] = None
