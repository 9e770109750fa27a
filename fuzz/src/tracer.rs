//! Target `tracer`: packets of four connections in any order, with any numbers and flags, any times, and interfaces
//! whose tracing ends, or that lose packets.
//!
//! Input: a byte of choices (bit 0: usual limits in the place of small ones), then [`Step`]s.

use arbitrary::Unstructured;
use clovisor_trace::{Limits, Loss, Packet, Protocol, Session, Side, Toward};

use crate::{
    steps::{Place, Segment, Split, Step},
    watched::{Watched, small_limits},
    wire,
};

/// Unit of [`Step::Wait`].
const TICK_NS: u64 = 100_000;
const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Does the steps. [`Watched`] has the laws.
pub fn run(input: &[u8]) {
    sessions_of(input);
}

/// The sessions that come of an input.
pub(crate) fn sessions_of(input: &[u8]) -> Vec<Session> {
    let Some((choices, steps)) = input.split_first() else { return Vec::new() };
    let limits = if choices & 1 == 0 { small_limits() } else { Limits::default() };
    let mut world = World {
        tracer: Watched::new(limits),
        now_ns: SECOND_NS,
        late_ns: 0,
        // The first two wrap soon.
        next: [[u32::MAX - 100, u32::MAX - 2_000], [1, 1], [1 << 31, 0], [5_000, 7_000_000]],
    };
    let mut steps = Unstructured::new(steps);
    while let Ok(Some(step)) = Step::read(&mut steps) {
        world.step(&step);
    }
    world.tracer.finish(world.now_ns)
}

struct World {
    tracer: Watched,
    now_ns: u64,
    /// How much older than now the next packet is.
    late_ns: u64,
    /// By connection and end, the next sequence number.
    next: [[u32; 2]; 4],
}

impl World {
    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Segment(segment) => self.segment(segment),
            Step::Wait(ticks) => self.now_ns += u64::from(*ticks) * TICK_NS,
            Step::WaitLong(seconds) => self.now_ns += u64::from(*seconds) * SECOND_NS,
            Step::Late(ms) => self.late_ns = u64::from(*ms) * MS_NS,
            Step::Timeout => self.tracer.timeout(self.now_ns),
            Step::Deadline => {
                let Some(deadline) = self.tracer.deadline() else { return };
                self.now_ns = self.now_ns.max(deadline);
                self.tracer.timeout(self.now_ns);
            }
            Step::FinishInterface(interface) => {
                self.tracer.finish_interface(u32::from(*interface), self.now_ns);
            }
            Step::Lose { interface, ms } => self.tracer.lose(&Loss {
                interface: (*interface > 0).then_some((*interface).into()),
                from_ns: self.now_ns.saturating_sub(u64::from(*ms) * MS_NS),
                until_ns: self.now_ns,
                packets: 1,
            }),
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        let connection = usize::from(segment.connection & 3);
        let (own, opposite) = if segment.from_server { (1, 0) } else { (0, 1) };
        let payload = segment.payload.bytes();
        // Room for headers in the 64 KiB of a packet.
        let payload = &payload[..payload.len().min(65_000)];
        let next = self.next[connection];
        let number = |place, next: u32| match place {
            Place::Next => next,
            Place::Near(distance) => next.wrapping_add_signed(distance.into()),
            Place::At(number) => number,
        };
        let seq = number(segment.seq, next[own]);
        let ack = segment.ack.map(|place| number(place, next[opposite]));
        if segment.seq == Place::Next {
            let len = u32::try_from(payload.len()).expect("below 64 KiB");
            let flags = u32::from(segment.syn) + u32::from(segment.fin);
            self.next[connection][own] = seq.wrapping_add(len).wrapping_add(flags);
        }
        let toward = if segment.from_server { Toward::Client } else { Toward::Server };
        let port = 40_000 + u16::from(segment.connection);
        let mut packet = wire::packet(toward, port, connection == 1, seq, payload, |tcp| {
            (tcp.ack, tcp.acknowledgment_number) = (ack.is_some(), ack.unwrap_or_default());
            (tcp.syn, tcp.fin, tcp.rst) = (segment.syn, segment.fin, segment.rst);
        });
        let wire_len = packet.len();
        match segment.split {
            None => self.give(connection, toward, wire_len, &packet),
            Some(Split::Cut(bytes)) => {
                packet.truncate(wire_len.saturating_sub(bytes.into()));
                self.give(connection, toward, wire_len, &packet);
            }
            Some(Split::Fragments(units)) => {
                let fragments =
                    wire::fragments(packet, segment.connection.into(), usize::from(units & 63) * 8);
                let arrive = fragments.iter().enumerate().filter(|(at, _)| units >> (6 + at) & 1 == 0);
                for (_, fragment) in arrive {
                    self.give(connection, toward, fragment.len(), fragment);
                }
            }
        }
        self.late_ns = 0;
    }

    /// Connection 3 has no parser; 2 is seen from the client's side; the odd ones are at another interface.
    fn give(&mut self, connection: usize, toward: Toward, wire_len: usize, data: &[u8]) {
        self.tracer.packet(&Packet {
            time_ns: self.now_ns - self.late_ns,
            interface: 1 + u32::from(connection % 2 == 1),
            side: if connection == 2 { Side::Client } else { Side::Server },
            toward,
            protocol: if connection == 3 { Protocol::Tcp } else { Protocol::Http },
            wire_len: u32::try_from(wire_len).expect("below 64 KiB"),
            data,
        });
    }
}
