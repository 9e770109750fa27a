//! What connections of other protocols begin with, where HTTP/1 was expected: TLS (RFC 8446) and HTTP/2 without it (RFC 9113).
//!
//! It refuses weak evidence: every byte that the protocol fixes must be there and right. Neither can begin a message of HTTP/1:
//! no token has a byte 22 in it, and the preface of HTTP/2 was made so that no server of HTTP/1 takes it.

use std::ops::RangeInclusive;

/// Whether bytes are the start of another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are, beyond doubt.
    Sure,
    /// They are as far as they go, and too few to say more.
    Unsure,
    /// They are not.
    Not,
}

/// What a client of HTTP/2 sends first (RFC 9113 section 3.4). The first line and the empty one make a head of HTTP/1.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of that head.
const HTTP2_HEAD: usize = 18;

/// Bytes at the front of a hello, in a record, that are looked at: header of the record (RFC 8446 section 5.1), type and length of the
/// message (section 4), the version that it names first (sections 4.1.2 and 4.1.3).
const HELLO: usize = 11;
/// Content type of records with handshake messages.
const HANDSHAKE: u8 = 22;
/// Lengths of a record that has all of that in it, and no more than a record may have.
const RECORD: RangeInclusive<usize> = 6..=1 << 14;
/// Longest start of any of them that is ever [`Verdict::Unsure`], and one more.
pub(super) const ENOUGH: usize = HTTP2.len();

/// A hello of either side.
struct Hello {
    /// Type of the message.
    kind: u8,
    /// Lengths that it may have: from one with nothing that may be absent to one in which all is as long as its length can say.
    lengths: RangeInclusive<usize>,
    /// Whether its sender sends nothing behind it before it has an answer, so that its record ends with it or before.
    is_alone: bool,
}

/// Random bytes, session id, cipher suites, compression methods, extensions.
const CLIENT: Hello =
    Hello { kind: 1, lengths: 41..=2 + 32 + 33 + (2 + 65_534) + 256 + (2 + 65_535), is_alone: true };
const SERVER: Hello = Hello { kind: 2, lengths: 38..=2 + 32 + 33 + 2 + 1 + (2 + 65_535), is_alone: false };

/// Judges the first bytes of a client, of which there is at least one.
pub(super) fn judge(bytes: &[u8]) -> Verdict {
    if is_http2_head(bytes.get(..HTTP2_HEAD).unwrap_or_default()) {
        let len = bytes.len().min(HTTP2.len());
        return match bytes[..len] == HTTP2[..len] {
            false => Verdict::Not,
            true if len < HTTP2.len() => Verdict::Unsure,
            true => Verdict::Sure,
        };
    }
    CLIENT.judge(bytes)
}

/// Whether a head of HTTP/1 is the front of HTTP/2's preface.
pub(super) fn is_http2_head(head: &[u8]) -> bool {
    *head == HTTP2[..HTTP2_HEAD]
}

/// Whether a server begins with the answer to a client's hello.
pub(super) fn is_server_hello(bytes: &[u8]) -> bool {
    SERVER.judge(bytes) == Verdict::Sure
}

