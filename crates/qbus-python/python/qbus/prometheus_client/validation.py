"""Rules for names. Any text is a name unless the rules of old are asked for."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

METRIC_NAME_RE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
METRIC_LABEL_NAME_RE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
RESERVED_METRIC_LABEL_NAME_RE = re.compile(r"__")
_EXEMPLAR_MAX = 128


def _init_legacy_validation() -> bool:
    wanted = os.environ.get("PROMETHEUS_LEGACY_NAME_VALIDATION", "")
    return wanted.lower() in ("true", "1", "t")


_legacy_validation = _init_legacy_validation()


def get_legacy_validation() -> bool:
    """Whether names have to keep to the rules of old."""
    return _legacy_validation


def disable_legacy_validation() -> None:
    """Takes any text as a name."""
    global _legacy_validation
    _legacy_validation = False


def enable_legacy_validation() -> None:
    """Takes only letters, digits, underscores and colons."""
    global _legacy_validation
    _legacy_validation = True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_valid_legacy_metric_name(name: str) -> bool:
    return METRIC_NAME_RE.match(name) is not None


def _is_valid_legacy_labelname(l: str) -> bool:
    return METRIC_LABEL_NAME_RE.match(l) is not None and not l.startswith("__")


def _validate_metric_name(name: str) -> None:
    if not name:
        raise ValueError("metric name cannot be empty")
    if not _is_utf8(name) or (_legacy_validation and not _is_valid_legacy_metric_name(name)):
        raise ValueError(f"invalid metric name {name}")


def _validate_metric_label_name_token(tok: str) -> None:
    is_quoted = len(tok) > 1 and tok[0] == tok[-1] == '"'
    is_free = is_quoted and not _legacy_validation
    if not (_is_utf8(tok) if is_free else METRIC_LABEL_NAME_RE.match(tok)):
        raise ValueError(f"invalid label name token {tok}")


def _validate_labelname(l: str) -> None:
    if not _is_utf8(l) or (_legacy_validation and not METRIC_LABEL_NAME_RE.match(l)):
        raise ValueError(f"Invalid label metric name: {l}")
    if l.startswith("__"):
        raise ValueError(f"Reserved label metric name: {l}")


def _validate_labelnames(cls: Any, labelnames: Iterable[str]) -> tuple[str, ...]:
    names = tuple(labelnames)
    for name in names:
        _validate_labelname(name)
        if name in cls._reserved_labelnames:
            raise ValueError(f"Reserved label metric name: {name} of a {cls._type}")
    return names


def _validate_exemplar(exemplar: Mapping[str, str]) -> None:
    for name in exemplar:
        _validate_labelname(name)
    length = sum(len(name) + len(value) for name, value in exemplar.items())
    if length > _EXEMPLAR_MAX:
        raise ValueError(
            f"Exemplar labels have {length} UTF-8 characters, exceeding the limit of "
            f"{_EXEMPLAR_MAX}"
        )
