//! Numbers as people read them: three significant digits, and the unit that the metric's name says.

use qbus_aggregate::Family;

const TIMES: [(f64, &str); 4] = [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")];
const THOUSANDS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
const POWERS: [(f64, &str); 4] = [
    (1_099_511_627_776.0, "TiB"),
    (1_073_741_824.0, "GiB"),
    (1_048_576.0, "MiB"),
    (1024.0, "KiB"),
];
/// So many seconds are a point in time and no span: 1979.
const DATES: f64 = 3e8;
/// From here on numbers are written with an exponent.
const LARGE: f64 = 1e15;

/// What a number is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    None,
    Seconds,
    Bytes,
    /// 0 to 1; shown in per cent.
    Ratio,
    Percent,
    Celsius,
    Watts,
    Joules,
    Hertz,
}

const NAMES: [(&str, Unit); 8] = [
    ("seconds", Unit::Seconds),
    ("bytes", Unit::Bytes),
    ("ratio", Unit::Ratio),
    ("percent", Unit::Percent),
    ("celsius", Unit::Celsius),
    ("watts", Unit::Watts),
    ("joules", Unit::Joules),
    ("hertz", Unit::Hertz),
];

impl Unit {
    /// A family's own, or what its name ends with.
    pub(crate) fn of(family: &Family) -> Unit {
        let name = family.name.strip_suffix("_total").unwrap_or(&family.name);
        let is_named = |unit: &str| {
            let rest = name.strip_suffix(unit);
            rest.is_some_and(|rest| rest.ends_with('_')) || family.unit == unit
        };
        let found = NAMES.iter().find(|(unit, _)| is_named(unit));
        found.map_or(Unit::None, |(_, unit)| *unit)
    }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= LARGE => format!("{value:.2e}"),
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.9995 => format!("{value:.2}"),
        _ if size >= 1e-4 => {
            // 0.0123 has three digits behind the zeros.
            let places = 2 - size.log10().floor() as i32;
            let places = usize::try_from(places).unwrap_or(3);
            format!("{value:.places$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// As [`digits`], but a whole number as one.
fn plain(value: f64) -> String {
    if value.abs() < 1000.0 && value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    digits(value)
}

fn scaled(value: f64, steps: &[(f64, &str)], suffix: &str, rest: &str) -> String {
    // What rounds up to a thousand of a step is one of the next.
    let step = steps.iter().find(|(step, _)| value.abs() >= step * 0.9995);
    let text = match step {
        Some((step, name)) if value.abs() < step * 1000.0 || *step != steps[0].0 => {
            return format!("{} {name}{suffix}", digits(value / step));
        }
        Some(_) => format!("{value:.2e}"),
        None => plain(value),
    };
    match rest {
        "" => text,
        rest => format!("{text} {rest}"),
    }
}

fn seconds(value: f64) -> String {
    let size = value.abs();
    if (DATES..LARGE).contains(&size) {
        let when = jiff::Timestamp::from_second(value as i64);
        return when.map_or_else(|_| digits(value), |when| when.to_string());
    }
    match size {
        0.0 => "0 s".to_owned(),
        _ if size >= 86_400.0 => format!("{} d", digits(value / 86_400.0)),
        _ if size >= 3600.0 => format!("{} h", digits(value / 3600.0)),
        _ if size >= 600.0 => format!("{} min", digits(value / 60.0)),
        _ => {
            let step = TIMES.iter().find(|(step, _)| size >= step * 0.9995);
            let (step, name) = step.copied().unwrap_or(TIMES[3]);
            format!("{} {name}", digits(value / step))
        }
    }
}

/// To a tenth, so that shares of one list stand one below the other.
fn percent(value: f64) -> String {
    match value.abs() {
        0.0 => "0 %".to_owned(),
        size if size < 0.05 => "<0.1 %".to_owned(),
        size if size < 99.95 => format!("{value:.1} %"),
        size if size < LARGE => format!("{value:.0} %"),
        _ => format!("{value:.2e} %"),
    }
}

/// A value with its unit; a dash when there is none.
pub(crate) fn show(value: f64, unit: Unit) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    match unit {
        Unit::Seconds => seconds(value),
        Unit::Bytes => scaled(value, &POWERS, "", "B"),
        Unit::Ratio => percent(value * 100.0),
        Unit::Percent => percent(value),
        Unit::Celsius => format!("{} °C", plain(value)),
        Unit::Watts => scaled(value, &THOUSANDS, "W", "W"),
        Unit::Joules => scaled(value, &THOUSANDS, "J", "J"),
        Unit::Hertz => scaled(value, &THOUSANDS, "Hz", "Hz"),
        Unit::None => scaled(value, &THOUSANDS, "", ""),
    }
}

/// How much of it a second. Seconds a second are a share of a processor.
pub(crate) fn show_rate(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => show(value, Unit::Ratio),
        _ if value.is_nan() => show(value, unit),
        _ => {
            let text = show(value, unit);
            let blank = if text.contains(' ') { "" } else { " " };
            format!("{text}{blank}/s")
        }
    }
}

/// A value in little room: of a point in time, how long ago it is.
pub(crate) fn brief(value: f64, unit: Unit, now_ns: u64) -> String {
    let ago = now_ns as f64 / 1e9 - value;
    match unit {
        Unit::Seconds if (DATES..LARGE).contains(&value) && ago >= 0.0 => {
            format!("{} ago", age(ago))
        }
        _ => show(value, unit),
    }
}

/// An age to a tenth of a second, or coarser.
pub(crate) fn age(seconds: f64) -> String {
    match seconds {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        _ if seconds < 99.5 => format!("{seconds:.0} s"),
        _ if seconds < 5970.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_their_unit() {
        for (value, unit, text) in [
            (0.0, Unit::None, "0"),
            (17.0, Unit::None, "17"),
            (0.25, Unit::None, "0.250"),
            (0.01234, Unit::None, "0.0123"),
            (0.99951, Unit::None, "1.00"),
            (999.0, Unit::None, "999"),
            (999.6, Unit::None, "1.00 k"),
            (48_012.0, Unit::None, "48.0 k"),
            (-48_012.0, Unit::None, "-48.0 k"),
            (123_456_789.0, Unit::None, "123 M"),
            (9.99e14, Unit::None, "999 T"),
            (3e18, Unit::None, "3.00e18"),
            (3e18, Unit::Watts, "3.00e18 W"),
            (1e-7, Unit::None, "1.00e-7"),
            (f64::NAN, Unit::Bytes, "-"),
            (f64::INFINITY, Unit::Bytes, "+Inf"),
            (0.0121, Unit::Seconds, "12.1 ms"),
            (0.24, Unit::Seconds, "240 ms"),
            (3.1e-10, Unit::Seconds, "0.310 ns"),
            (1994.0, Unit::Seconds, "33.2 min"),
            (7200.0, Unit::Seconds, "2.00 h"),
            (1_700_000_000.0, Unit::Seconds, "2023-11-14T22:13:20Z"),
            (512.0, Unit::Bytes, "512 B"),
            (19_542_101_196.0, Unit::Bytes, "18.2 GiB"),
            (0.43, Unit::Ratio, "43.0 %"),
            (1.754, Unit::Ratio, "175 %"),
            (0.0022, Unit::Ratio, "0.2 %"),
            (1e-9, Unit::Ratio, "<0.1 %"),
            (0.0, Unit::Percent, "0 %"),
            (64.0, Unit::Celsius, "64 °C"),
            (71_250.0, Unit::Watts, "71.2 kW"),
            (1.98e9, Unit::Hertz, "1.98 GHz"),
        ] {
            assert_eq!(show(value, unit), text, "{value} {unit:?}");
        }
        assert_eq!(show_rate(1120.0, Unit::None), "1.12 k/s");
        assert_eq!(show_rate(17.0, Unit::None), "17 /s");
        assert_eq!(show_rate(0.5, Unit::Seconds), "50.0 %");
        assert_eq!(show_rate(2048.0, Unit::Bytes), "2.00 KiB/s");
        assert_eq!(show_rate(f64::NAN, Unit::Bytes), "-");
        let now_ns = 1_700_000_600_000_000_000;
        assert_eq!(brief(1_700_000_000.0, Unit::Seconds, now_ns), "10 min ago");
        assert_eq!(brief(0.5, Unit::Seconds, now_ns), "500 ms");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn no_number_is_a_panic() {
        for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -0.0, 3e8] {
            for unit in NAMES.map(|(_, unit)| unit) {
                assert!(!show(value, unit).is_empty());
                assert!(!show_rate(value, unit).is_empty());
            }
        }
    }
}
