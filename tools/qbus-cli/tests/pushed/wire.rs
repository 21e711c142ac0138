//! Requests as a decoder reads them that knows nothing of the writer.

use std::collections::BTreeMap;
use std::io::Read;

use crate::receiver::Received;

/// Numbers and bytes of a message, by field.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    numbers: BTreeMap<u64, Vec<u64>>,
    bytes: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Fields {
    pub(crate) fn decode(mut rest: &[u8]) -> Fields {
        let mut fields = Fields::default();
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            match tag & 7 {
                0 => fields
                    .numbers
                    .entry(tag >> 3)
                    .or_default()
                    .push(varint(&mut rest)),
                1 => {
                    let (word, more) = rest.split_first_chunk().expect("eight bytes");
                    let word = u64::from_le_bytes(*word);
                    fields.numbers.entry(tag >> 3).or_default().push(word);
                    rest = more;
                }
                2 => {
                    let len = varint(&mut rest) as usize;
                    let (inner, more) = rest.split_at(len);
                    fields
                        .bytes
                        .entry(tag >> 3)
                        .or_default()
                        .push(inner.to_vec());
                    rest = more;
                }
                other => panic!("wire type {other}"),
            }
        }
        fields
    }

    pub(crate) fn number(&self, field: u64) -> Option<u64> {
        self.numbers.get(&field).map(|all| all[0])
    }

    pub(crate) fn messages(&self, field: u64) -> Vec<Fields> {
        let all = self.bytes.get(&field).into_iter().flatten();
        all.map(|bytes| Fields::decode(bytes)).collect()
    }

    pub(crate) fn text(&self, field: u64) -> String {
        let bytes = self.bytes.get(&field).map(|all| all[0].clone());
        String::from_utf8(bytes.unwrap_or_default()).expect("UTF-8")
    }

    /// The numbers of a packed row.
    fn row(&self, field: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for bytes in self.bytes.get(&field).into_iter().flatten() {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                found.push(varint(&mut rest));
            }
        }
        found
    }

    fn texts(&self, field: u64) -> Vec<String> {
        let all = self.bytes.get(&field).into_iter().flatten();
        all.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .collect()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (&first, rest) = bytes.split_first().expect("a varint");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        shift += 7;
        if first < 0x80 {
            return value;
        }
    }
}

/// A sample: its labels as `name=value`, the value, and the time in milliseconds.
pub(crate) type Sample = (Vec<String>, f64, u64);

/// The samples of a request of remote write, of either version.
pub(crate) fn samples(received: &Received) -> Vec<Sample> {
    assert_eq!(received.headers["content-encoding"], "snappy");
    let plain = snap::raw::Decoder::new().decompress_vec(&received.body);
    let message = Fields::decode(&plain.expect("a block of Snappy"));
    let is_two = received.headers["content-type"].contains("v2");
    let symbols = message.texts(4);
    let read = |one: &Fields| {
        let labels = if is_two {
            let pair = |pair: &[u64]| {
                format!(
                    "{}={}",
                    symbols[pair[0] as usize], symbols[pair[1] as usize]
                )
            };
            one.row(1).chunks(2).map(pair).collect()
        } else {
            let pair = |label: &Fields| format!("{}={}", label.text(1), label.text(2));
            one.messages(1).iter().map(pair).collect()
        };
        let sample = &one.messages(2)[0];
        let value = f64::from_bits(sample.number(1).expect("a value"));
        (labels, value, sample.number(2).expect("a time"))
    };
    message
        .messages(if is_two { 5 } else { 1 })
        .iter()
        .map(read)
        .collect()
}

/// The value of a series in a request.
pub(crate) fn value(received: &Received, name: &str) -> Option<f64> {
    let label = format!("__name__={name}");
    let found = samples(received)
        .into_iter()
        .find(|sample| sample.0.contains(&label));
    found.map(|sample| sample.1)
}

/// The metrics of a request of OTLP, and its resource's attributes.
pub(crate) fn metrics(received: &Received) -> (Vec<Fields>, Vec<String>) {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(received.body.as_slice())
        .read_to_end(&mut plain)
        .expect("gzip");
    let all = Fields::decode(&plain).messages(1).remove(0);
    let attribute = |one: &Fields| format!("{}={}", one.text(1), one.messages(2)[0].text(1));
    let resource = all.messages(1).remove(0);
    let attributes = resource.messages(1).iter().map(attribute).collect();
    (all.messages(2).remove(0).messages(2), attributes)
}
