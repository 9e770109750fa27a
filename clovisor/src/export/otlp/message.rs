//! Protobuf's wire format (protobuf.dev, "Encoding"), as far as OTLP's requests need it: fields appended to a buffer.
//!
//! It is here because a library's messages own all that they hold: each attribute of each span would be copied three times,
//! and most of what an export costs would be that. Varints and keys are the library's.

use prost::encoding::{WireType, encode_key, encode_varint};

/// Bytes of a number of 64 bits, 7 in each.
const LONGEST_VARINT: usize = 10;

/// A message under construction: what is appended are its fields.
pub(super) struct Message<'a>(&'a mut Vec<u8>);

impl<'a> Message<'a> {
    /// A message at the end of `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// A `bytes` field.
    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(value.len() as u64, self.0);
        self.0.extend_from_slice(value);
    }

    /// A `string` field.
    pub(super) fn text(&mut self, tag: u32, value: &str) {
        self.bytes(tag, value.as_bytes());
    }

    /// An `int64`, `uint32`, `bool` or enumeration: negative numbers in two's complement.
    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, self.0);
        encode_varint(value, self.0);
    }

    /// A `fixed64` or `double`.
    pub(super) fn fixed64(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::SixtyFourBit, self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A `fixed32`.
    pub(super) fn fixed32(&mut self, tag: u32, value: u32) {
        encode_key(tag, WireType::ThirtyTwoBit, self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message within this one, with the fields that `write` appends.
    pub(super) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Message<'_>)) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        // The length comes first and is known last. One byte is kept for it, as most messages are short attributes.
        let start = self.0.len();
        self.0.push(0);
        write(&mut Message(self.0));
        let len = self.0.len() - start - 1;
        let mut length = [0; LONGEST_VARINT];
        let mut free = &mut length[..];
        encode_varint(len as u64, &mut free);
        let used = LONGEST_VARINT - free.len();
        self.0.splice(start..=start, length[..used].iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_any_size_come_before_what_they_count() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3 << 20] {
            let mut out = b"before".to_vec();
            Message::new(&mut out).message(1, |inner| inner.0.extend(vec![7; len]));
            let mut rest = &out[6..];
            assert_eq!(rest[0], 0x0a);
            rest = &rest[1..];
            assert_eq!(prost::encoding::decode_varint(&mut rest).unwrap(), len as u64);
            assert!(rest.len() == len && rest.iter().all(|byte| *byte == 7), "{len}");
        }
    }
}
