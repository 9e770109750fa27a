//! One direction of an HTTP/1 connection: where heads and bodies begin and end.
//!
//! It refuses to interpret heads: a whole head is handed out, and whoever knows the request says how the
//! body that follows is framed.

use super::{
    body::{Body, Read},
    line::{RequestLine, StatusLine},
};
use crate::{packet::Toward, protocol::conversation::Chunk};

/// Longest first line, in bytes, by which a direction comes back into step: the longest that nginx takes by default.
const LONGEST_LINE: usize = 8 << 10;

/// Longest method that is taken for one when looking whether bytes can be a request.
pub(super) const LONGEST_METHOD: usize = 32;

/// Methods that bring a stream back into step (RFC 9110, RFC 5789, RFC 4918). An unknown one would not do:
/// where the bytes before it were lost, it may be the end of a longer one.
const RESYNC_METHODS: [&[u8]; 14] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"REPORT",
];

/// Which kind of message the direction carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

/// What the next bytes of a direction are.
#[derive(Debug)]
pub(crate) enum State {
    /// Between messages, or in a head of which these bytes are here: at least one.
    Head(Option<Box<Kept>>),
    /// In a body.
    Body(Body),
    /// Behind a request that asked for another protocol: nobody knows until the response. Bytes so far.
    Hold(Box<Kept>),
    /// Another protocol, behind the session that led to it.
    Tunnel,
    /// Another protocol, all of it of one session.
    Opaque,
    /// Out of step; a packet that starts like a message may bring it back.
    Lost,
}

/// Bytes that came before it is known what they are. Boxed, since most times there are none.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
}

impl State {
    /// Between messages.
    pub(crate) const BETWEEN: Self = Self::Head(None);
}

/// The first bytes of a packet that may start a message, as long as nobody can tell.
#[derive(Debug)]
pub(crate) struct Maybe {
    pub(crate) offset: u64,
    pub(crate) time_ns: u64,
    pub(crate) acked: u64,
    pub(crate) is_bound: bool,
    pub(crate) bytes: Vec<u8>,
}

/// What the bytes at the front of a chunk turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Line ends before a message, which RFC 9112 section 2.2 lets pass.
    Nothing(usize),
    /// So many bytes of a head that goes on.
    HeadPart(usize),
    /// So many bytes that made a head whole; here it is.
    Head(usize, std::borrow::Cow<'a, [u8]>),
    /// So many bytes of a body that goes on.
    BodyPart(usize),
    /// So many bytes that ended a body.
    BodyEnd(usize),
    /// Bytes of something else: to be passed over.
    Foreign(usize),
    /// Bytes that are kept until it is known what they are.
    Held(usize),
    /// These cannot be of this protocol.
    Invalid,
    /// These are more than a head may have.
    TooLong,
}

impl Maybe {
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// As it came: the start of its packet.
    pub(crate) fn chunk(&self, toward: Toward) -> Chunk<'_> {
        let Self { offset, time_ns, acked, is_bound, .. } = *self;
        Chunk { toward, time_ns, offset, acked, is_bound, bytes: &self.bytes, packets: 1, trouble: None }
    }
}

/// Reads one direction. Which one is part of its type, and takes no room in a connection at rest.
#[derive(Debug)]
pub(crate) struct Reader<const RESPONSES: bool> {
    pub(crate) state: State,
    /// Only where the state is [`State::Lost`].
    pub(super) maybe: Option<Box<Maybe>>,
}

impl<const RESPONSES: bool> Reader<RESPONSES> {
    const KIND: Kind = if RESPONSES { Kind::Response } else { Kind::Request };

    pub(crate) fn new() -> Self {
        Self { state: State::BETWEEN, maybe: None }
    }

    /// Whether a head may begin at the front of `bytes`. One that is whole and clean, as most are, need not be looked for its end
    /// then, nor be kept: a strict parser finds the same end, since in a clean head each line feed ends a line, but it passes over
    /// empty lines. All else is for [`read`](Self::read).
    #[inline]
    pub(crate) fn may_begin(&self, bytes: &[u8]) -> bool {
        self.is_between() && !matches!(bytes.first(), None | Some(b'\r' | b'\n'))
    }

