//! A line of StatsD, with DogStatsD's extensions.
//!
//! `name:value[:value…]|type[|@rate][|#tag:value,…][|Ttimestamp][|…]`. Sections that are not known
//! are passed over: clients are newer than their servers.

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum StatsdType {
    Counter,
    Gauge,
    /// Milliseconds.
    Timer,
    Histogram,
    Distribution,
    Set,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is not UTF-8.
    Encoding,
    /// There is no name, or nothing behind it.
    Name,
    /// A value is no number, or not one that the type takes.
    Value,
    /// No type is called so.
    Type,
    /// The sample rate is not above 0 and at most 1.
    Rate,
    /// The bus did not take it: another type, no room, a time that cannot be.
    Refused,
}

impl Cause {
    pub(super) const ALL: [Cause; 6] = [
        Cause::Encoding,
        Cause::Name,
        Cause::Value,
        Cause::Type,
        Cause::Rate,
        Cause::Refused,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::Encoding => "encoding",
            Cause::Name => "name",
            Cause::Value => "value",
            Cause::Type => "type",
            Cause::Rate => "rate",
            Cause::Refused => "refused",
        }
    }
}

/// The parts of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// One value, or several between colons.
    pub(super) values: &'a str,
    pub(super) kind: StatsdType,
    pub(super) rate: f64,
    /// As they came, between commas.
    pub(super) tags: &'a str,
    /// Seconds since the Unix epoch.
    pub(super) timestamp: Option<f64>,
}

/// What a line turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Parsed<'a> {
    Metric(Line<'a>),
    Event,
    ServiceCheck,
}

pub(super) fn parse(line: &str) -> Result<Parsed<'_>, Cause> {
    if line.starts_with("_e{") {
        return Ok(Parsed::Event);
    }
    if line.starts_with("_sc|") {
        return Ok(Parsed::ServiceCheck);
    }
    let (head, rest) = line.split_once('|').ok_or(Cause::Name)?;
    let (name, values) = head.split_once(':').ok_or(Cause::Name)?;
    if name.is_empty() {
        return Err(Cause::Name);
    }
    if values.is_empty() {
        return Err(Cause::Value);
    }
    let mut sections = rest.split('|');
    let kind = match sections.next().unwrap_or_default() {
        "c" => StatsdType::Counter,
        "g" => StatsdType::Gauge,
        "ms" => StatsdType::Timer,
        "h" => StatsdType::Histogram,
        "d" => StatsdType::Distribution,
        "s" => StatsdType::Set,
        _ => return Err(Cause::Type),
    };
    let mut found = Line {
        name,
        values,
        kind,
        rate: 1.0,
        tags: "",
        timestamp: None,
    };
    for section in sections {
        match section.as_bytes() {
            [b'@', ..] => {
                let rate = section[1..]
                    .parse()
                    .ok()
                    .filter(|rate| *rate > 0.0 && *rate <= 1.0);
                found.rate = rate.ok_or(Cause::Rate)?;
            }
            [b'#', ..] => found.tags = &section[1..],
            [b'T', ..] => found.timestamp = section[1..].parse().ok(),
            _ => {}
        }
    }
    Ok(Parsed::Metric(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line<'_> {
        match parse(text) {
            Ok(Parsed::Metric(line)) => line,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn all_that_clients_send_is_read() {
        let plain = Line {
            name: "page.views",
            values: "1",
            kind: StatsdType::Counter,
            rate: 1.0,
            tags: "",
            timestamp: None,
        };
        assert_eq!(line("page.views:1|c"), plain);
        let sampled = line("song.length:240:250|h|@0.5|#region:east,bare");
        assert_eq!((sampled.values, sampled.rate), ("240:250", 0.5));
        assert_eq!(
            (sampled.kind, sampled.tags),
            (StatsdType::Histogram, "region:east,bare")
        );
        let extended = line("a:1|c|#x:y|c:ci-1234|T1656581400|e:it-true,cn-a|card:low|future:1");
        assert_eq!(
            (extended.tags, extended.timestamp),
            ("x:y", Some(1_656_581_400.0))
        );
        for (text, kind) in [
            ("g", StatsdType::Gauge),
            ("ms", StatsdType::Timer),
            ("d", StatsdType::Distribution),
            ("s", StatsdType::Set),
        ] {
            assert_eq!(line(&format!("a:-1.5e3|{text}")).kind, kind);
        }
        assert_eq!(parse("_e{5,4}:title|text"), Ok(Parsed::Event));
        assert_eq!(parse("_sc|name|0"), Ok(Parsed::ServiceCheck));
    }

    #[test]
    fn what_makes_no_sense_has_a_cause() {
        for (text, cause) in [
            ("", Cause::Name),
            ("a", Cause::Name),
            ("a:1", Cause::Name),
            ("|c", Cause::Name),
            (":1|c", Cause::Name),
            ("a:|c", Cause::Value),
            ("a:1|", Cause::Type),
            ("a:1|k", Cause::Type),
            ("a:1|c|@0", Cause::Rate),
            ("a:1|c|@1.1", Cause::Rate),
            ("a:1|c|@x", Cause::Rate),
            ("a:1|c|@NaN", Cause::Rate),
        ] {
            assert_eq!(parse(text), Err(cause), "{text}");
        }
    }
}
