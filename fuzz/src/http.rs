//! Target `http`: what two ends say over one connection, and that cuts into segments change nothing of it.
//!
//! Input: a byte of choices ([`Choices`]), then what is said, the client first. In it [`TURN`] hands over to the other
//! end and [`CUT`] ends a segment; every other byte is payload. A turn acknowledges all turns before it, and all its
//! segments come at one time, so that the times of sessions are the same at any cut, too.
//!
//! The law: one segment a turn, the cuts of the input, and a cut at every byte give the same sessions, but for
//! their counts of packets. Where bytes could not be read it holds for the sessions before: reading goes on at the next
//! *packet* that starts like a message, and where packets start is what cuts change.
//!
//! Beside that: an exchange that was seen to its end is reported then, and not when the connection or the tracing ends.

use clovisor_trace::{Detail, Framing, Limits, Outcome, Packet, Protocol, Session, Side, Toward};

use crate::{
    watched::{Watched, small_limits},
    wire,
};

/// Hands over to the other end.
pub const TURN: u8 = 0xFE;
/// Ends a segment.
pub const CUT: u8 = 0xFD;

/// Longest input that is also cut at every byte; longer ones would take too long.
const MOST_SINGLE_BYTES: usize = 600;
/// First sequence numbers: the client's wraps soon.
const FIRST_SEQ: [u32; 2] = [u32::MAX - 50, 1_000];

/// Bits of the first byte.
#[derive(Clone, Copy)]
struct Choices(u8);

impl Choices {
    fn limits(self) -> Limits {
        let small = small_limits();
        let mut limits = Limits { headers: small.headers, ..Limits::default() };
        if self.0 & 1 != 0 {
            limits.head = small.head;
        }
        if self.0 & 2 != 0 {
            limits.pipeline = small.pipeline;
        }
        limits
    }

    fn ending(self) -> Ending {
        [Ending::Silence, Ending::Fins, Ending::ServerFirst, Ending::Reset][usize::from(self.0 >> 2 & 3)]
    }

    fn side(self) -> Side {
        if self.0 & 16 == 0 { Side::Server } else { Side::Client }
    }
}

/// How the connection ends.
#[derive(Clone, Copy)]
enum Ending {
    Silence,
    Fins,
    ServerFirst,
    Reset,
}

/// Runs what is said in three cuts and compares.
pub fn run(input: &[u8]) {
    let Some((&choices, said)) = input.split_first() else { return };
    let choices = Choices(choices);
    let whole = sessions(choices, said, Cuts::None);
    compare(choices, &whole, &sessions(choices, said, Cuts::AsMarked));
    if said.len() <= MOST_SINGLE_BYTES {
        compare(choices, &whole, &sessions(choices, said, Cuts::EveryByte));
    }
}

/// Which cuts are made within a turn.
#[derive(Clone, Copy)]
enum Cuts {
    None,
    AsMarked,
    EveryByte,
}

/// The sessions that come of an input.
#[cfg(test)]
pub(crate) fn sessions_of(input: &[u8]) -> Vec<Session> {
    let cut = |(choices, said): (&u8, &[u8])| sessions(Choices(*choices), said, Cuts::AsMarked);
    input.split_first().map_or_else(Vec::new, cut)
}

/// The sessions of the connection.
fn sessions(choices: Choices, said: &[u8], cuts: Cuts) -> Vec<Session> {
    let mut line = Line::open(choices);
    for (turn, bytes) in said.split(|byte| *byte == TURN).enumerate() {
        let toward = if turn % 2 == 0 { Toward::Server } else { Toward::Client };
        line.now_ns += 1_000_000;
        let payload: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != CUT).collect();
        match cuts {
            // One packet cannot have more than 64 KiB; no input of a usual length does.
            Cuts::None => payload.chunks(60_000).for_each(|part| line.say(toward, part)),
            Cuts::AsMarked => bytes.split(|byte| *byte == CUT).for_each(|part| line.say(toward, part)),
            Cuts::EveryByte => payload.chunks(1).for_each(|part| line.say(toward, part)),
        }
    }
    line.end(choices.ending())
}

/// A connection that has shaken hands.
struct Line {
    tracer: Watched,
    side: Side,
    now_ns: u64,
    /// Next sequence number of each end.
    next: [u32; 2],
}