    /// Looks at the front of `bytes`, of which at least one is there.
    pub(crate) fn read<'a>(&mut self, bytes: &'a [u8], longest_head: usize) -> Event<'a> {
        match &mut self.state {
            State::Head(held) => read_head(Self::KIND, held, bytes, longest_head),
            State::Body(body) => match body.read(bytes) {
                Read::All => Event::BodyPart(bytes.len()),
                Read::Done(taken) => Event::BodyEnd(taken),
                Read::Invalid => Event::Invalid,
            },
            State::Hold(held) if held.bytes.len() + bytes.len() > longest_head => Event::TooLong,
            State::Hold(held) => {
                held.bytes.extend_from_slice(bytes);
                Event::Held(bytes.len())
            }
            State::Tunnel | State::Opaque | State::Lost => Event::Foreign(bytes.len()),
        }
    }

    /// Comes back into step if a chunk looks like the start of a message: it begins where a packet did, or where one before
    /// had ended. A first line may need several packets: those before this chunk are returned, to be read first.
    pub(crate) fn resync(&mut self, chunk: &Chunk<'_>) -> Option<Box<Maybe>> {
        if !self.is_lost() {
            return None;
        }
        if let Some(mut maybe) = self.maybe.take().filter(|maybe| maybe.end() == chunk.offset) {
            let held = maybe.bytes.len();
            maybe.bytes.extend_from_slice(chunk.bytes);
            if starts_message(Self::KIND, &maybe.bytes) {
                self.state = State::BETWEEN;
                maybe.bytes.truncate(held);
                return Some(maybe);
            }
            if self.may_become(&maybe.bytes) {
                self.maybe = Some(maybe);
                return None;
            }
        }
        if starts_message(Self::KIND, chunk.bytes) {
            self.state = State::BETWEEN;
        } else if self.may_become(chunk.bytes) {
            let Chunk { offset, time_ns, acked, is_bound, .. } = *chunk;
            let bytes = chunk.bytes.to_vec();
            self.maybe = Some(Box::new(Maybe { offset, time_ns, acked, is_bound, bytes }));
        }
        None
    }

    /// Whether bytes are the start of a message, beyond doubt.
    pub(crate) fn starts_message(&self, bytes: &[u8]) -> bool {
        starts_message(Self::KIND, bytes)
    }

    /// Where the first line begins that this chunk may be part of.
    pub(crate) fn start_of(&self, chunk: &Chunk<'_>) -> u64 {
        self.maybe
            .as_ref()
            .filter(|maybe| maybe.end() == chunk.offset)
            .map_or(chunk.offset, |maybe| maybe.offset)
    }

    /// Whether bytes are of a first line that goes on.
    fn may_become(&self, bytes: &[u8]) -> bool {
        let begins = |method: &&[u8]| method.starts_with(bytes) || bytes.starts_with(method);
        let is_known = Self::KIND == Kind::Response || RESYNC_METHODS.iter().any(begins);
        bytes.len() <= LONGEST_LINE && is_known && may_start(Self::KIND, bytes) && !bytes.contains(&b'\n')
    }

    /// Takes the first bytes of a head that will never be whole.
    pub(crate) fn take_cut_short(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Head(held) if held.as_ref().is_some_and(|held| may_start(Self::KIND, &held.bytes)) => {
                held.take().map(|held| held.bytes)
            }
            _ => None,
        }
    }

    /// The stream has ended: a first line with its version is whole then, although its line end is missing.
    pub(crate) fn end(&mut self) {
        if let State::Head(Some(held)) = &mut self.state
            && !held.bytes.contains(&b'\n')
            && is_whole_at_end(Self::KIND, &held.bytes)
        {
            held.bytes.push(b'\n');
        }
    }

    /// Whether it is out of step.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Whether it is of another protocol, and counted.
    pub(super) fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Whether it stands between two messages.
    #[inline]
    pub(crate) fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(None))
    }

    /// How many of the next bytes need not be looked at.
    pub(crate) fn unneeded(&self) -> u64 {
        match &self.state {
            State::Body(body) => body.unneeded(),
            State::Tunnel | State::Opaque => u64::MAX,
            State::Head(_) | State::Hold(_) | State::Lost => 0,
        }
    }

    #[inline]
    pub(crate) fn memory(&self) -> usize {
        match &self.state {
            State::Head(None) => 0,
            State::Head(Some(held)) | State::Hold(held) => size_of::<Kept>() + held.bytes.capacity(),
            _ => self.maybe.as_ref().map_or(0, |maybe| maybe.bytes.capacity()),
        }
    }
}

fn read_head<'a>(kind: Kind, kept: &mut Option<Box<Kept>>, bytes: &'a [u8], longest: usize) -> Event<'a> {
    if kept.is_none() {
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 {
            return Event::Nothing(blank);
        }
        if !may_start(kind, bytes) {
            return Event::Invalid;
        }
        if let Some(end) = head_end(bytes, 0).filter(|end| *end <= longest) {
            return Event::Head(end, (&bytes[..end]).into());
        }
    }
    let held = &mut kept.get_or_insert_default().bytes;
    let (before, seen) = (held.len(), held.len().saturating_sub(3));
    let room = longest.saturating_sub(before).min(bytes.len());
    held.extend_from_slice(&bytes[..room]);
    if let Some(end) = head_end(held, seen) {
        let mut whole = std::mem::take(held);
        *kept = None;
        whole.truncate(end);
        return Event::Head(end - before, whole.into());
    }
    match may_start(kind, held) {
        false => Event::Invalid,
        true if room < bytes.len() => Event::TooLong,
        true => Event::HeadPart(bytes.len()),
    }
}

/// Where a head ends, behind its empty line; a bare LF ends a line too (RFC 9112 section 2.2).
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|found| {
        let at = from + found + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => Some(at + 1),
            [b'\r', b'\n', ..] => Some(at + 2),
            _ => None,
        }
    })
}

