//! Heads of HTTP/1 messages (RFC 9112 sections 2 to 5): bytes to the few fields that sessions need.
//!
//! It refuses to keep a head: names and values that nobody asked for never leave this file.

use httparse::{Header, ParserConfig, Status};
use smol_str::SmolStr;

use super::{
    fields::{
        Framed, Room, capture, captured_memory, has_token, is_name, text, with_headers, with_lenient_headers,
    },
    line::{RequestLine, StatusLine},
    reader::LONGEST_METHOD,
};

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
    /// The headers contradict themselves, or the first line says that there are none: nobody can tell where the message ends.
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
    pub method: SmolStr,
    /// Request target as sent; empty if the request line has none.
    pub target: SmolStr,
    /// Minor version of HTTP/1, a digit; `None` if another version was sent, a broken one, or none.
    pub minor_version: Option<u8>,
    /// `Host`.
    pub host: Option<SmolStr>,
    /// `User-Agent`.
    pub user_agent: Option<SmolStr>,
    /// `X-Request-Id`.
    pub request_id: Option<SmolStr>,
    /// `X-Envoy-Decorator-Operation`.
    pub envoy_decorator: Option<SmolStr>,
    /// Headers that carry a trace context, name in lower case.
    pub trace_headers: Vec<(&'static str, SmolStr)>,
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
    /// Status code as sent, three digits.
    pub status: u16,
    /// Reason phrase as sent; may be empty.
    pub reason: SmolStr,
    /// Minor version of HTTP/1, a digit; `None` if another version was sent, or a broken one.
    pub minor_version: Option<u8>,
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

/// First values of the headers that every request is asked for.
#[derive(Default)]
struct Known<'a> {
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    envoy_decorator: Option<&'a [u8]>,
    /// As [`TRACE_HEADERS`].
    trace: [Option<&'a [u8]>; TRACE_HEADERS.len()],
    /// Whether any of these is there.
    has_trace: bool,
    /// Whether it asks for another protocol: both headers must say so.
    upgrades: bool,
    framed: Framed<'a>,
}

impl<'a> Known<'a> {
    /// Looks at each header once: there are more names to look for than headers in most requests. Length and first letter
    /// leave at most a few names that it can be.
    fn among(headers: &[Header<'a>]) -> Self {
        let mut known = Self::default();
        let (mut has_upgrade, mut connection_upgrades) = (false, false);
        for header @ Header { name, value } in headers {
            let is = |usual: &'static str| is_name(name, usual);
            let place = match (name.len(), name.as_bytes().first().map(u8::to_ascii_lowercase)) {
                (4, Some(b'h')) if is("Host") => &mut known.host,
                (10, Some(b'u')) if is("User-Agent") => &mut known.user_agent,
                (12, Some(b'x')) if is("X-Request-Id") => &mut known.request_id,
                (27, Some(b'x')) if is("X-Envoy-Decorator-Operation") => &mut known.envoy_decorator,
                (7, Some(b'u')) if is("Upgrade") => {
                    has_upgrade = true;
                    continue;
                }
                (10, Some(b'c')) if is("Connection") => {
                    connection_upgrades |= has_token(value, "upgrade");
                    continue;
                }
                (14 | 17, Some(b'c' | b't')) => {
                    known.framed.note(header);
                    continue;
                }
                (2 | 10..=13 | 17, Some(b'b' | b't' | b'u' | b'x')) => {
                    match TRACE_HEADERS.iter().position(|trace| is(trace)) {
                        Some(at) => {
                            known.has_trace = true;
                            &mut known.trace[at]
                        }
                        None => continue,
                    }
                }
                _ => continue,
            };
            place.get_or_insert(value);
        }
        known.upgrades = has_upgrade && connection_upgrades;
        known
    }

    /// The headers that carry a trace context.
    fn trace_headers(&self) -> Vec<(&'static str, SmolStr)> {
        if !self.has_trace {
            return Vec::new();
        }
        let found = TRACE_HEADERS.iter().zip(self.trace);
        found.filter_map(|(name, value)| Some((*name, text(value?)))).collect()
    }
}

impl RequestHead {
    /// The method, if it is one of [`KNOWN_METHODS`].
    pub(crate) fn known_method(&self) -> Option<&'static str> {
        KNOWN_METHODS.into_iter().find(|method| *method == self.method)
    }

    /// Parses a whole head, its empty line included; `wanted` are names to capture, in lower case. A head that is not clean is
    /// read as the most lenient servers do.
    pub(crate) fn parse(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        let strict = with_headers(bytes, |bytes, room| {
            Ok(parse_request(bytes, room)?.map(|(request, _)| Self::of(&request, wanted)))
        });
        strict.or_else(|Invalid| Self::parse_leniently(bytes, wanted))
    }

    /// What a clean head says.
    #[inline]
    pub(super) fn of(request: &httparse::Request<'_, '_>, wanted: &[String]) -> Self {
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        Self::from_parts(method_text(method), target.into(), request.version, request.headers, wanted)
    }

    fn parse_leniently(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        let line = RequestLine::read(first_line(bytes).ok_or(Invalid)?).ok_or(Invalid)?;
        let with = |headers: &[Header<'_>]| {
            let RequestLine { method, target, version } = &line;
            Self::from_parts(method.clone(), target.clone(), version.minor(), headers, wanted)
        };
        let whole = if line.has_head() { with_lenient_headers(bytes, with).ok() } else { None };
        // Where there are no headers, or too many, nobody can tell where it ends.
        Ok(whole.unwrap_or_else(|| Self { framing: Framing::Invalid, ..with(&[]) }))
    }

    /// What can be told of the first bytes of a head that was never seen whole: its first line, if that was, and the lines
    /// behind it that were.
    pub(crate) fn parse_cut_short(bytes: &[u8]) -> Option<Self> {
        Self::parse(&whole_lines(bytes)?, &[]).ok()
    }

    fn from_parts(
        method: SmolStr,
        target: SmolStr,
        minor_version: Option<u8>,
        headers: &[Header<'_>],
        wanted: &[String],
    ) -> Self {
        let known = Known::among(headers);
        Self {
            target,
            minor_version,
            host: known.host.map(text),
            user_agent: known.user_agent.map(text),
            request_id: known.request_id.map(text),
            envoy_decorator: known.envoy_decorator.map(text),
            trace_headers: known.trace_headers(),
            captured: capture(headers, wanted),
            framing: known.framed.framing(),
            wants_tunnel: known.upgrades || method == "CONNECT",
            method,
        }
    }

    /// Bytes of memory held beside the struct itself, about.
    pub(crate) fn memory(&self) -> usize {
        let optional = [&self.host, &self.user_agent, &self.request_id, &self.envoy_decorator];
        self.method.len()
            + self.target.len()
            + optional.into_iter().flatten().map(SmolStr::len).sum::<usize>()
            + self.trace_headers.iter().map(|(_, value)| value.len() + 40).sum::<usize>()
            + captured_memory(&self.captured)
    }
}

impl ResponseHead {
    /// Parses a whole head, its empty line included; `wanted` are names to capture, in lower case. A head that is not clean is
    /// read as the most lenient clients do.
    pub(crate) fn parse(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        let strict = with_headers(bytes, |bytes, room| {
            Ok(parse_response(bytes, room)?.map(|(response, _)| Self::of(&response, wanted)))
        });
        strict.or_else(|Invalid| Self::parse_leniently(bytes, wanted))
    }

    /// What a clean head says.
    #[inline]
    pub(super) fn of(response: &httparse::Response<'_, '_>, wanted: &[String]) -> Self {
        Self {
            status: response.code.unwrap_or_default(),
            reason: reason_text(response.reason.unwrap_or_default()),
            minor_version: response.version,
            captured: capture(response.headers, wanted),
            framing: Framed::of(response.headers).framing(),
        }
    }

    fn parse_leniently(bytes: &[u8], wanted: &[String]) -> Result<Self, Invalid> {
        let line = StatusLine::read(first_line(bytes).ok_or(Invalid)?).ok_or(Invalid)?;
        let with = |headers: &[Header<'_>]| Self {
            status: line.status,
            reason: line.reason.clone(),
            minor_version: line.version.minor(),
            captured: capture(headers, wanted),
            framing: Framed::of(headers).framing(),
        };
        let whole = with_lenient_headers(bytes, with).ok();
        Ok(whole.unwrap_or_else(|| Self { framing: Framing::Invalid, ..with(&[]) }))
    }

    /// What can be told of the first bytes of a head that was never seen whole: its first line, if that was, and the lines
    /// behind it that were.
    pub(crate) fn parse_cut_short(bytes: &[u8]) -> Option<Self> {
        Self::parse(&whole_lines(bytes)?, &[]).ok()
    }

    /// Bytes of memory held beside the struct itself, about.
    pub(crate) fn memory(&self) -> usize {
        self.reason.len() + captured_memory(&self.captured)
    }
}

/// A method; the usual ones are not copied.
#[inline]
fn method_text(method: &str) -> SmolStr {
    match method {
        "GET" => SmolStr::new_static("GET"),
        "POST" => SmolStr::new_static("POST"),
        other => SmolStr::new(other),
    }
}

/// A reason phrase; the usual one is not copied.
#[inline]
fn reason_text(reason: &str) -> SmolStr {
    if reason == "OK" { SmolStr::new_static("OK") } else { SmolStr::new(reason) }
}

/// The clean and whole head of a request at the front of bytes, if one is there that is not too long; and its length.
#[inline]
pub(super) fn strict_request<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
    longest: usize,
) -> Option<(httparse::Request<'h, 'b>, usize)> {
    let is_one = |request: &httparse::Request<'_, '_>, len: usize| {
        len <= longest && request.method.is_some_and(|method| method.len() <= LONGEST_METHOD)
    };
    parse_request(bytes, room).ok().flatten().filter(|(request, len)| is_one(request, *len))
}

/// The same of a response.
#[inline]
pub(super) fn strict_response<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
    longest: usize,
) -> Option<(httparse::Response<'h, 'b>, usize)> {
    parse_response(bytes, room).ok().flatten().filter(|(_, len)| *len <= longest)
}