impl Line {
    fn open(choices: Choices) -> Self {
        let tracer = Watched::new(choices.limits());
        let mut line = Self { tracer, side: choices.side(), now_ns: 1_000_000_000, next: FIRST_SEQ };
        line.send(Toward::Server, b"", |tcp| (tcp.syn, tcp.ack) = (true, false));
        line.next[0] = line.next[0].wrapping_add(1);
        line.send(Toward::Client, b"", |tcp| tcp.syn = true);
        line.next[1] = line.next[1].wrapping_add(1);
        line.send(Toward::Server, b"", |_| ());
        line
    }

    fn say(&mut self, toward: Toward, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.send(toward, bytes, |_| ());
        let len = u32::try_from(bytes.len()).expect("inputs are short");
        let next = &mut self.next[toward as usize];
        *next = next.wrapping_add(len);
    }

    fn end(mut self, ending: Ending) -> Vec<Session> {
        self.now_ns += 1_000_000;
        let first = if matches!(ending, Ending::ServerFirst) { Toward::Client } else { Toward::Server };
        match ending {
            Ending::Silence => {}
            Ending::Fins | Ending::ServerFirst => {
                for toward in [first, first.opposite()] {
                    self.send(toward, b"", |tcp| tcp.fin = true);
                    self.next[toward as usize] = self.next[toward as usize].wrapping_add(1);
                }
            }
            Ending::Reset => self.send(first, b"", |tcp| tcp.rst = true),
        }
        self.tracer.timeout(self.now_ns + 200_000_000);
        let before = self.tracer.ended();
        let sessions = self.tracer.finish(self.now_ns + 300_000_000);
        for session in &sessions[before..] {
            let was_over = matches!(session.outcome, Outcome::Complete | Outcome::Upgraded);
            assert!(!was_over || session.request_end_ns.is_none(), "reported late: {session:#?}");
        }
        sessions
    }

    fn send(&mut self, toward: Toward, payload: &[u8], set: impl FnOnce(&mut etherparse::TcpHeader)) {
        let (seq, ack) = (self.next[toward as usize], self.next[toward.opposite() as usize]);
        let data = wire::packet(toward, 40_000, false, seq, payload, |tcp| {
            (tcp.ack, tcp.acknowledgment_number) = (true, ack);
            set(tcp);
        });
        self.tracer.timeout(self.now_ns);
        self.tracer.packet(&Packet {
            time_ns: self.now_ns,
            interface: 1,
            side: self.side,
            toward,
            protocol: Protocol::Http,
            wire_len: u32::try_from(data.len()).expect("below 64 KiB"),
            data: &data,
        });
    }
}

/// Checks the law.
fn compare(choices: Choices, whole: &[Session], cut: &[Session]) {
    // No byte before the first of these sessions is unread.
    let first_unread = |sessions: &[Session]| {
        sessions.iter().filter(|session| is_unread(choices, session)).map(|session| session.start_ns).min()
    };
    let unread = [first_unread(whole), first_unread(cut)];
    assert_eq!(unread[0].is_some(), unread[1].is_some(), "{whole:#?}\nand {cut:#?}");
    let until = unread.into_iter().flatten().min().unwrap_or(u64::MAX);
    let read = |sessions: &[Session]| -> Vec<Session> {
        sessions.iter().filter(|session| session.end_ns < until).map(without_packets).collect()
    };
    assert_eq!(read(whole), read(cut), "until {until}");
}

/// Whether bytes at or behind this session may not have been read.
fn is_unread(choices: Choices, session: &Session) -> bool {
    let Detail::Http(http) = &session.detail else { return true };
    // What is held behind a request for another protocol is no session, so none says that it was too much.
    let may_hold_too_much = choices.0 & 1 != 0 && http.request.as_ref().is_some_and(|head| head.wants_tunnel);
    let is_response_read = http
        .response
        .as_ref()
        .is_some_and(|head| !matches!(head.framing, Framing::Chunked | Framing::Invalid | Framing::Unsaid));
    match session.outcome {
        Outcome::Unparsed | Outcome::Truncated | Outcome::CaptureGap => true,
        // That its request was not seen comes first, so it does not say whether its response could be read: one that has no end could
        // not. Nobody knows how long one is that does not say it, when even a request for its head may have been missed.
        Outcome::RequestUnobserved => !is_response_read || session.anatomy.answer_end_ns.is_none(),
        _ => may_hold_too_much,
    }
}

fn without_packets(session: &Session) -> Session {
    let mut session = session.clone();
    (session.request.packets, session.response.packets) = (0, 0);
    session
}
