//! What two programs say to each other over one connection, and when each of them says it.

#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::{fmt, ops::RangeInclusive};

use proptest::prelude::*;

/// One request and its response; both carry the number of the exchange.
#[derive(Clone)]
pub struct Exchange {
    pub method: &'static str,
    pub target: String,
    pub status: u16,
    /// Status codes of interim responses.
    pub interim: Vec<u16>,
    /// All bytes of the request, and how many of them are its head.
    pub request: Vec<u8>,
    pub head: usize,
    /// All bytes of interim responses and the response, and how many of them are interim ones.
    pub response: Vec<u8>,
    pub interim_len: usize,
    /// Whether the server answers when it has the head.
    pub early: bool,
    /// Whether only the end of the connection ends the response.
    pub until_close: bool,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, status, interim, .. } = self;
        let (asked, answered) = (self.request.len(), self.response.len());
        let early = if self.early { " early" } else { "" };
        write!(f, "{method} {target} ({asked} bytes) -> {interim:?} {status} ({answered} bytes){early}")
    }
}

/// When the client sends its next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// When it has the response to the one before.
    Waits,
    /// So many at once, and the next so many when it has all responses.
    Batches(usize),
    /// When fewer than so many have no response.
    Window(usize),
}

impl Habit {
    /// How many requests may have been sent when so many are answered.
    pub fn allows(self, answered: usize) -> usize {
        match self {
            Self::Waits => answered + 1,
            Self::Batches(size) => (answered / size + 1) * size,
            Self::Window(size) => answered + size,
        }
    }
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    ClientCloses,
    ServerCloses,
    /// The client says that it has nothing more to say right behind its last request.
    HalfClose,
    /// Each end, when it has had its last response or sent it, without waiting for the other's FIN.
    BothClose,
    /// One end cuts it off when so many packets were captured.
    Reset(usize),
    /// Nobody does: tracing ends first.
    Open,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    pub exchanges: Vec<Exchange>,
    pub habit: Habit,
    pub ending: Ending,
    /// What client and server say behind a response that switches to another protocol.
    pub tunnel: Vec<u8>,
}

/// Shape of one exchange, which its number makes unique.
type Shape = (&'static str, u8, usize, u8, usize, u8, bool);

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]),
        0_u8..3,
        prop_oneof![3 => 0_usize..40, 1 => 0_usize..3_000],
        0_u8..6,
        prop_oneof![3 => 0_usize..40, 1 => 0_usize..5_000],
        0_u8..3,
        prop::bool::weighted(0.1),
    )
}

/// Text that looks like messages, for bodies. Not where packets are missed: a body whose beginning nobody saw cannot be told
/// from what it looks like.
const BAIT: &[u8] =
    b"HTTP/1.1 599 Bait\r\nX-Tag: 99999\r\nContent-Length: 3\r\n\r\nGET /bait HTTP/1.1\r\nHost: bait\r\n\r\n";

fn body(len: usize, bait: bool) -> Vec<u8> {
    let pattern: &[u8] = if bait { BAIT } else { b"0123456789abcde\r\n" };
    pattern.iter().copied().cycle().take(len).collect()
}

fn framed(head: &str, kind: u8, body: &[u8]) -> (Vec<u8>, usize) {
    let (mut bytes, body) = match kind {
        0 => (format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes(), body.to_vec()),
        1 => {
            let mut chunked = Vec::new();
            for part in body.chunks(97) {
                chunked.extend(format!("{:x};ext=1\r\n", part.len()).bytes());
                chunked.extend(part);
                chunked.extend(b"\r\n");
            }
            chunked.extend(b"0\r\nTrailer: t\r\n\r\n");
            (format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes(), chunked)
        }
        _ => (format!("{head}\r\n").into_bytes(), Vec::new()),
    };
    let head = bytes.len();
    bytes.extend(body);
    (bytes, head)
}

