//! A TCP connection on paper: what two ends say, cut into segments with true sequence and acknowledgement
//! numbers, and what the network may do to them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

#[path = "../trim/mod.rs"]
pub mod trim;

use clovisor_trace::{Limits, Packet, Protocol, Session, Side, Toward, Tracer};
use etherparse::PacketBuilder;
use trim::Trim;

/// One packet, in the order in which it was sent.
#[derive(Clone, Debug)]
pub struct Frame {
    pub toward: Toward,
    pub data: Vec<u8>,
    pub wire_len: u32,
}

/// One end of the connection.
#[derive(Clone, Copy)]
struct Endpoint {
    ip: [u8; 4],
    port: u16,
    next: u32,
}

/// A connection that writes down its packets.
pub struct Wire {
    ends: [Endpoint; 2],
    pub frames: Vec<Frame>,
}

pub const SERVER_PORT: u16 = 8080;

impl Wire {
    /// A connection that has shaken hands; the ends start at these sequence numbers.
    pub fn open(client_port: u16, client_seq: u32, server_seq: u32) -> Self {
        let mut wire = Self::in_the_middle(client_port, client_seq, server_seq);
        wire.push(Toward::Server, b"", |tcp| tcp.syn = true);
        wire.frames[0] = wire.rebuild(Toward::Server, b"", wire.ends[0].next, None, |tcp| tcp.syn = true);
        wire.ends[0].next = wire.ends[0].next.wrapping_add(1);
        wire.push(Toward::Client, b"", |tcp| tcp.syn = true);
        wire.ends[1].next = wire.ends[1].next.wrapping_add(1);
        wire.push(Toward::Server, b"", |_| {});
        wire
    }

    /// A connection whose beginning nobody saw.
    pub fn in_the_middle(client_port: u16, client_seq: u32, server_seq: u32) -> Self {
        let client = Endpoint { ip: [10, 0, 0, 1], port: client_port, next: client_seq };
        let server = Endpoint { ip: [10, 0, 0, 2], port: SERVER_PORT, next: server_seq };
        Self { ends: [client, server], frames: Vec::new() }
    }

    fn rebuild(
        &self,
        toward: Toward,
        payload: &[u8],
        seq: u32,
        ack: Option<u32>,
        set: impl Fn(&mut etherparse::TcpHeader),
    ) -> Frame {
        let (from, to) = match toward {
            Toward::Server => (self.ends[0], self.ends[1]),
            Toward::Client => (self.ends[1], self.ends[0]),
        };
        let mut tcp = etherparse::TcpHeader::new(from.port, to.port, seq, 65_535);
        if let Some(ack) = ack {
            tcp.ack = true;
            tcp.acknowledgment_number = ack;
        }
        set(&mut tcp);
        let mut data = Vec::new();
        PacketBuilder::ipv4(from.ip, to.ip, 64).tcp_header(tcp).write(&mut data, payload).expect("fits");
        let wire_len = u32::try_from(data.len()).expect("fits");
        Frame { toward, data, wire_len }
    }

    fn push(&mut self, toward: Toward, payload: &[u8], set: impl Fn(&mut etherparse::TcpHeader)) {
        let (seq, ack) = match toward {
            Toward::Server => (self.ends[0].next, self.ends[1].next),
            Toward::Client => (self.ends[1].next, self.ends[0].next),
        };
        let frame = self.rebuild(toward, payload, seq, Some(ack), set);
        self.frames.push(frame);
    }

    /// Sends bytes, cut into segments by the sizes in turn.
    pub fn send(&mut self, toward: Toward, bytes: &[u8], sizes: &mut impl Iterator<Item = usize>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len().min(1400));
            self.push(toward, &rest[..size], |tcp| tcp.psh = true);
            let end = &mut self.ends[toward as usize];
            end.next = end.next.wrapping_add(u32::try_from(size).expect("small"));
            rest = &rest[size..];
        }
    }

    /// Acknowledges what the other end has sent.
    pub fn ack(&mut self, toward: Toward) {
        self.push(toward, b"", |_| {});
    }

    /// Acknowledges, and says how much more it takes.
    pub fn window(&mut self, toward: Toward, window: u16) {
        self.push(toward, b"", |tcp| tcp.window_size = window);
    }

    pub fn fin(&mut self, toward: Toward) {
        self.push(toward, b"", |tcp| tcp.fin = true);
        let end = &mut self.ends[toward as usize];
        end.next = end.next.wrapping_add(1);
    }

    pub fn reset(&mut self, toward: Toward) {
        self.push(toward, b"", |tcp| tcp.rst = true);
    }
}