impl Hello {
    fn judge(&self, bytes: &[u8]) -> Verdict {
        let is =
            |at: usize, values: RangeInclusive<u8>| bytes.get(at).is_none_or(|byte| values.contains(byte));
        let number = |range: std::ops::Range<usize>| {
            let bytes = bytes.get(range)?.iter();
            Some(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
        };
        let (record, message) = (number(3..5), number(6..9));
        let fits = is(0, HANDSHAKE..=HANDSHAKE)
            // TLS 1.0 to 1.3: what says 1.3 is not here but in an extension.
            && is(1, 3..=3)
            && is(2, 1..=3)
            && record.is_none_or(|len| RECORD.contains(&len))
            && is(5, self.kind..=self.kind)
            && message.is_none_or(|len| self.lengths.contains(&len))
            && (!self.is_alone || message.is_none_or(|len| record.is_some_and(|record| record <= len + 4)))
            && is(9, 3..=3)
            && is(10, 1..=3);
        match fits {
            false => Verdict::Not,
            true if bytes.len() < HELLO => Verdict::Unsure,
            true => Verdict::Sure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The front of a hello with these lengths, in this kind of record.
    fn hello(version: [u8; 2], record: u16, kind: u8, message: u32) -> Vec<u8> {
        let [_, message @ ..] = message.to_be_bytes();
        let record = record.to_be_bytes();
        [&[HANDSHAKE][..], &version, &record, &[kind], &message, &[3, 3]].concat()
    }

    #[test]
    fn hellos_of_clients() {
        for (version, record, message, verdict) in [
            ([3, 1], 512, 508, Verdict::Sure),
            ([3, 2], 512, 508, Verdict::Sure),
            ([3, 3], 512, 508, Verdict::Sure),
            // Goes on in another record, as long ones do and as some senders cut them.
            ([3, 1], 16_384, 20_000, Verdict::Sure),
            ([3, 1], 6, 508, Verdict::Sure),
            // The shortest and the longest that there may be.
            ([3, 1], 45, 41, Verdict::Sure),
            ([3, 1], 16_384, 131_396, Verdict::Sure),
            ([3, 1], 44, 40, Verdict::Not),
            ([3, 1], 16_384, 131_397, Verdict::Not),
            ([3, 1], 5, 508, Verdict::Not),
            ([3, 1], 16_385, 20_000, Verdict::Not),
            // Something behind it in its record.
            ([3, 1], 513, 508, Verdict::Not),
            // SSL 3.0, and nothing that there is.
            ([3, 0], 512, 508, Verdict::Not),
            ([3, 4], 512, 508, Verdict::Not),
            ([2, 1], 512, 508, Verdict::Not),
        ] {
            let bytes = hello(version, record, 1, message);
            assert_eq!(judge(&bytes), verdict, "{version:?} {record} {message}");
            let shorter = (1..bytes.len()).map(|len| judge(&bytes[..len]));
            assert!(shorter.clone().all(|cut| cut != Verdict::Sure), "{version:?} {record} {message}");
            // What is right so far may be one.
            assert!(verdict == Verdict::Not || shorter.clone().all(|cut| cut == Verdict::Unsure));
        }
        assert_eq!(judge(&hello([3, 1], 512, 2, 508)), Verdict::Not);
    }

    #[test]
    fn hellos_of_servers() {
        assert!(is_server_hello(&hello([3, 3], 122, 2, 118)));
        // With a certificate in the same record.
        assert!(is_server_hello(&hello([3, 3], 4_000, 2, 70)));
        assert!(!is_server_hello(&hello([3, 3], 122, 1, 118)));
        assert!(!is_server_hello(&hello([3, 3], 122, 2, 37)));
        assert!(!is_server_hello(&hello([3, 3], 122, 2, 118)[..HELLO - 1]));
        assert!(!is_server_hello(b"\x15\x03\x03\0\x02\x02\x28"), "an alert says nothing of what was asked");
        assert!(!is_server_hello(b"HTTP/1.1 200 OK\r\n\r\n"));
    }

    #[test]
    fn prefaces_of_http2() {
        for len in 1..HTTP2.len() {
            let verdict = if len < HTTP2_HEAD { Verdict::Not } else { Verdict::Unsure };
            assert_eq!(judge(&HTTP2[..len]), verdict, "a head is told apart when it is whole");
        }
        assert_eq!(judge(HTTP2), Verdict::Sure);
        assert_eq!(judge(&[HTTP2, b"\0\0\x12\x04"].concat()), Verdict::Sure);
        for place in 0..HTTP2.len() {
            let mut bytes = HTTP2.to_vec();
            bytes[place] ^= 1;
            assert_eq!(judge(&bytes), Verdict::Not, "{place}");
        }
    }

    #[test]
    fn nothing_of_http1_is_another_protocol() {
        let messages =
            ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", "P", "HTTP/1.1 200 OK\r\n\r\n"];
        for message in messages {
            assert_eq!(judge(message.as_bytes()), Verdict::Not, "{message}");
        }
    }
}