/// Whether bytes, of a head in part or whole, can be the start of a message.
fn may_start(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Response => {
            let prefix = b"HTTP/";
            let len = bytes.len().min(prefix.len());
            bytes[..len] == prefix[..len]
        }
        Kind::Request => match bytes.iter().position(|byte| !is_token(*byte)) {
            None => bytes.len() <= LONGEST_METHOD,
            Some(end) => (1..=LONGEST_METHOD).contains(&end) && bytes[end] == b' ',
        },
    }
}

/// Whether a first line that the end of the stream has cut off is one that can be told.
fn is_whole_at_end(kind: Kind, line: &[u8]) -> bool {
    match kind {
        Kind::Request => RequestLine::read(line).is_some_and(|line| line.version.minor().is_some()),
        Kind::Response => StatusLine::read(line).is_some(),
    }
}

/// Whether bytes are, beyond doubt, the start of a message: a whole first line with its version.
fn starts_message(kind: Kind, bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return false };
    let line = bytes[..end].trim_ascii_end();
    let version = |text: &[u8]| text == b"HTTP/1.1" || text == b"HTTP/1.0";
    may_start(kind, bytes)
        && match kind {
            Kind::Response => {
                line.get(..8).is_some_and(version) && line.get(9).is_some_and(u8::is_ascii_digit)
            }
            Kind::Request => {
                let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
                RESYNC_METHODS.contains(&method)
                    && line.rsplit(|byte| *byte == b' ').next().is_some_and(version)
            }
        }
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Requests = Reader<false>;
    type Responses = Reader<true>;

    #[test]
    fn heads_at_any_cut() {
        let head = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
        for cut in 1..head.len() {
            let mut reader = Requests::new();
            assert_eq!(reader.read(&head[..cut], 100), Event::HeadPart(cut));
            let mut rest = head[cut..].to_vec();
            rest.extend_from_slice(b"body");
            let Event::Head(taken, whole) = reader.read(&rest, 100) else { panic!("cut {cut}") };
            assert_eq!((taken, &*whole), (head.len() - cut, &head[..]));
        }
    }

    #[test]
    fn endless_and_foreign_heads() {
        let mut reader = Requests::new();
        assert_eq!(reader.read(b"GET / HTTP/1.1\r\nA: ", 30), Event::HeadPart(19));
        assert_eq!(reader.read(&[b'x'; 100], 30), Event::TooLong);
        assert_eq!(Requests::new().read(b"\x16\x03\x01", 100), Event::Invalid);
        assert_eq!(Requests::new().read(&[b'A'; 33], 100), Event::Invalid);
        assert_eq!(Responses::new().read(b"HTTQ", 100), Event::Invalid);
        assert_eq!(Responses::new().read(b"\r\n", 100), Event::Nothing(2));
    }

    #[test]
    fn only_whole_first_lines_bring_back_into_step() {
        for (kind, bytes, found) in [
            (Kind::Request, "GET /a HTTP/1.1\r\nHost: b\r\n", true),
            (Kind::Request, "GET /a HTTP/1.1", false),
            (Kind::Request, "ET /a HTTP/1.1\r\nHost: b\r\n", false),
            (Kind::Request, "some text of a body\r\n", false),
            (Kind::Response, "HTTP/1.1 200 OK\r\n", true),
            (Kind::Response, "HTTP/1.1 OK\r\n", false),
        ] {
            let is_found = match kind {
                Kind::Request => comes_back::<false>(bytes),
                Kind::Response => comes_back::<true>(bytes),
            };
            assert_eq!(is_found, found, "{bytes}");
        }
    }

    fn comes_back<const RESPONSES: bool>(bytes: &str) -> bool {
        let mut reader = Reader::<RESPONSES> { state: State::Lost, maybe: None };
        reader.resync(&chunk(0, bytes));
        matches!(reader.state, State::Head(_))
    }

    fn chunk(offset: u64, bytes: &str) -> Chunk<'_> {
        let (toward, bytes) = (Toward::Server, bytes.as_bytes());
        Chunk { toward, time_ns: offset, offset, acked: 1, is_bound: false, bytes, packets: 1, trouble: None }
    }

    #[test]
    fn a_first_line_may_come_in_parts() {
        let mut reader = Requests { state: State::Lost, maybe: None };
        assert!(reader.resync(&chunk(0, "GET /a")).is_none());
        assert!(reader.resync(&chunk(6, "/b HTTP/1.1")).is_none());
        let before = reader.resync(&chunk(17, "\r\n")).expect("the parts before");
        assert_eq!((before.offset, &before.bytes[..]), (0, &b"GET /a/b HTTP/1.1"[..]));
        assert!(matches!(reader.state, State::Head(_)));
        let mut reader = Requests { state: State::Lost, maybe: None };
        assert!(reader.resync(&chunk(0, "GET /a")).is_none());
        assert!(reader.resync(&chunk(7, " HTTP/1.1\r\n")).is_none(), "a byte is missing");
        assert!(matches!(reader.state, State::Lost));
    }
}
