//! Protocol Buffers' encoding, as far as it is written here.

/// The number of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field(pub(super) u32);

// The types of what follows a field's number.
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

/// The bytes of a message.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn with_capacity(bytes: usize) -> Message {
        Message(Vec::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// `uint32`, `uint64`, an enumeration, and what is never negative of `int32` and `int64`.
    #[inline]
    pub(super) fn unsigned(&mut self, field: Field, value: u64) {
        self.tag(field, VARINT);
        push_varint(&mut self.0, value);
    }

    /// `sint32`, `sint64`.
    pub(super) fn signed(&mut self, field: Field, value: i64) {
        self.unsigned(field, zigzag(value));
    }

    #[inline]
    pub(super) fn double(&mut self, field: Field, value: f64) {
        self.tag(field, FIXED_64);
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    #[inline]
    pub(super) fn text(&mut self, field: Field, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    #[inline]
    pub(super) fn bytes(&mut self, field: Field, bytes: &[u8]) {
        self.tag(field, LENGTH_DELIMITED);
        push_varint(&mut self.0, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message of encoded fields and a text behind them.
    #[inline]
    pub(super) fn two(&mut self, field: Field, encoded: &[u8], last: Field, text: &str) {
        let tag = u64::from(last.0 << 3 | LENGTH_DELIMITED);
        let len = encoded.len() + varint_len(tag) + varint_len(text.len() as u64) + text.len();
        self.tag(field, LENGTH_DELIMITED);
        push_varint(&mut self.0, len as u64);
        self.0.extend_from_slice(encoded);
        self.text(last, text);
    }

    /// `fixed64`, `sfixed64`.
    #[inline]
    pub(super) fn fixed(&mut self, field: Field, value: u64) {
        self.tag(field, FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message within this one, or packed numbers.
    #[inline]
    pub(super) fn message(&mut self, field: Field, fill: impl FnOnce(&mut Message)) {
        self.tag(field, LENGTH_DELIMITED);
        // Most are shorter than 128 bytes: their length is one byte, for which room is kept.
        let at = self.0.len();
        self.0.push(0);
        fill(self);
        let end = self.0.len();
        let len = end - at - 1;
        if len < 0x80 {
            self.0[at] = len as u8;
            return;
        }
        let more = varint_len(len as u64) - 1;
        self.0.resize(end + more, 0);
        self.0.copy_within(at + 1..end, at + 1 + more);
        put_varint(&mut self.0[at..=at + more], len as u64);
    }

    /// A number of a row, without a field of its own: as `uint64`.
    #[inline]
    pub(super) fn packed_unsigned(&mut self, value: u64) {
        push_varint(&mut self.0, value);
    }

    /// The same, as `sint64`.
    pub(super) fn packed_signed(&mut self, value: i64) {
        push_varint(&mut self.0, zigzag(value));
    }

    /// The same, as `fixed64` or the bits of a `double`.
    pub(super) fn packed_fixed(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Fields that are encoded already.
    #[inline]
    pub(super) fn encoded(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    #[inline]
    fn tag(&mut self, Field(number): Field, wire_type: u32) {
        push_varint(&mut self.0, u64::from(number << 3 | wire_type));
    }
}

/// Small magnitudes are small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// How many bytes a number has: one for each seven bits, at least one.
fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a number into as many bytes as it has.
fn put_varint(out: &mut [u8], mut value: u64) {
    let last = out.len() - 1;
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = value as u8 & 0x7f | if at < last { 0x80 } else { 0 };
        value >>= 7;
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
#[inline]
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_specification_shows_them() {
        let mut message = Message::default();
        message.unsigned(Field(1), 150);
        message.text(Field(2), "testing");
        message.message(Field(3), |inner| inner.unsigned(Field(1), 150));
        message.signed(Field(4), -2);
        message.double(Field(5), 1.0);
        let expected = [
            &b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x20\x03"[..],
            &b"\x29\0\0\0\0\0\0\xf0\x3f"[..],
        ];
        assert_eq!(message.0, expected.concat());
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        for len in [127, 128, 20_000] {
            let mut message = Message::default();
            let text = "x".repeat(len);
            message.message(Field(1), |inner| inner.text(Field(1), &text));
            let mut inner = Message::default();
            inner.text(Field(1), &text);
            let mut expected = vec![0x0a];
            push_varint(&mut expected, inner.len() as u64);
            expected.extend_from_slice(inner.as_bytes());
            assert_eq!(message.0, expected);
        }
    }
}
