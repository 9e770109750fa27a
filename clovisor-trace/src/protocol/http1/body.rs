//! Where the body of a message ends (RFC 9112 sections 6 and 7). Counts bytes, keeps none.

/// Longest line of a chunked body that is taken: a size with extensions, or a trailer field.
const LONGEST_LINE: u32 = 16 << 10;

/// A body that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes remain.
    Length(u64),
    Chunked(Chunked),
    /// It ends with the stream.
    UntilClose,
}

/// What became of the bytes given to a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// All were taken, more will come.
    All,
    /// The body ended after so many bytes.
    Done(usize),
    /// These cannot be its bytes.
    Invalid,
}

/// Where a gap leaves a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// Still in it.
    Inside,
    /// Exactly behind it.
    End,
    /// Nobody can tell.
    Lost,
}

/// Place in a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// Before the digits of a size.
    Start,
    /// In them.
    Size(u64),
    /// Behind the digits: extensions up to the end of the line. Size, and bytes of the line so far.
    Extension(u64, u32),
    /// In the data: bytes that remain.
    Data(u64),
    /// Behind the data: its line end.
    DataEnd,
    /// In a trailer line, or the empty one that ends the body. Bytes of all lines so far, and whether the
    /// line has any.
    Trailer(u32, bool),
}

impl Body {
    pub(crate) const CHUNKED: Self = Self::Chunked(Chunked::Start);

    /// Takes the next bytes.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Read {
        match self {
            Self::UntilClose => Read::All,
            Self::Length(remaining) => {
                let taken = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
                *remaining -= taken as u64;
                if *remaining == 0 { Read::Done(taken) } else { Read::All }
            }
            Self::Chunked(chunked) => chunked.read(bytes),
        }
    }

    /// How many of the next bytes are data, whatever they are.
    pub(crate) fn unneeded(&self) -> u64 {
        match self {
            Self::UntilClose => u64::MAX,
            Self::Length(remaining) | Self::Chunked(Chunked::Data(remaining)) => *remaining,
            Self::Chunked(_) => 0,
        }
    }

    /// Passes over bytes that were not captured.
    pub(crate) fn skip(&mut self, len: u64) -> Skip {
        match self {
            Self::UntilClose => Skip::Inside,
            Self::Length(remaining) if len == *remaining => Skip::End,
            Self::Length(remaining) | Self::Chunked(Chunked::Data(remaining)) if len < *remaining => {
                *remaining -= len;
                Skip::Inside
            }
            _ => Skip::Lost,
        }
    }
}

impl Chunked {
    fn read(&mut self, bytes: &[u8]) -> Read {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(remaining) = self {
                let taken = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len() - at);
                *remaining -= taken as u64;
                at += taken;
                if *remaining == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            match self.byte(bytes[at]) {
                Some(false) => at += 1,
                Some(true) => return Read::Done(at + 1),
                None => return Read::Invalid,
            }
        }
        Read::All
    }

    /// Takes one byte outside of data; true if it ended the body, `None` if it cannot stand there.
    fn byte(&mut self, byte: u8) -> Option<bool> {
        *self = match (*self, byte) {
            (Self::Start | Self::Size(_), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = u64::from(char::from(byte).to_digit(16)?);
                let size = if let Self::Size(size) = *self { size } else { 0 };
                (size >> 60 == 0).then_some(Self::Size(size << 4 | digit))?
            }
            (Self::Size(size), b'\r' | b';' | b' ' | b'\t') => Self::Extension(size, 0),
            (Self::Size(0) | Self::Extension(0, _), b'\n') => Self::Trailer(0, false),
            (Self::Size(size) | Self::Extension(size, _), b'\n') => Self::Data(size),
            (Self::Extension(size, line), _) if line < LONGEST_LINE => Self::Extension(size, line + 1),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Start,
            (Self::Trailer(_, false), b'\n') => return Some(true),
            (Self::Trailer(all, true), b'\n') => Self::Trailer(all, false),
            (Self::Trailer(_, false), b'\r') => *self,
            (Self::Trailer(all, _), _) if all < LONGEST_LINE => Self::Trailer(all + 1, true),
            _ => return None,
        };
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut body: Body, bytes: &[u8], cut: usize) -> (Read, usize) {
        let mut at = 0;
        for part in bytes.chunks(cut) {
            match body.read(part) {
                Read::All => at += part.len(),
                Read::Done(taken) => return (Read::Done(at + taken), at + taken),
                Read::Invalid => return (Read::Invalid, at),
            }
        }
        (Read::All, at)
    }

    #[test]
    fn chunked_at_any_cut() {
        let body = b"5;ext=\"1\"\r\nhello\r\n0A \r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n";
        let mut stream = body.to_vec();
        stream.extend_from_slice(b"GET /next");
        for cut in 1..=stream.len() {
            assert_eq!(read_all(Body::CHUNKED, &stream, cut).0, Read::Done(body.len()), "cut {cut}");
        }
    }

    #[test]
    fn chunked_faults() {
        for bytes in ["x", "\r\n", "5\r\nhelloX", "-1\r\n", "FFFFFFFFFFFFFFFFF\r\n", ";\r\n"] {
            assert_eq!(read_all(Body::CHUNKED, bytes.as_bytes(), 100).0, Read::Invalid, "{bytes:?}");
        }
        let endless = format!("5;{}", "e".repeat(1 << 20));
        assert_eq!(read_all(Body::CHUNKED, endless.as_bytes(), 1000).0, Read::Invalid);
    }

    #[test]
    fn gaps() {
        assert_eq!(Body::Length(10).skip(9), Skip::Inside);
        assert_eq!(Body::Length(10).skip(10), Skip::End);
        assert_eq!(Body::Length(10).skip(11), Skip::Lost);
        assert_eq!(Body::Chunked(Chunked::Data(10)).skip(5), Skip::Inside);
        assert_eq!({ Body::CHUNKED }.skip(1), Skip::Lost);
        assert_eq!(Body::UntilClose.skip(u64::MAX), Skip::Inside);
    }
}
