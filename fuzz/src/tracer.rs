//! Target `tracer`: packets of four connections in any order, with any numbers and flags, any times, and interfaces
//! whose tracing ends, or that lose packets.
//!
//! Input: a byte of choices (bit 0: usual limits in the place of small ones; bits 1 and 2: how late it is known what is unneeded), then
//! [`Step`]s.
//!
//! Three tracers get the packets: as they are, without the payload that nobody looks at, and where packets of that are only counted. All
//! keep the laws; with usual limits, and where nothing is lost, cut or late, they come to the same sessions.

use arbitrary::Unstructured;
use clovisor_trace::{Limits, Loss, Packet, Protocol, Session, Side, Toward};

use crate::{
    proper::Proper,
    steps::{Place, Segment, Split, Step},
    trim::Trim,
    watched::{Watched, small_limits},
    wire,
};

/// Unit of [`Step::Wait`].
const TICK_NS: u64 = 100_000;
const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Silence between two looks at the clock of whoever answers what is asked, at most: less than what a flow is given until it is taken
/// for silent, which is how long an answer has time.
const LOOK_NS: u64 = 60 * SECOND_NS;
/// How many packets come before what is unneeded is known, by two bits of the choices.
const DELAYS: [usize; 4] = [0, 1, 3, 7];

/// Does the steps. [`Watched`] has the laws.
pub fn run(input: &[u8]) {
    sessions_of(input);
}

/// The sessions that come of an input.
pub(crate) fn sessions_of(input: &[u8]) -> Vec<Session> {
    world_of(input).map_or_else(Vec::new, World::finish)
}

/// How many packets of an input were only counted.
#[cfg(test)]
pub(crate) fn counted_of(input: &[u8]) -> u64 {
    world_of(input).map_or(0, |world| world.tracers.iter().map(Watched::counted).sum())
}

/// What all steps of an input have led to.
fn world_of(input: &[u8]) -> Option<World> {
    let (choices, steps) = input.split_first()?;
    let is_usual = choices & 1 != 0;
    let limits = if is_usual { Limits::default() } else { small_limits() };
    let delay = DELAYS[usize::from(choices >> 1 & 3)];
    let mut world = World {
        tracers: [
            Watched::new(limits.clone()),
            Watched::with(limits.clone(), Trim::without_counting(delay)),
            Watched::with(limits, Trim::new(delay)),
        ],
        is_comparable: is_usual,
        is_countable: true,
        now_ns: SECOND_NS,
        late_ns: 0,
        proper: Default::default(),
        // The first two wrap soon.
        next: [[u32::MAX - 100, u32::MAX - 2_000], [1, 1], [1 << 31, 0], [5_000, 7_000_000]],
    };
    let mut steps = Unstructured::new(steps);
    while let Ok(Some(step)) = Step::read(&mut steps) {
        world.step(&step);
    }
    Some(world)
}

struct World {
    /// One that gets all of each packet, one that gets none of the payload that nobody looks at, and one that is only told how many
    /// packets had no other.
    tracers: [Watched; 3],
    /// Whether the first two come to the same, and whether all do.
    is_comparable: bool,
    is_countable: bool,
    now_ns: u64,
    /// How much older than now the next packet is.
    late_ns: u64,
    /// By connection, what may come of it.
    proper: [Proper; 4],
    /// By connection and end, the next sequence number.
    next: [[u32; 2]; 4],
}