/// Whole segments, one a call of `send`.
pub fn whole() -> impl Iterator<Item = usize> {
    std::iter::repeat(usize::MAX)
}

/// Gives packets to a tracer, a microsecond apart, and ends it after a second of silence. Without the payload that nobody looks at
/// the sessions are the same.
pub fn trace_with(frames: &[Frame], protocol: Protocol, limits: Limits) -> (Vec<Session>, Tracer) {
    // What a capture cuts is missing, even if nobody looks at it.
    let is_whole = frames.iter().all(|frame| frame.data.len() == frame.wire_len as usize);
    let delays = [0, 1, 7].into_iter().filter(|_| is_whole);
    let trimmed = delays.map(|delay| {
        let limits = Limits { unneeded: Some(1), ..limits.clone() };
        (delay, trace_trimmed(frames, protocol, limits, Some(&mut Trim::new(delay))).0)
    });
    let trimmed: Vec<_> = trimmed.collect();
    let (sessions, tracer) = trace_trimmed(frames, protocol, limits, None);
    for (delay, trimmed) in trimmed {
        assert_eq!(trimmed, sessions, "told after {delay} packets");
    }
    (sessions, tracer)
}

/// The same, with or without the payload that nobody looks at.
pub fn trace_trimmed(
    frames: &[Frame],
    protocol: Protocol,
    limits: Limits,
    mut trim: Option<&mut Trim>,
) -> (Vec<Session>, Tracer) {
    let mut tracer = Tracer::new(limits);
    let mut sessions = Vec::new();
    let mut now = 1_000_000_000;
    for frame in frames {
        now += 1_000;
        tracer.handle_timeout(now);
        let packet = Packet {
            time_ns: now,
            interface: 1,
            side: Side::Server,
            toward: frame.toward,
            protocol,
            wire_len: frame.wire_len,
            data: &frame.data,
        };
        match &mut trim {
            Some(trim) => trim.hand_in(&mut tracer, &packet),
            None => tracer.handle_packet(&packet),
        }
        assert_eq!(tracer.ledger().balance(), Ok(()));
        sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    }
    for _ in 0..20 {
        now += 50_000_000;
        tracer.handle_timeout(now);
        if let Some(trim) = &mut trim {
            trim.hear(&mut tracer, now);
        }
    }
    if let Some(trim) = &mut trim {
        trim.finish(&mut tracer, None, now);
    }
    tracer.finish(now);
    sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    assert_eq!(tracer.ledger().balance(), Ok(()));
    (sessions, tracer)
}

/// The same for HTTP with default limits.
pub fn trace(frames: &[Frame]) -> Vec<Session> {
    trace_with(frames, Protocol::Http, Limits::default()).0
}

/// What a session says, on one line.
pub fn line(session: &Session) -> String {
    let clovisor_trace::Detail::Http(exchange) = &session.detail else {
        return format!("tcp {} {}", session.outcome.name(), session.request.bytes + session.response.bytes);
    };
    let request = exchange.request.as_ref().map_or("?".to_owned(), |r| format!("{} {}", r.method, r.target));
    let interim: String = exchange.interim.iter().map(|code| format!("{code} ")).collect();
    let response = exchange.response.as_ref().map_or("?".to_owned(), |r| r.status.to_string());
    format!(
        "{request} -> {interim}{response} {} {}/{}",
        session.outcome.name(),
        session.request.bytes,
        session.response.bytes
    )
}

pub fn lines(sessions: &[Session]) -> Vec<String> {
    sessions.iter().map(line).collect()
}
