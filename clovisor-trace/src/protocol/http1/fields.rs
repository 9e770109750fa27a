//! Header fields (RFC 9110 section 5): their values, and what they say of the body.
//!
//! Clean heads are parsed where they lie. Others are put right first, in the ways that RFC 9110 section 5.5 and RFC 9112
//! sections 2.2 and 5.2 allow a recipient, and lines that no way makes a field are left out.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};
use smol_str::SmolStr;

use super::head::{Framing, Invalid};

/// Headers that fit on the stack; a head with more is parsed once again with [`MOST_HEADERS`].
const USUAL_HEADERS: usize = 64;
/// A head with more headers than this is not parsed; 1,024 fill a head of the largest size taken.
const MOST_HEADERS: usize = 1024;

/// Room for the headers of a head.
pub(super) type Room<'b> = [MaybeUninit<Header<'b>>];

/// Room for as many headers as most heads have at most. It is not cleared.
#[inline]
pub(super) fn few_headers<'b>() -> [MaybeUninit<Header<'b>>; USUAL_HEADERS] {
    [const { MaybeUninit::uninit() }; USUAL_HEADERS]
}

/// Runs a parse with few headers, and again with many where the few did not do.
pub(super) fn with_headers<'b, T>(
    bytes: &'b [u8],
    parse: impl Fn(&'b [u8], &mut Room<'b>) -> Result<Option<T>, httparse::Error>,
) -> Result<T, Invalid> {
    let parsed = match parse(bytes, &mut few_headers()) {
        Err(httparse::Error::TooManyHeaders) => parse(bytes, &mut vec![MaybeUninit::uninit(); MOST_HEADERS]),
        other => other,
    };
    parsed.ok().flatten().ok_or(Invalid)
}

/// Hands the fields of a head that is not clean to `take`: a whole head, of which the first line is passed over.
pub(super) fn with_lenient_headers<T>(bytes: &[u8], take: impl Fn(&[Header<'_>]) -> T) -> Result<T, Invalid> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Invalid)? + 1;
    // The parser wants a first line; only its response side is lenient.
    let mut clean = b"HTTP/1.1 200\r\n".to_vec();
    put_right(&bytes[end..], &mut clean);
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    config.allow_space_before_first_header_name(true);
    config.ignore_invalid_headers_in_responses(true);
    with_headers(&clean, |bytes, headers| {
        let mut response = httparse::Response::new(&mut []);
        match config.parse_response_with_uninit_headers(&mut response, bytes, headers)? {
            Status::Partial => Ok(None),
            Status::Complete(_) => Ok(Some(take(response.headers))),
        }
    })
}

/// Appends header lines with a space for each NUL, each CR that ends no line, and each line end that a line goes on behind.
fn put_right(lines: &[u8], clean: &mut Vec<u8>) {
    let at = |place: usize| lines.get(place).copied();
    let goes_on = |end: usize| end > 0 && matches!(at(end + 1), Some(b' ' | b'\t'));
    for (place, byte) in lines.iter().copied().enumerate() {
        let is_odd = match byte {
            b'\0' => true,
            b'\r' => at(place + 1) != Some(b'\n') || goes_on(place + 1),
            b'\n' => goes_on(place),
            _ => false,
        };
        clean.push(if is_odd { b' ' } else { byte });
    }
}

/// Values of all headers of a name.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Whether a name is this, which stands here as most write it, and is compared in one piece with it first.
#[inline]
pub(super) fn is_name(name: &str, usual: &'static str) -> bool {
    name == usual || name.eq_ignore_ascii_case(usual)
}

/// Header values are bytes (RFC 9110 section 5.5); what is not UTF-8 is shown as such. They come without white space around
/// them (section 5.5).
#[inline]
pub(super) fn text(value: &[u8]) -> SmolStr {
    str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value).into(), SmolStr::new)
}

