//! Numbers and times as text.

use std::fmt::Write;

use jiff::Timestamp;

use crate::sum::Sum;

/// Appends `value` as Prometheus servers and Go clients write it, so that `le` and `quantile`
/// labels compare equal with theirs: the shortest digits that read back as the same double, with an
/// exponent of two digits or more below 1e-4 and from 1e6 (`0.1`, `5`, `1e+06`, `2.5e-05`, `NaN`,
/// `+Inf`, `-Inf`).
pub(super) fn push_float(out: &mut String, value: f64) {
    if let Some(word) = word(value) {
        return out.push_str(word);
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e6).contains(&magnitude) {
        return push(out, format_args!("{value}"));
    }
    let start = out.len();
    push(out, format_args!("{value:e}"));
    let Some(e) = out[start..].find('e') else {
        return;
    };
    let exponent = start + e + 1;
    let negative = out[exponent..].starts_with('-');
    if !negative {
        out.insert(exponent, '+');
    }
    if out.len() == exponent + 2 {
        out.insert(exponent + 1, '0');
    }
}

/// Appends a sum: all digits of an integer that no double has, and else as [`push_float`].
pub(super) fn push_sum(out: &mut String, sum: Sum) {
    match sum.beyond_double() {
        Some(integer) => push(out, format_args!("{integer}")),
        None => push_float(out, sum.value()),
    }
}

/// A float as labels have it: `1.0`, where a sample would be `1`.
pub(super) fn canonical(value: f64) -> String {
    let mut text = String::new();
    push_float(&mut text, value);
    let is_whole = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    if text.bytes().all(is_whole) {
        text.push_str(".0");
    }
    text
}

/// `NaN`, `+Inf` or `-Inf` for a value without a decimal.
pub(super) fn word(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// Appends formatted text.
pub(super) fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A `String` refuses nothing, and the numbers and times that come here have no errors of their
    // own.
    let _ = out.write_fmt(arguments);
}

/// Seconds since the Unix epoch. A double holds today's times to about 0.2 µs only; the date of
/// the same row is exact.
pub fn seconds(unix_ns: u64) -> f64 {
    // Whole seconds are exact below 2^53, so a time on a second comes out as just that.
    (unix_ns / 1_000_000_000) as f64 + (unix_ns % 1_000_000_000) as f64 / 1e9
}

/// Appends the time in UTC, as RFC 3339 with `Z` and always nine decimals: a reader that takes the
/// form of a column from its first rows finds the same in all others.
pub(super) fn push_datetime(out: &mut String, unix_ns: u64) {
    // 2^64 ns end in the year 2554, which jiff can say: the fallback is never taken.
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    push(out, format_args!("{time:.9}"));
}
