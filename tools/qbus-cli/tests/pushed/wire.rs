//! Requests as a decoder reads them that knows nothing of the writer.

use std::io::Read;

use crate::receiver::Received;

/// What the tests of the exporters decode with.
#[path = "../../../../crates/qbus-aggregate/src/export/decoded.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod decoded;

/// A message.
#[derive(Debug, Default)]
pub(crate) struct Fields(decoded::Fields);

impl Fields {
    pub(crate) fn decode(bytes: &[u8]) -> Fields {
        Fields(decoded::decode(bytes))
    }

    pub(crate) fn number(&self, field: u64) -> Option<u64> {
        decoded::numbers(&self.0, field).first().copied()
    }

    pub(crate) fn messages(&self, field: u64) -> Vec<Fields> {
        let all = decoded::messages(&self.0, field).into_iter();
        all.map(Fields).collect()
    }

    pub(crate) fn text(&self, field: u64) -> String {
        decoded::text(&self.0, field)
    }

    /// The numbers of a packed row.
    fn row(&self, field: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for mut rest in decoded::rows(&self.0, field) {
            while !rest.is_empty() {
                found.push(decoded::varint(&mut rest));
            }
        }
        found
    }

    fn texts(&self, field: u64) -> Vec<String> {
        decoded::texts(&self.0, field)
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
