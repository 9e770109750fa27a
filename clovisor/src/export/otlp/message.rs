//! Protobuf's wire format (protobuf.dev, "Encoding"), as far as OTLP's requests need it: fields appended to a buffer.
//!
//! It is here because a library's messages own all that they hold: each attribute of each span would be copied three times,
//! and most of what an export costs would be that.

/// Kinds of fields on the wire.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

/// Key and text of an attribute that are both shorter make a message of less than 128 bytes, with all that is around them.
const SHORT: usize = 61;

/// A message under construction: what is appended are its fields.
pub(super) struct Message<'a>(&'a mut Vec<u8>);

impl<'a> Message<'a> {
    /// A message at the end of `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    /// A `bytes` field.
    #[inline]
    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.head(tag, value.len());
        self.0.extend_from_slice(value);
    }

    /// A `string` field.
    pub(super) fn text(&mut self, tag: u32, value: &str) {
        self.bytes(tag, value.as_bytes());
    }

    /// An `int64`, `uint32`, `bool` or enumeration: negative numbers in two's complement.
    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        self.key(tag, VARINT);
        self.number(value);
    }

    /// A `fixed64` or `double`.
    pub(super) fn fixed64(&mut self, tag: u32, value: u64) {
        self.key(tag, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A `fixed32`.
    pub(super) fn fixed32(&mut self, tag: u32, value: u32) {
        self.key(tag, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message within this one, with the fields that `write` appends: a short one.
    pub(super) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.message_of(tag, 0, write);
    }

    /// A `KeyValue` with a text (`common.proto`). Nearly all are so short that each length is one byte, and then it is known before.
    #[inline(always)]
    pub(super) fn text_pair(&mut self, tag: u8, key: &str, text: &str) {
        if key.len() < SHORT && text.len() < SHORT {
            self.short_key(tag, key, 2 + text.len());
            self.0.extend_from_slice(&[1 << 3 | DELIMITED as u8, text.len() as u8]);
            self.0.extend_from_slice(text.as_bytes());
        } else {
            self.pair(tag, key, |out| out.text(1, text));
        }
    }

    /// A `KeyValue` with a whole number, as above.
    #[inline(always)]
    pub(super) fn number_pair(&mut self, tag: u8, key: &str, number: u64) {
        if key.len() < SHORT {
            self.short_key(tag, key, 1 + digits(number));
            self.0.push(3 << 3 | VARINT as u8);
            self.number(number);
        } else {
            self.pair(tag, key, |out| out.varint(3, number));
        }
    }

    /// What comes before the value of a short `KeyValue`, which will take so many bytes.
    #[inline(always)]
    fn short_key(&mut self, tag: u8, key: &str, value: usize) {
        let len = 2 + key.len() + 2 + value;
        self.0.reserve(2 + len);
        let before = [tag << 3 | DELIMITED as u8, len as u8, 1 << 3 | DELIMITED as u8, key.len() as u8];
        self.0.extend_from_slice(&before);
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(&[2 << 3 | DELIMITED as u8, value as u8]);
    }

    #[cold]
    fn pair(&mut self, tag: u8, key: &str, value: impl FnOnce(&mut Message<'_>)) {
        self.message(tag.into(), |out| {
            out.text(1, key);
            out.message(2, value);
        });
    }

    /// A message within this one that has about `usual` bytes. Its length comes first and is known last: where the guess has as
    /// many digits as the length, nothing needs to be moved.
    pub(super) fn message_of(&mut self, tag: u32, usual: usize, write: impl FnOnce(&mut Message<'_>)) {
        self.key(tag, DELIMITED);
        let (start, kept) = (self.0.len(), digits(usual as u64));
        self.0.resize(start + kept, 0);
        write(&mut Message(self.0));
        let mut len = self.0.len() - start - kept;
        let needed = digits(len as u64);
        if needed != kept {
            self.0.splice(start..start + kept, std::iter::repeat_n(0, needed));
        }
        for digit in &mut self.0[start..start + needed] {
            *digit = len.to_le_bytes()[0] | 0x80;
            len >>= 7;
        }
        self.0[start + needed - 1] &= 0x7f;
    }

    /// What is before a field that has so many bytes. Nearly all are short, and then it is two bytes.
    #[inline]
    pub(super) fn head(&mut self, tag: u32, len: usize) {
        match (u8::try_from(tag << 3 | DELIMITED), u8::try_from(len)) {
            (Ok(key @ ..0x80), Ok(len @ ..0x80)) => self.0.extend_from_slice(&[key, len]),
            _ => {
                self.key(tag, DELIMITED);
                self.number(len as u64);
            }
        }
    }

    fn key(&mut self, tag: u32, kind: u32) {
        self.number((tag << 3 | kind).into());
    }

    /// A varint: seven bits a byte, the lowest first; all but the last byte have the highest bit set.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// Bytes of a number as a varint.
pub(super) const fn digits(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Bytes of a field that has so many behind its length, if its tag is below 16.
pub(super) const fn delimited(len: usize) -> usize {
    1 + digits(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_the_library_has_them() {
        for value in (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]) {
            let (mut own, mut library) = (Vec::new(), Vec::new());
            Message::new(&mut own).number(value);
            prost::encoding::encode_varint(value, &mut library);
            assert_eq!(own, library);
        }
    }

    #[test]
    fn lengths_of_any_size_come_before_what_they_count() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3 << 20] {
            for usual in [0, len, 5000] {
                let mut out = b"before".to_vec();
                Message::new(&mut out).message_of(1, usual, |inner| inner.0.extend(vec![7; len]));
                let mut rest = &out[6..];
                assert_eq!(rest[0], 0x0a);
                rest = &rest[1..];
                assert_eq!(prost::encoding::decode_varint(&mut rest).unwrap(), len as u64);
                assert!(rest.len() == len && rest.iter().all(|byte| *byte == 7), "{len}");
            }
        }
    }
}