#[inline]
fn parse_request<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
) -> Result<Option<(httparse::Request<'h, 'b>, usize)>, httparse::Error> {
    let mut request = httparse::Request::new(&mut []);
    let mut config = ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    Ok(match config.parse_request_with_uninit_headers(&mut request, bytes, room)? {
        Status::Partial => None,
        Status::Complete(len) => Some((request, len)),
    })
}

#[inline]
fn parse_response<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
) -> Result<Option<(httparse::Response<'h, 'b>, usize)>, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let mut config = ParserConfig::default();
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    Ok(match config.parse_response_with_uninit_headers(&mut response, bytes, room)? {
        Status::Partial => None,
        Status::Complete(len) => Some((response, len)),
    })
}

/// The first line, if it is whole.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(&bytes[..end])
}

/// The lines that are whole, made a head by an empty one.
fn whole_lines(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n')? + 1;
    Some([&bytes[..end], b"\r\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            fields::few_headers,
            reader::{Event, Reader},
        },
        *,
    };

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
        assert_eq!(request("G(T / HTTP/1.1\r\n\r\n"), Err(Invalid));
        assert_eq!(request("nonsense\r\n\r\n"), Err(Invalid));
    }

    #[test]
    fn heads_that_are_not_clean() {
        let head = request("GET /a b HTTP/1.\r\nHost : h\r\nbad line\r\nContent-Length:\r\n 5\r\n\r\n")
            .expect("read");
        assert_eq!((&*head.target, head.minor_version, head.framing), ("/a b", None, Framing::Length(5)));
        assert_eq!(head.host.as_deref(), Some("h"));
        let without_head = request("GET /\r\nContent-Length: 5\r\n\r\n").expect("read");
        assert_eq!((without_head.minor_version, without_head.framing), (None, Framing::Invalid));
        let response =
            ResponseHead::parse(b"HTTP/1.1\t404\r\nContent-Length : 5\r\n\r\n", &[]).expect("read");
        assert_eq!((response.status, response.framing), (404, Framing::Length(5)));
        assert_eq!(ResponseHead::parse(b"ICY 200 OK\r\n\r\n", &[]), Err(Invalid));
    }

    #[test]
    fn heads_cut_short() {
        for (bytes, target) in [
            ("GET /a HTTP/1.1\r\nHost: h\r\nUser-Ag", Some("/a")),
            ("GET /a HTTP/1.1\r\n", Some("/a")),
            ("GET /a\r\n", Some("/a")),
            ("GET /a HTTP/1.1", None),
        ] {
            let head = RequestHead::parse_cut_short(bytes.as_bytes());
            assert_eq!(head.as_ref().map(|head| &*head.target), target, "{bytes:?}");
            assert_eq!(head.and_then(|head| head.host).is_some(), bytes.contains("Host: h"));
        }
        assert_eq!(
            ResponseHead::parse_cut_short(b"HTTP/1.1 200 OK\r\nServ").map(|head| head.status),
            Some(200)
        );
        assert_eq!(ResponseHead::parse_cut_short(b"HTTP/1.1 20"), None);
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
        let head = request(&format!("GET / HTTP/1.1\r\n{lines}{lines}\r\n")).expect("a request line");
        assert_eq!((&*head.method, &*head.target, head.framing), ("GET", "/", Framing::Invalid));
    }

    #[test]
    fn clean_heads_end_where_any_head_does() {
        let wanted = ["x-id".to_owned()];
        let (mut requests, mut responses) = (0, 0);
        for sample in [
            "GET /a HTTP/1.1\r\nHost: h\r\nX-Id:  7 \nContent-Length: 3\r\nB3: 1-2\r\n\r\n\nabc",
            "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\nX-Id: 7\n\n\r\nabc",
        ] {
            for (place, byte) in
                (0..sample.len()).flat_map(|place| (0..=u8::MAX).map(move |byte| (place, byte)))
            {
                let mut bytes = sample.as_bytes().to_vec();
                bytes[place] = byte;
                let (mut asked, mut answered) = (Reader::<false>::new(), Reader::<true>::new());
                if asked.may_begin(&bytes)
                    && let Some((request, len)) = strict_request(&bytes, &mut few_headers(), 1_000)
                {
                    requests += 1;
                    let head = RequestHead::of(&request, &wanted);
                    assert_eq!(RequestHead::parse(&bytes[..len], &wanted), Ok(head));
                    assert_eq!(asked.read(&bytes, 1_000), Event::Head(len, bytes[..len].into()));
                }
                if answered.may_begin(&bytes)
                    && let Some((response, len)) = strict_response(&bytes, &mut few_headers(), 1_000)
                {
                    responses += 1;
                    let head = ResponseHead::of(&response, &wanted);
                    assert_eq!(ResponseHead::parse(&bytes[..len], &wanted), Ok(head));
                    assert_eq!(answered.read(&bytes, 1_000), Event::Head(len, bytes[..len].into()));
                }
            }
        }
        assert!(requests > 5_000 && responses > 5_000, "{requests} {responses}");
    }
}
