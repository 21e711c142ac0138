//! Figures as a person reads them: three digits that mean something, and a unit.

use std::time::Duration;

/// A number with a prefix, three significant digits: `17`, `1.20 k`, `31.4 M`.
pub(crate) fn short(number: f64) -> String {
    let prefixes = ["", " k", " M", " G", " T", " P"];
    let (mut scaled, mut at) = (number, 0);
    // What rounds to 1,000 has the next prefix.
    while scaled.abs() >= 999.5 && at + 1 < prefixes.len() {
        scaled /= 1000.0;
        at += 1;
    }
    let decimals = match scaled.abs() {
        // Whole numbers are counted, and not measured.
        _ if at == 0 && scaled.fract() == 0.0 => 0,
        digits if digits >= 99.95 => 0,
        digits if digits >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{}", prefixes[at])
}

/// All digits of a count, in groups of three: `1,234,567`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary prefix: `25 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut scaled, mut at) = (count as f64, 0);
    while scaled >= 1023.5 && at + 1 < units.len() {
        scaled /= 1024.0;
        at += 1;
    }
    let decimals = usize::from(at > 0 && scaled < 9.95);
    format!("{scaled:.decimals$} {}", units[at])
}

/// A time span in its largest unit: `<0.1 s`, `0.4 s`, `3 min`, `5 h`, `12 d`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 0.05 => "<0.1 s".to_owned(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        _ if seconds < 119.5 => format!("{seconds:.0} s"),
        _ if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3_600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// A part of a whole in percent; what is little is not nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    if percent > 0.0 && percent < 0.5 {
        return "<1 %".to_owned();
    }
    format!("{percent:.0} %")
}

/// `1 process`, `2 processes`.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_the_right_prefix() {
        let read = [
            (0.0, "0"),
            (17.0, "17"),
            (1.5, "1.50"),
            (999.4, "999"),
            (999.6, "1.00 k"),
            (1_200.0, "1.20 k"),
            (31_400_000.0, "31.4 M"),
            (999_999.0, "1.00 M"),
            (-2_500.0, "-2.50 k"),
            (5e18, "5000 P"),
        ];
        for (number, text) in read {
            assert_eq!(short(number), text);
        }
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567].map(grouped)
        );
        let sizes = [512, 2048, 26 << 20, (1 << 20) - 1, u64::MAX].map(bytes);
        assert_eq!(sizes, ["512 B", "2.0 KiB", "26 MiB", "1.0 MiB", "16 EiB"]);
        let spans = [0.04, 9.96, 119.0, 180.0, 7_300.0, 1e6];
        let spans = spans.map(|seconds| span(Duration::from_secs_f64(seconds)));
        assert_eq!(spans, ["<0.1 s", "10 s", "119 s", "3 min", "2 h", "12 d"]);
        let parts = [(0, 64), (1, 4_096), (1, 2), (64, 64), (1, 0)];
        let parts = parts.map(|(part, whole)| percent(part, whole));
        assert_eq!(parts, ["0 %", "<1 %", "50 %", "100 %", "100 %"]);
        assert_eq!(counted(1, "process", "processes"), "1 process");
        assert_eq!(counted(2, "process", "processes"), "2 processes");
    }
}
