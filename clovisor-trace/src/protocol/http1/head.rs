//! Heads of HTTP/1 messages (RFC 9112 sections 2 to 5): bytes to the few fields that sessions need.
//!
//! It refuses to keep a head: names and values that nobody asked for never leave this file.

use httparse::{Header, ParserConfig, Status};

/// Headers that fit on the stack; a head with more is parsed once again with [`MOST_HEADERS`].
const USUAL_HEADERS: usize = 64;
/// A head with more headers than this is not parsed; 1,024 fill a head of the largest size taken.
const MOST_HEADERS: usize = 1024;

/// How the body of a message is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No header speaks of a body.
    Unsaid,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding` whose last coding is `chunked`.
    Chunked,
    /// `Transfer-Encoding` whose last coding is another: the body ends with the connection.
    OtherCoding,
    /// The headers contradict themselves, so nobody can tell where the body ends.
    Invalid,
}

/// Methods that `http.request.method` may name (RFC 9110 section 9, RFC 5789, and QUERY of RFC 10008's draft
/// line, which the conventions list); others would make it unbounded.
const KNOWN_METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// What a request said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Method as sent; any token is one.
    pub method: String,
    /// Request target as sent.
    pub target: String,
    /// Minor version: 0 or 1 of HTTP/1.
    pub minor_version: u8,
    /// `Host`.
    pub host: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
    /// `X-Envoy-Decorator-Operation`.
    pub envoy_decorator: Option<String>,
    /// Headers that carry a trace context, name in lower case.
    pub trace_headers: Vec<(&'static str, String)>,
    /// Headers that were asked for, name in lower case.
    pub captured: Vec<(String, String)>,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether it asks to switch the protocol (`Upgrade` with `Connection: upgrade`), or is CONNECT.
    pub wants_tunnel: bool,
}

/// What a response said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Reason phrase as sent; may be empty.
    pub reason: String,
    /// Minor version: 0 or 1 of HTTP/1.
    pub minor_version: u8,
    /// Headers that were asked for, name in lower case.
    pub captured: Vec<(String, String)>,
    /// How its body is framed, were its status and request to allow one.
    pub framing: Framing,
}

/// The bytes cannot be the head of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// Headers whose values tell the caller's span, by name in lower case.
const TRACE_HEADERS: [&str; 9] = [
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
];

impl RequestHead {
    /// The method, if it is one of [`KNOWN_METHODS`].
    pub(crate) fn known_method(&self) -> Option<&'static str> {
        KNOWN_METHODS.into_iter().find(|method| *method == self.method)
    }

    /// Parses a whole head, its empty line included; `wanted` are names to capture, in lower case.
    pub(crate) fn parse(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        with_headers(bytes, |bytes, headers| {
            let mut request = httparse::Request::new(headers);
            let mut config = ParserConfig::default();
            config.allow_multiple_spaces_in_request_line_delimiters(true);
            match config.parse_request(&mut request, bytes)? {
                Status::Partial => Ok(None),
                Status::Complete(_) => Ok(Some(Self::from_parsed(&request, wanted))),
            }
        })
    }

    fn from_parsed(request: &httparse::Request<'_, '_>, wanted: &[String]) -> Self {
        let headers = &*request.headers;
        let method = request.method.unwrap_or_default().to_owned();
        let upgrades = find(headers, "upgrade").is_some()
            && values(headers, "connection").any(|value| has_token(value, "upgrade"));
        Self {
            target: request.path.unwrap_or_default().to_owned(),
            minor_version: request.version.unwrap_or(1),
            host: find(headers, "host"),
            user_agent: find(headers, "user-agent"),
            request_id: find(headers, "x-request-id"),
            envoy_decorator: find(headers, "x-envoy-decorator-operation"),
            trace_headers: TRACE_HEADERS
                .iter()
                .filter_map(|name| Some((*name, find(headers, name)?)))
                .collect(),
            captured: capture(headers, wanted),
            framing: framing(headers),
            wants_tunnel: upgrades || method == "CONNECT",
            method,
        }
    }

    /// Bytes of memory held beside the struct itself, about.
    pub(crate) fn memory(&self) -> usize {
        let optional = [&self.host, &self.user_agent, &self.request_id, &self.envoy_decorator];
        self.method.len()
            + self.target.len()
            + optional.into_iter().flatten().map(String::len).sum::<usize>()
            + self.trace_headers.iter().map(|(_, value)| value.len() + 40).sum::<usize>()
            + captured_memory(&self.captured)
    }
}

impl ResponseHead {
    /// Parses a whole head, its empty line included; `wanted` are names to capture, in lower case.
    pub(crate) fn parse(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        with_headers(bytes, |bytes, headers| {
            let mut response = httparse::Response::new(headers);
            let mut config = ParserConfig::default();
            config.allow_obsolete_multiline_headers_in_responses(true);
            config.allow_spaces_after_header_name_in_responses(true);
            config.allow_multiple_spaces_in_response_status_delimiters(true);
            match config.parse_response(&mut response, bytes)? {
                Status::Partial => Ok(None),
                Status::Complete(_) => Ok(Some(Self {
                    status: response.code.unwrap_or_default(),
                    reason: response.reason.unwrap_or_default().to_owned(),
                    minor_version: response.version.unwrap_or(1),
                    captured: capture(response.headers, wanted),
                    framing: framing(response.headers),
                })),
            }
        })
    }

    /// Bytes of memory held beside the struct itself, about.
    pub(crate) fn memory(&self) -> usize {
        self.reason.len() + captured_memory(&self.captured)
    }
}

/// Runs a parse with few headers, and again with many where the few did not do.
fn with_headers<'b, T>(
    bytes: &'b [u8],
    parse: impl Fn(&'b [u8], &mut [Header<'b>]) -> Result<Option<T>, httparse::Error>,
) -> Result<T, Invalid> {
    let mut few = [httparse::EMPTY_HEADER; USUAL_HEADERS];
    let parsed = match parse(bytes, &mut few) {
        Err(httparse::Error::TooManyHeaders) => parse(bytes, &mut vec![httparse::EMPTY_HEADER; MOST_HEADERS]),
        other => other,
    };
    parsed.ok().flatten().ok_or(Invalid)
}

/// Values of all headers of a name.
fn values<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn find(headers: &[Header<'_>], name: &str) -> Option<String> {
    values(headers, name).next().map(text)
}

/// Header values are bytes (RFC 9110 section 5.5); what is not UTF-8 is shown as such.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.trim_ascii()).into_owned()
}

fn capture(headers: &[Header<'_>], wanted: &[String]) -> Vec<(String, String)> {
    wanted.iter().flat_map(|name| values(headers, name).map(|value| (name.clone(), text(value)))).collect()
}

fn captured_memory(captured: &[(String, String)]) -> usize {
    captured.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>()).sum()
}

/// Whether a comma-separated list has a token, in any case.
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the headers say of the body. `Transfer-Encoding` wins over `Content-Length` (RFC 9112 section 6.1);
/// lengths that differ are an error, repeated equal ones are not (section 6.3, rule 5).
fn framing(headers: &[Header<'_>]) -> Framing {
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

    fn request(head: &str) -> Result<RequestHead, Invalid> {
        RequestHead::parse(head.as_bytes(), &["x-id".to_owned()])
    }

    #[test]
    fn framing_of_requests() {
        for (headers, expected) in [
            ("", Framing::Unsaid),
            ("Content-Length: 5\r\n", Framing::Length(5)),
            ("content-length: 005\r\n", Framing::Length(5)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("Content-Length: 5, 5\r\n", Framing::Length(5)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Framing::Invalid),
            ("Content-Length: -5\r\n", Framing::Invalid),
            ("Content-Length: +5\r\n", Framing::Invalid),
            ("Content-Length: 99999999999999999999999\r\n", Framing::Invalid),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("Transfer-Encoding: gzip, Chunked\r\n", Framing::Chunked),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Framing::Chunked),
            ("Transfer-Encoding: chunked, gzip\r\n", Framing::OtherCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", Framing::OtherCoding),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            assert_eq!(request(&head).expect(headers).framing, expected, "{headers}");
        }
    }

    #[test]
    fn any_method_is_one() {
        for method in ["GET", "PROPFIND", "M-SEARCH", "QUERY", "X!#$%&'*+.^_`|~9"] {
            assert_eq!(request(&format!("{method} / HTTP/1.0\r\n\r\n")).expect(method).method, method);
        }
        assert_eq!(request("G T / HTTP/1.1\r\n\r\n"), Err(Invalid));
        assert_eq!(request("GET / HTTP/2.0\r\n\r\n"), Err(Invalid));
    }

    #[test]
    fn tunnels_and_captured_headers() {
        let head = request(
            "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nX-ID: 7\r\n\r\n",
        )
        .expect("valid");
        assert!(head.wants_tunnel);
        assert_eq!(head.captured, [("x-id".to_owned(), "7".to_owned())]);
        assert!(!request("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n").expect("valid").wants_tunnel);
        assert!(request("CONNECT a:1 HTTP/1.1\r\n\r\n").expect("valid").wants_tunnel);
    }

    #[test]
    fn many_headers() {
        let lines: String = (0..1000).map(|i| format!("h{i}: {i}\r\n")).collect();
        assert!(request(&format!("GET / HTTP/1.1\r\n{lines}\r\n")).is_ok());
        assert_eq!(request(&format!("GET / HTTP/1.1\r\n{lines}{lines}\r\n")), Err(Invalid));
    }
}
