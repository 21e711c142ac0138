"""Pages in the OpenMetrics text format, and names as each escaping scheme writes them."""

from collections.abc import Callable
from typing import Any

from qbus import _qbus

from ..samples import NativeHistogram
from ..utils import floatToGoString, free, parse_version
from ..validation import _is_valid_legacy_labelname, _is_valid_legacy_metric_name

CONTENT_TYPE_LATEST = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CONTENT_TYPE_LATEST_2_0 = "application/openmetrics-text; version=2.0.0; charset=utf-8"
ESCAPING_HEADER_TAG = "escaping"
ALLOWUTF8 = "allow-utf-8"
UNDERSCORES = "underscores"
DOTS = "dots"
VALUES = "values"

_TEXT = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def escape_text(text: str) -> str:
    """A help text or label value between quotes."""
    return text.translate(_TEXT)


def _is_legacy_labelname_rune(b: str, i: int) -> bool:
    if len(b) != 1:
        raise ValueError(f"{b!r} is not one character")
    return b.isascii() and (b.isalpha() or b == "_" or (b.isdigit() and i > 0))


def _is_legacy_metric_rune(b: str, i: int) -> bool:
    return _is_legacy_labelname_rune(b, i) or b == ":"


def _is_valid_utf8(s: str) -> bool:
    return not 0xD800 <= ord(s) <= 0xDFFF


def _rune(b: str, is_legal: bool, escaping: str) -> str:
    if escaping == UNDERSCORES:
        return b if is_legal else "_"
    if b == "_":
        return "__"
    if escaping == DOTS and b == ".":
        return "_dot_"
    if is_legal:
        return b
    if escaping == DOTS:
        return "__"
    return f"_{ord(b):x}_" if _is_valid_utf8(b) else "_FFFD_"


def _escape(s: str, escaping: str, valid_rune_fn: Callable[[str, int], bool]) -> str:
    if escaping == ALLOWUTF8:
        return escape_text(s)
    if escaping not in (UNDERSCORES, DOTS, VALUES):
        return s
    runes = "".join(_rune(b, valid_rune_fn(b, i), escaping) for i, b in enumerate(s))
    return f"U__{runes}" if escaping == VALUES else runes


def _name(s: str, escaping: str, is_legacy: bool, rune: Callable[[str, int], bool]) -> str:
    if not s or (is_legacy and escaping != DOTS):
        return s
    escaped = _escape(s, escaping, rune)
    return f'"{escaped}"' if escaping == ALLOWUTF8 else escaped


def escape_metric_name(s: str, escaping: str = UNDERSCORES) -> str:
    """A metric name as the scheme writes it; in quotes if UTF-8 is allowed and it needs that.

    >>> [escape_metric_name("a.b", scheme) for scheme in (UNDERSCORES, DOTS, ALLOWUTF8)]
    ['a_b', 'a_dot_b', '"a.b"']
    """
    return _name(s, escaping, _is_valid_legacy_metric_name(s), _is_legacy_metric_rune)


def escape_label_name(s: str, escaping: str = UNDERSCORES) -> str:
    """A label name as the scheme writes it."""
    return _name(s, escaping, _is_valid_legacy_labelname(s), _is_legacy_labelname_rune)


def label_pairs(labels: dict[str, str], escaping: str) -> str:
    """Labels, sorted by name."""
    return ",".join(
        f'{escape_label_name(name, escaping)}="{escape_text(value)}"'
        for name, value in sorted(labels.items())
    )


def series_text(name: str, labels: dict[str, str], escaping: str) -> str:
    """A name with labels. One that only UTF-8 can write stands between the braces."""
    pairs = label_pairs(labels, escaping)
    escaped = escape_metric_name(name, escaping)
    if escaping == ALLOWUTF8 and not _is_valid_legacy_metric_name(name):
        return f"{{{escaped},{pairs}}}" if pairs else f"{{{escaped}}}"
    return f"{escaped}{{{pairs}}}" if pairs else escaped


def _is_valid_exemplar_metric(metric: Any, sample: Any) -> bool:
    if metric.type == "counter":
        return bool(sample.name.endswith("_total"))
    if metric.type == "histogram" and sample.name == metric.name:
        return True
    return metric.type in ("histogram", "gaugehistogram") and sample.name.endswith("_bucket")


def _compose_exemplar_string(metric: Any, sample: Any, exemplar: Any) -> str:
    if not _is_valid_exemplar_metric(metric, sample):
        raise ValueError(
            f"metric {metric.name} has exemplars, and is neither a counter nor a bucket of a "
            "histogram"
        )
    pairs = ",".join(f'{k}="{escape_text(v)}"' for k, v in sorted(exemplar.labels.items()))
    text = f" # {{{pairs}}} {floatToGoString(exemplar.value)}"
    return text if exemplar.timestamp is None else f"{text} {exemplar.timestamp}"


def _native_histogram(native: NativeHistogram) -> str:
    parts = [
        f"count:{native.count_value}",
        f"sum:{native.sum_value}",
        f"schema:{native.schema}",
        f"zero_threshold:{native.zero_threshold}",
        f"zero_count:{native.zero_count}",
    ]
    for sign, spans, deltas in (
        ("negative", native.neg_spans, native.neg_deltas),
        ("positive", native.pos_spans, native.pos_deltas),
    ):
        if spans:
            parts.append(f"{sign}_spans:[{','.join(f'{span[0]}:{span[1]}' for span in spans)}]")
            parts.append(f"{sign}_deltas:[{','.join(str(delta) for delta in deltas or ())}]")
    return f"{{{','.join(parts)}}}"


def _sample_line(metric: Any, sample: Any, escaping: str) -> str:
    native = sample.native_histogram
    value = floatToGoString(sample.value) if native is None else _native_histogram(native)
    line = f"{series_text(sample.name, sample.labels, escaping)} {value}"
    if sample.timestamp is not None:
        line = f"{line} {sample.timestamp}"
    for exemplar in (sample.exemplar, *((native.nh_exemplars or ()) if native else ())):
        if exemplar:
            line += _compose_exemplar_string(metric, sample, exemplar)
    return line


def generate_latest(registry: Any, escaping: str = UNDERSCORES, version: str = "1.0.0") -> bytes:
    """The page of a registry."""
    has_native = parse_version(version) >= (2, 0, 0)
    page = _qbus.Page()
    used: list[Any] = []
    metric: Any = None
    for metric in registry.collect():
        free(used)
        try:
            name = escape_metric_name(metric.name, escaping)
            page.write(
                f"# HELP {name} {escape_text(metric.documentation)}\n# TYPE {name} {metric.type}\n"
            )
            if metric.unit:
                page.write(f"# UNIT {name} {metric.unit}\n")
            for sample in metric.samples:
                if has_native or not sample.native_histogram:
                    page.write(f"{_sample_line(metric, sample, escaping)}\n")
        except Exception as error:
            error.args = (*(error.args or ("",)), metric)
            raise
        used.append(metric.samples)
    del metric
    free(used)
    page.write("# EOF\n")
    return page.take()
