//! Messages as a decoder reads them that knows nothing of the writer.

use std::collections::BTreeMap;

/// A field of a message: a number, or bytes.
#[derive(Clone, Debug)]
pub(super) enum Decoded {
    Number(u64),
    Bytes(Vec<u8>),
}

pub(super) type Fields = BTreeMap<u64, Vec<Decoded>>;

pub(super) fn varint(bytes: &mut &[u8]) -> u64 {
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

pub(super) fn decode(mut bytes: &[u8]) -> Fields {
    let mut fields = Fields::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Decoded::Number(varint(&mut bytes)),
            1 => {
                let (word, rest) = bytes.split_first_chunk().expect("eight bytes");
                bytes = rest;
                Decoded::Number(u64::from_le_bytes(*word))
            }
            2 => {
                let len = varint(&mut bytes) as usize;
                let (inner, rest) = bytes.split_at(len);
                bytes = rest;
                Decoded::Bytes(inner.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.entry(tag >> 3).or_default().push(value);
    }
    fields
}

pub(super) fn numbers(fields: &Fields, field: u64) -> Vec<u64> {
    let all = fields.get(&field).into_iter().flatten();
    all.map(|value| match value {
        Decoded::Number(number) => *number,
        Decoded::Bytes(_) => panic!("field {field} is no number"),
    })
    .collect()
}

pub(super) fn messages(fields: &Fields, field: u64) -> Vec<Fields> {
    let all = fields.get(&field).into_iter().flatten();
    all.map(|value| match value {
        Decoded::Bytes(bytes) => decode(bytes),
        Decoded::Number(_) => panic!("field {field} is no message"),
    })
    .collect()
}

pub(super) fn text(fields: &Fields, field: u64) -> String {
    match fields.get(&field).and_then(|all| all.first()) {
        Some(Decoded::Bytes(bytes)) => String::from_utf8(bytes.clone()).expect("UTF-8"),
        _ => String::new(),
    }
}

pub(super) fn signed(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// The bytes of a field that is a message, a text or a row.
pub(super) fn rows(fields: &Fields, field: u64) -> Vec<&[u8]> {
    let all = fields.get(&field).into_iter().flatten();
    all.map(|value| match value {
        Decoded::Bytes(bytes) => bytes.as_slice(),
        Decoded::Number(_) => panic!("field {field} is a number"),
    })
    .collect()
}

/// All texts of a field.
pub(super) fn texts(fields: &Fields, field: u64) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    rows(fields, field).into_iter().map(text).collect()
}

/// The words of a row of `fixed64` or `double`.
pub(super) fn words(fields: &Fields, field: u64) -> Vec<u64> {
    let (words, rest) = rows(fields, field)[0].as_chunks();
    assert!(rest.is_empty());
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}
