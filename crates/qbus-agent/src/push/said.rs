//! Which series a receiver was told of last, as a file: so that a successor can say of those that
//! ended meanwhile that they have.
//!
//! | offset | bytes | what                                                                 |
//! |--------|-------|----------------------------------------------------------------------|
//! |      0 |     8 | magic                                                                |
//! |      8 |     8 | CRC-32 of all that follows                                           |
//! |     16 |       | families: name, type, unit, native, bounds; then the labels of each series |
//!
//! A number has eight bytes; a text has its length before it, and a list how many there are.

use std::sync::Arc;

use flate2::Crc;
use qbus::MetricType;
use qbus_aggregate::{Family, Series};

const MAGIC: &[u8; 8] = b"qbussay1";

/// The file of these series. Those of a family are best adjacent: it is written once then.
pub(super) fn encode<'a>(series: impl IntoIterator<Item = &'a Series>) -> Vec<u8> {
    let all: Vec<&Series> = series.into_iter().collect();
    let mut out = Vec::with_capacity(64 + all.len() * 64);
    out.extend_from_slice(MAGIC);
    number(&mut out, 0);
    for of_family in all.chunk_by(|a, b| a.family == b.family) {
        let family = &of_family[0].family;
        text(&mut out, &family.name);
        text(&mut out, family.metric_type.as_str());
        text(&mut out, &family.unit);
        number(&mut out, u64::from(family.native));
        number(&mut out, family.buckets.len() as u64);
        for bound in &family.buckets {
            number(&mut out, bound.to_bits());
        }
        number(&mut out, of_family.len() as u64);
        for series in of_family {
            number(&mut out, series.labels.len() as u64);
            for (name, value) in &series.labels {
                text(&mut out, name);
                text(&mut out, value);
            }
        }
    }
    let sum = crc(&out[16..]).to_le_bytes();
    out[8..16].copy_from_slice(&sum);
    out
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn crc(bytes: &[u8]) -> u64 {
    let mut crc = Crc::new();
    crc.update(bytes);
    u64::from(crc.sum())
}

/// The series of a file; `None` where it is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Series>> {
    let mut rest = Rest(bytes.strip_prefix(MAGIC)?);
    if rest.number()? != crc(rest.0) {
        return None;
    }
    let mut found = Vec::new();
    while !rest.0.is_empty() {
        let name = rest.text()?;
        let metric_type = MetricType::from_name(&rest.text()?)?;
        let unit = rest.text()?;
        let native = rest.number()? == 1;
        let bounds = rest.number()?;
        let buckets: Option<Vec<f64>> = (0..bounds)
            .map(|_| rest.number().map(f64::from_bits))
            .collect();
        let family = Arc::new(Family {
            unit,
            buckets: buckets?,
            native,
            ..Family::new(&name, metric_type)
        });
        for _ in 0..rest.number()? {
            let labels = rest.number()?;
            let labels: Option<Vec<(String, String)>> = (0..labels)
                .map(|_| Some((rest.text()?, rest.text()?)))
                .collect();
            found.push(Series::named(family.clone(), labels?));
        }
    }
    Some(found)
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Series> {
        let family = |name: &str, metric_type| Family {
            unit: "seconds".to_owned(),
            buckets: if metric_type == MetricType::Histogram {
                vec![0.5, 2.0]
            } else {
                Vec::new()
            },
            native: metric_type == MetricType::Histogram,
            ..Family::new(name, metric_type)
        };
        let of_type = |metric_type: MetricType| {
            let family = Arc::new(family(metric_type.as_str(), metric_type));
            let labels = |value: &str| vec![("é".to_owned(), value.to_owned())];
            [
                Series::named(family.clone(), labels("1")),
                Series::named(family, labels("")),
            ]
        };
        MetricType::ALL.into_iter().flat_map(of_type).collect()
    }

    #[test]
    fn what_was_said_is_read_again() {
        let all = all();
        let found = decode(&encode(&all)).expect("a file");
        // A gauge without a value is NaN, which equals nothing.
        assert_eq!(format!("{found:?}"), format!("{all:?}"));
        assert_eq!(decode(&encode([])), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        let whole = encode(&all());
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), None, "{len} bytes");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x40;
            assert_eq!(decode(&broken), None, "at {at}");
        }
        // Right sums of what makes no sense: numbers beyond all bounds, and no UTF-8.
        for garbage in [&[0xff; 64][..], b"\x02\0\0\0\0\0\0\0\xff\xfe"] {
            let mut file = [MAGIC.as_slice(), &crc(garbage).to_le_bytes(), garbage].concat();
            assert_eq!(decode(&file), None);
            file.truncate(15);
            assert_eq!(decode(&file), None);
        }
    }
}