#[inline]
pub(super) fn capture(headers: &[Header<'_>], wanted: &[String]) -> Vec<(String, String)> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let of = |name: &String, value| (name.clone(), text(value).into());
    wanted.iter().flat_map(|name| values(headers, name).map(move |value| of(name, value))).collect()
}

pub(super) fn captured_memory(captured: &[(String, String)]) -> usize {
    captured.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>()).sum()
}

/// Whether a comma-separated list has a token, in any case.
pub(super) fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the headers say of the body, taken in one after the other. `Transfer-Encoding` wins over `Content-Length` (RFC 9112 section
/// 6.1); lengths that differ are an error, repeated equal ones are not (section 6.3, rule 5).
#[derive(Default)]
pub(super) struct Framed<'a> {
    /// The last of the codings.
    coding: Option<&'a [u8]>,
    /// All lengths so far: none, one, or what is an error.
    length: Option<Result<u64, Invalid>>,
}

impl<'a> Framed<'a> {
    /// Those of all headers.
    #[inline]
    pub(super) fn of(headers: &[Header<'a>]) -> Self {
        let mut framed = Self::default();
        headers.iter().for_each(|header| framed.note(header));
        framed
    }

    /// Takes a header in, which may be any. Most are told by their lengths.
    #[inline]
    pub(super) fn note(&mut self, header: &Header<'a>) {
        match header.name.len() {
            14 if is_name(header.name, "Content-Length") => match header.value {
                // One number, as most are.
                value if value.iter().all(u8::is_ascii_digit) => self.note_length(value),
                list => list.split(|byte| *byte == b',').for_each(|item| self.note_length(item.trim_ascii())),
            },
            17 if is_name(header.name, "Transfer-Encoding") => self.coding = Some(header.value),
            _ => {}
        }
    }

    fn note_length(&mut self, item: &[u8]) {
        let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
        let further = |length: u64, byte: &u8| length.checked_mul(10)?.checked_add(digit(*byte)?);
        let length = if item.is_empty() { None } else { item.iter().try_fold(0, further) };
        self.length = Some(match (&self.length, length) {
            (None, Some(length)) => Ok(length),
            (Some(Ok(before)), Some(length)) if *before == length => Ok(length),
            _ => Err(Invalid),
        });
    }

    /// What they say together.
    pub(super) fn framing(self) -> Framing {
        if let Some(last) = self.coding {
            let coding = last.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            return if is_chunked { Framing::Chunked } else { Framing::OtherCoding };
        }
        match self.length {
            None => Framing::Unsaid,
            Some(Ok(length)) => Framing::Length(length),
            Some(Err(Invalid)) => Framing::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_are_not_clean() {
        for (lines, expected) in [
            ("a: 1\r\nb: 2\r\n", "a=1 b=2"),
            ("a: 1\nb:2\n", "a=1 b=2"),
            ("a: 1\r\n  2\r\n\t3\r\nb: 4\r\n", "a=1____2___3 b=4"),
            ("a : 1\r\nb\t: 2\r\n", "a=1 b=2"),
            (" a: 1\r\nb: 2\r\n", "a=1 b=2"),
            ("no colon\r\nb: 2\r\n", "b=2"),
            (": no name\r\nb: 2\r\n", "b=2"),
            ("a(b): 1\r\nb: 2\r\n", "b=2"),
            ("a: 1\r2\0\r\nb: \x01\r\nc: 3\r\n", "a=1_2 c=3"),
            ("a: \u{e4}\r\n", "a=\u{e4}"),
        ] {
            let head = format!("first line\r\n{lines}\r\n");
            let fields = |headers: &[Header<'_>]| {
                let fields = headers.iter().map(|header| {
                    format!("{}={}", header.name, text(header.value).replace([' ', '\t'], "_"))
                });
                fields.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(with_lenient_headers(head.as_bytes(), fields).as_deref(), Ok(expected), "{lines:?}");
        }
    }
}