impl World {
    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Segment(segment) => self.segment(segment),
            Step::Wait(ticks) => self.now_ns += u64::from(*ticks) * TICK_NS,
            Step::WaitLong(seconds) => self.wait_until(self.now_ns + u64::from(*seconds) * SECOND_NS),
            Step::Late(ms) => {
                self.late_ns = u64::from(*ms) * MS_NS;
                self.is_comparable &= *ms == 0;
            }
            Step::Timeout => self.timeout(),
            Step::Deadline => {
                let Some(deadline) = self.tracers[0].deadline() else { return };
                self.wait_until(self.now_ns.max(deadline));
                self.timeout();
            }
            Step::FinishInterface(interface) => {
                let (interface, now_ns) = (u32::from(*interface), self.now_ns);
                self.tracers.iter_mut().for_each(|tracer| tracer.finish_interface(interface, now_ns));
            }
            Step::Lose { interface, ms } => {
                let loss = Loss {
                    interface: (*interface > 0).then_some((*interface).into()),
                    from_ns: self.now_ns.saturating_sub(u64::from(*ms) * MS_NS),
                    until_ns: self.now_ns,
                    packets: 1,
                };
                self.tracers.iter_mut().for_each(|tracer| tracer.lose(&loss));
                self.is_comparable = false;
            }
        }
    }

    fn timeout(&mut self) {
        let now_ns = self.now_ns;
        self.tracers.iter_mut().for_each(|tracer| tracer.timeout(now_ns));
        self.look();
    }

    /// Where several connections are followed, one that was asked about stands behind those that were heard of meanwhile, and is
    /// given up later by as much as they are: by design, as nobody looks through all of them.
    fn look(&mut self) {
        let is_behind = self.tracers[0].idle() != self.tracers[2].idle();
        self.is_countable &= !is_behind || self.proper.iter().filter(|it| it.is_known()).count() < 2;
    }

    /// Time passes. What a tracer asks meanwhile is answered in time.
    fn wait_until(&mut self, until_ns: u64) {
        while until_ns - self.now_ns > LOOK_NS {
            self.now_ns += LOOK_NS;
            let now_ns = self.now_ns;
            let spared = self.tracers.iter_mut().filter(|tracer| tracer.is_spared());
            spared.for_each(|tracer| tracer.timeout(now_ns));
        }
        self.now_ns = until_ns;
    }

    /// Ends the tracing, and compares.
    fn finish(mut self) -> Vec<Session> {
        self.timeout();
        let Self { tracers, is_comparable, is_countable, now_ns, .. } = self;
        let [whole, trimmed, counted] = tracers.map(|tracer| tracer.finish(now_ns));
        if is_comparable {
            compare("without payload", &whole, trimmed);
        }
        if is_comparable && is_countable {
            compare("counted", &whole, counted);
        }
        whole
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
        let verdict = self.proper[connection].verdict(segment, seq, ack, payload.len());
        self.is_comparable &= verdict.may_trim;
        self.is_countable &= verdict.may_count;
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
                self.is_comparable = false;
                packet.truncate(wire_len.saturating_sub(bytes.into()));
                self.give(connection, toward, wire_len, &packet);
            }
            Some(Split::Fragments(units)) => {
                self.is_comparable = false;
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
        let packet = Packet {
            time_ns: self.now_ns - self.late_ns,
            interface: 1 + u32::from(connection % 2 == 1),
            side: if connection == 2 { Side::Client } else { Side::Server },
            toward,
            protocol: if connection == 3 { Protocol::Tcp } else { Protocol::Http },
            wire_len: u32::try_from(wire_len).expect("below 64 KiB"),
            data,
        };
        for tracer in &mut self.tracers {
            // A packet that comes between a question and its answer keeps a connection that nobody asks about from being given up. An
            // answer takes milliseconds, and the silence was minutes.
            if self.is_comparable && tracer.is_spared() {
                tracer.timeout(packet.time_ns);
            }
            tracer.packet(&packet);
        }
        self.look();
    }
}

/// Checks that sessions are the same; those of different connections may end in any order.
fn compare(what: &str, whole: &[Session], spared: Vec<Session>) {
    let by_connection = |mut sessions: Vec<Session>| {
        sessions.sort_by_key(|session| (session.interface, session.client, session.server));
        sessions
    };
    let (whole, spared) = (by_connection(whole.to_vec()), by_connection(spared));
    if let Some(at) = (0..whole.len().max(spared.len())).find(|at| whole.get(*at) != spared.get(*at)) {
        panic!("{what}: {:#?}\nin the place of {:#?}", spared.get(at), whole.get(at));
    }
}
