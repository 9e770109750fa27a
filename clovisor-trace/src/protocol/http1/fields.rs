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

/// Runs a parse with few headers, and again with many where the few did not do.
pub(super) fn with_headers<'b, T>(
    bytes: &'b [u8],
    parse: impl Fn(&'b [u8], &mut [MaybeUninit<Header<'b>>]) -> Result<Option<T>, httparse::Error>,
) -> Result<T, Invalid> {
    let mut few = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    let parsed = match parse(bytes, &mut few) {
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

/// Header values are bytes (RFC 9110 section 5.5); what is not UTF-8 is shown as such.
pub(super) fn text(value: &[u8]) -> SmolStr {
    String::from_utf8_lossy(value.trim_ascii()).into()
}

pub(super) fn capture(headers: &[Header<'_>], wanted: &[String]) -> Vec<(String, String)> {
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

/// What the headers say of the body. `Transfer-Encoding` wins over `Content-Length` (RFC 9112 section 6.1);
/// lengths that differ are an error, repeated equal ones are not (section 6.3, rule 5).
pub(super) fn framing(headers: &[Header<'_>]) -> Framing {
    if let Some(last) = values(headers, "transfer-encoding").last() {
        let coding = last.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        return if coding.eq_ignore_ascii_case(b"chunked") { Framing::Chunked } else { Framing::OtherCoding };
    }
    let mut framing = Framing::Unsaid;
    for item in values(headers, "content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
        let item = item.trim_ascii();
        let digits = !item.is_empty() && item.iter().all(u8::is_ascii_digit);
        let Some(length) =
            std::str::from_utf8(item).ok().filter(|_| digits).and_then(|item| item.parse().ok())
        else {
            return Framing::Invalid;
        };
        match framing {
            Framing::Length(other) if other != length => return Framing::Invalid,
            _ => framing = Framing::Length(length),
        }
    }
    framing
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