/// The last exchange where it switches to another protocol, by CONNECT or Upgrade.
fn switch(number: usize) -> Exchange {
    let (method, status, fields) = match number % 2 {
        0 => ("CONNECT", 200, ""),
        _ => ("GET", 101, "Connection: upgrade\r\nUpgrade: other\r\n"),
    };
    let target = format!("/{number}");
    let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
    Exchange {
        method,
        target,
        status,
        interim: Vec::new(),
        head: request.len(),
        request,
        response: format!("HTTP/1.1 {status} X\r\nX-Tag: {number}\r\n{fields}\r\n").into_bytes(),
        interim_len: 0,
        early: false,
        until_close: false,
    }
}

fn exchange(number: usize, shape: &Shape, is_last: bool, bait: bool) -> Exchange {
    let (method, request_kind, request_len, response_kind, response_len, interims, early) = *shape;
    let bait = bait && number % 3 == 1;
    let target = format!("/{number}?{}", "q".repeat(number % 7));
    let (request, head) =
        framed(&format!("{method} {target} HTTP/1.1\r\nHost: h\r\n"), request_kind, &body(request_len, bait));
    let early = early && request.len() > head;
    let (mut interim, mut interim_bytes) = (Vec::new(), Vec::new());
    for code in [100, 103].into_iter().take(usize::from(interims)) {
        interim.push(code);
        interim_bytes.extend(format!("HTTP/1.1 {code} Wait\r\n\r\n").bytes());
    }
    let until_close = response_kind == 5 && is_last && method != "HEAD";
    let status = match response_kind {
        3 => 204,
        4 => 304,
        _ => 200 + u16::try_from(number % 90).expect("small") + 5,
    };
    let version = u8::from(number % 5 != 3);
    let head_text = format!("HTTP/1.{version} {status} X\r\nX-Tag: {number}\r\n");
    let has_body = method != "HEAD" && !matches!(status, 204 | 304);
    let text = body(response_len, bait);
    let final_bytes = if until_close {
        [format!("{head_text}\r\n").into_bytes(), text].concat()
    } else {
        let (bytes, head) = framed(&head_text, response_kind % 2, &text);
        if has_body { bytes } else { bytes[..head].to_vec() }
    };
    Exchange {
        method,
        target,
        status,
        interim,
        request,
        head,
        interim_len: interim_bytes.len(),
        response: [interim_bytes, final_bytes].concat(),
        early,
        until_close,
    }
}

/// Any conversation of so many exchanges; with `bait`, bodies are full of messages.
pub fn conversation(exchanges: RangeInclusive<usize>, bait: bool) -> impl Strategy<Value = Conversation> {
    let habit = prop_oneof![
        4 => Just(Habit::Waits),
        2 => (1_usize..6).prop_map(Habit::Batches),
        1 => Just(Habit::Batches(100)),
        2 => (2_usize..6).prop_map(Habit::Window),
    ];
    let ending = prop_oneof![
        3 => Just(Ending::ClientCloses),
        2 => Just(Ending::ServerCloses),
        1 => Just(Ending::HalfClose),
        1 => Just(Ending::BothClose),
        1 => (3_usize..60).prop_map(Ending::Reset),
        1 => Just(Ending::Open),
    ];
    let shapes = prop::collection::vec(shape(), exchanges);
    (shapes, habit, ending, prop::bool::weighted(0.1)).prop_map(move |(shapes, habit, ending, tunnel)| {
        let last = shapes.len() - 1;
        let number = |at: usize| at + 1;
        let closes = ending == Ending::ServerCloses;
        let exchanges = shapes.iter().enumerate().map(|(at, shape)| match tunnel && at == last {
            true => switch(number(at)),
            false => exchange(number(at), shape, closes && at == last, bait),
        });
        let said = if tunnel { body(if bait { 200 } else { 60 }, bait) } else { Vec::new() };
        Conversation { exchanges: exchanges.collect(), habit, ending, tunnel: said }
    })
}
