//! First lines of messages as programs write them, good or bad (RFC 9112 sections 3 and 4): where the strict form does not fit,
//! what stands there is shown all the same, since a server that takes it answers it.
//!
//! It refuses to add anything: a part that is not on the line is absent.

use smol_str::SmolStr;

use super::reader::{LONGEST_METHOD, is_token};

/// The version at the end of a request line or the front of a status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// `HTTP/1.` and this digit.
    Minor(u8),
    /// Something else that begins with `HTTP/`.
    Odd,
    /// There is none.
    Absent,
}

/// A request line, by its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestLine {
    /// The token before the first space.
    pub(super) method: SmolStr,
    /// What is between that space and the version, else up to the end; may be empty, and have spaces in it.
    pub(super) target: SmolStr,
    pub(super) version: Version,
}

/// A status line, by its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StatusLine {
    pub(super) version: Version,
    /// Three digits as a number.
    pub(super) status: u16,
    /// What is behind them; may be empty.
    pub(super) reason: SmolStr,
}

/// What a version begins with (RFC 9112 section 2.3).
const HTTP: &[u8] = b"HTTP/";

impl Version {
    /// Reads a word.
    fn read(word: &[u8]) -> Self {
        match word {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', digit @ b'0'..=b'9'] => Self::Minor(digit - b'0'),
            _ if word.starts_with(HTTP) => Self::Odd,
            _ => Self::Absent,
        }
    }

    /// The minor version, if it is one of HTTP/1.
    pub(super) fn minor(self) -> Option<u8> {
        match self {
            Self::Minor(minor) => Some(minor),
            Self::Odd | Self::Absent => None,
        }
    }
}

impl RequestLine {
    /// Reads a line, with its end or without; `None` if it does not begin with a token and a space.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (method, rest) = (&line[..space], line[space..].trim_ascii());
        if !(1..=LONGEST_METHOD).contains(&method.len()) || !method.iter().copied().all(is_token) {
            return None;
        }
        let is_version =
            |at: &usize| rest[*at..].starts_with(HTTP) && (*at == 0 || matches!(rest[*at - 1], b' ' | b'\t'));
        let end = (0..rest.len()).rev().find(is_version).unwrap_or(rest.len());
        Some(Self {
            method: text(method),
            target: text(rest[..end].trim_ascii()),
            version: Version::read(word(&rest[end..])),
        })
    }

    /// Whether the line says that a head goes on behind it. Without a version it is all that the request has (HTTP/0.9,
    /// RFC 1945 section 4.1), and behind the preface of HTTP/2 comes another protocol (RFC 9113 section 3.4).
    pub(super) fn has_head(&self) -> bool {
        let is_preface = self.method == "PRI" && self.target == "*" && self.version == Version::Odd;
        self.version != Version::Absent && !is_preface
    }
}

impl StatusLine {
    /// Reads a line, with its end or without; `None` if it has no version or no status.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let version = word(line);
        let rest = line[version.len()..].trim_ascii();
        let (status, reason) = rest.split_at_checked(3)?;
        let is_number =
            status.iter().all(u8::is_ascii_digit) && !reason.first().is_some_and(u8::is_ascii_digit);
        let version = Version::read(version);
        if version == Version::Absent || !is_number {
            return None;
        }
        Some(Self { version, status: text(status).parse().ok()?, reason: text(reason.trim_ascii()) })
    }
}

/// The bytes before the first white space.
fn word(bytes: &[u8]) -> &[u8] {
    bytes.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

/// Bytes that are not UTF-8 are shown as such.
fn text(bytes: &[u8]) -> SmolStr {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        use Version::{Absent, Minor, Odd};
        for (line, method, target, version) in [
            ("GET / HTTP/1.1\r\n", "GET", "/", Minor(1)),
            ("GET   /   HTTP/1.0  \r\n", "GET", "/", Minor(0)),
            ("GET / HTTP/1.7", "GET", "/", Minor(7)),
            ("GET /a b HTTP/1.1", "GET", "/a b", Minor(1)),
            ("GET /a\tb\tHTTP/1.1", "GET", "/a\tb", Minor(1)),
            ("GET / HTTP/1.1 and more", "GET", "/", Minor(1)),
            ("GET / HTTP/1.", "GET", "/", Odd),
            ("GET / HTTP/1.11", "GET", "/", Odd),
            ("GET / HTTP/2.0", "GET", "/", Odd),
            ("GET / HTTP/", "GET", "/", Odd),
            ("GET HTTP/1.1", "GET", "", Minor(1)),
            ("GET  HTTP/1.1 HTTP/1.1", "GET", "HTTP/1.1", Minor(1)),
            ("GET /HTTP/1.1", "GET", "/HTTP/1.1", Absent),
            ("GET / http/1.1", "GET", "/ http/1.1", Absent),
            ("GET /\r\n", "GET", "/", Absent),
            ("GET ", "GET", "", Absent),
            ("X!#$%&'*+.^_`|~9 * HTTP/1.1", "X!#$%&'*+.^_`|~9", "*", Minor(1)),
        ] {
            let parts = RequestLine { method: method.into(), target: target.into(), version };
            assert_eq!(RequestLine::read(line.as_bytes()), Some(parts), "{line:?}");
        }
        for line in ["", "GET", "GET\t/ HTTP/1.1", " GET / HTTP/1.1", "G(T / HTTP/1.1", "\x16\x03 "] {
            assert_eq!(RequestLine::read(line.as_bytes()), None, "{line:?}");
        }
        let odd = RequestLine::read(b"GET /\xff\x00% HTTP/1.1").expect("a line");
        assert_eq!(odd.target, "/\u{fffd}\0%");
        assert!(RequestLine::read(&[&[b'A'; 33][..], b" /"].concat()).is_none());
    }

    #[test]
    fn which_lines_have_a_head() {
        for (line, has_head) in [
            ("GET / HTTP/1.1", true),
            ("GET / HTTP/2.0", true),
            ("GET HTTP/1.", true),
            ("GET /", false),
            ("PRI * HTTP/2.0", false),
            ("PRI * HTTP/1.1", true),
        ] {
            assert_eq!(RequestLine::read(line.as_bytes()).expect(line).has_head(), has_head, "{line}");
        }
    }

    #[test]
    fn status_lines() {
        use Version::{Minor, Odd};
        for (line, version, status, reason) in [
            ("HTTP/1.1 200 OK\r\n", Minor(1), 200, "OK"),
            ("HTTP/1.0 200", Minor(0), 200, ""),
            ("HTTP/1.1  404\tNot  Found ", Minor(1), 404, "Not  Found"),
            ("HTTP/1.1 200OK", Minor(1), 200, "OK"),
            ("HTTP/1.2 999 \u{e4}", Minor(2), 999, "\u{e4}"),
            ("HTTP/2.0 200 OK", Odd, 200, "OK"),
            ("HTTP/1. 200 OK", Odd, 200, "OK"),
        ] {
            let parts = StatusLine { version, status, reason: reason.into() };
            assert_eq!(StatusLine::read(line.as_bytes()), Some(parts), "{line:?}");
        }
        for line in ["", "HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 OK", "ICY 200 OK"]
        {
            assert_eq!(StatusLine::read(line.as_bytes()), None, "{line:?}");
        }
    }
}
