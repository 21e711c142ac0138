"""Numbers as Prometheus writes them."""

import math
import sys
from typing import Any, SupportsFloat, Union

INF = float("inf")
MINUS_INF = float("-inf")
NaN: float = float("NaN")


def floatToGoString(d: Union[SupportsFloat, str]) -> str:
    """A number as Go's formatter writes it.

    >>> floatToGoString(1), floatToGoString(12345678), floatToGoString(float("inf"))
    ('1.0', '1.2345678e+07', '+Inf')
    """
    value = float(d)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    point = text.find(".")
    # Go changes to exponents earlier than Python does.
    if value > 0 and point > 6:
        digits = f"{text[0]}.{text[1:point]}{text[point + 1:]}".rstrip("0.")
        return f"{digits}e+{point - 1:02d}"
    return text


def parse_version(version_str: str) -> tuple[Union[int, str], ...]:
    """The parts of a version, as numbers where they are.

    >>> parse_version("1.0.x")
    (1, 0, 'x')
    """
    return tuple(int(part) if part.isdecimal() else part for part in version_str.split("."))


def free(used: list[Any]) -> None:
    """Frees lists of samples one sample after the other, those that nobody else has: Python itself
    frees a list in one go, and lets no other thread have the interpreter meanwhile, a millisecond
    for 8,000 samples.
    """
    while used:
        # The references are that of `used` and that of this very call.
        is_own = type(used[-1]) is list and sys.getrefcount(used[-1]) == 2
        samples = used[-1] if is_own else None
        while samples:
            samples.pop()
        used.pop()
