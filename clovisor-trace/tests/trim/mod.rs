//! What the kernel side does with stretches that nobody looks at, on paper: packets of them come without their payload, or are
//! only counted, by the very rule that it has ([`clovisor_common::counting`]).
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
};

use clovisor_common::{
    Window,
    counting::{self, AHEAD, Reach, Seen},
};
use clovisor_trace::{Counted, Packet, Side, Toward, Tracer, Unneeded, Way, Wish};
use etherparse::{IpFragOffset, LaxPacketHeaders, LaxPayloadSlice, NetHeaders, TcpHeader, TransportHeader};

/// Picks packets as the kernel side does.
pub struct Trim {
    connections: BTreeMap<Ends, Connection>,
    /// What the kernel side is not told yet.
    late: VecDeque<(usize, Unneeded)>,
    /// So many packets come before it is told.
    delay: usize,
    /// Whether packets are counted, too.
    counts: bool,
    packets: usize,
    /// Bytes of payload that were not copied.
    pub spared: usize,
    /// Packets that were only counted.
    pub counted: u64,
    /// At this packet it does not note how far its direction has come, as when another processor had the next one first.
    pub misses: Option<usize>,
}

/// What tells a connection: its interface, which end the pod there is, client and server.
type Ends = (u32, Side, SocketAddr, SocketAddr);

/// What it knows of a connection.
#[derive(Default)]
struct Connection {
    /// How far each direction has come.
    reach: [Reach; 2],
    /// That before the last packet.
    before: [Reach; 2],
    /// What is not needed, if it is told.
    spared: Option<([Window; 2], bool)>,
    counted: counting::Counted,
    /// What was handed in of each direction: packets with and without payload, and bytes.
    told: [(u32, u32, u64); 2],
}

/// What becomes of a packet.
enum Fate {
    /// It comes with all of its payload.
    Whole,
    /// It comes without.
    Trimmed,
    /// It does not come.
    Counted,
}

/// The headers of a packet.
struct Headers {
    source: SocketAddr,
    destination: SocketAddr,
    tcp: TcpHeader,
    /// Bytes of them all.
    len: usize,
    is_fragment: bool,
}

impl Trim {
    pub fn new(delay: usize) -> Self {
        let (connections, late) = (BTreeMap::new(), VecDeque::new());
        Self { connections, late, delay, counts: true, packets: 0, spared: 0, counted: 0, misses: None }
    }

    /// One that only leaves payload out.
    pub fn without_counting(delay: usize) -> Self {
        Self { counts: false, ..Self::new(delay) }
    }

    /// Gives a packet to the tracer, what of it is copied, or nothing.
    pub fn hand_in(&mut self, tracer: &mut Tracer, packet: &Packet<'_>) {
        self.packets += 1;
        let now_ns = packet.time_ns;
        while self.late.front().is_some_and(|(when, _)| *when < self.packets) {
            if let Some((_, told)) = self.late.pop_front() {
                self.note(&told, tracer, now_ns);
            }
        }
        let kept = match Headers::of(packet.data) {
            Some(headers) => match self.pick(tracer, packet, &headers) {
                Fate::Whole => packet.data,
                Fate::Trimmed => &packet.data[..headers.len],
                Fate::Counted => {
                    self.counted += 1;
                    self.spared += packet.data.len() - headers.len;
                    return self.hear(tracer, now_ns);
                }
            },
            None => packet.data,
        };
        self.spared += packet.data.len() - kept.len();
        tracer.handle_packet(&Packet { data: kept, ..*packet });
        self.hear(tracer, now_ns);
    }

    fn pick(&mut self, tracer: &mut Tracer, packet: &Packet<'_>, headers: &Headers) -> Fate {
        let (client, server) = match packet.toward {
            Toward::Server => (headers.source, headers.destination),
            Toward::Client => (headers.destination, headers.source),
        };
        let ends = (packet.interface, packet.side, client, server);
        let connection = self.connections.entry(ends).or_default();
        let mut tell = |connection: &mut Connection| {
            tracer.handle_counted(&connection.news(ends), packet.time_ns);
        };
        let before = connection.reach;
        let fate = connection.pick(packet, headers, self.counts, &mut tell);
        if self.misses == Some(self.packets) {
            connection.reach = before;
        }
        fate
    }

    /// Hears what the tracer has to say.
    pub fn hear(&mut self, tracer: &mut Tracer, now_ns: u64) {
        while let Some(told) = tracer.poll_unneeded() {
            match told.wish {
                Wish::Spare { bytes, .. } => {
                    bytes
                        .iter()
                        .for_each(|(from, until)| assert!(until.wrapping_sub(*from) < AHEAD, "{told:?}"));
                    self.late.push_back((self.packets + self.delay, told));
                }
                Wish::Ask => self.note(&told, tracer, now_ns),
                Wish::Forget => {
                    // It is told in order: nothing of before comes behind it.
                    self.late.retain(|(_, late)| ends(late) != ends(&told));
                    self.note(&told, tracer, now_ns);
                }
            }
        }
    }

    /// Does what the tracer wishes.
    fn note(&mut self, told: &Unneeded, tracer: &mut Tracer, now_ns: u64) {
        let ends = ends(told);
        let Some(connection) = self.connections.get_mut(&ends) else { return };
        match told.wish {
            Wish::Spare { bytes, counts } => {
                let is_new = connection.spared.is_none();
                if is_new {
                    connection.counted = counting::Counted::default();
                    connection.told = Default::default();
                    // It is given its slot by replacing what is known of it as a whole, and loses what is written meanwhile.
                    if self.delay > 0 {
                        connection.reach = connection.before;
                    }
                }
                connection.spared =
                    Some((bytes.map(|(from, until)| Window { from, until }), counts && !is_new));
            }
            Wish::Ask => {
                tracer.handle_counted(&connection.news(ends), now_ns);
                tracer.answer_counted(told, now_ns);
            }
            Wish::Forget => {
                tracer.counted_late(&connection.news(ends));
                // What was counted since its slot was given out is nobody's any more.
                *connection = Connection { reach: connection.reach, ..Connection::default() };
            }
        }
    }

    /// Hands in what was counted and is not known, of an interface or of all, before tracing ends there. What is known of its
    /// connections is forgotten.
    pub fn finish(&mut self, tracer: &mut Tracer, of: Option<u32>, now_ns: u64) {
        let is_its = |(interface, ..): &Ends| of.is_none_or(|of| of == *interface);
        for (ends, connection) in self.connections.iter_mut().filter(|(ends, _)| is_its(ends)) {
            tracer.handle_counted(&connection.news(*ends), now_ns);
        }
        self.connections.retain(|ends, _| !is_its(ends));
        self.late.retain(|(_, late)| !is_its(&ends(late)));
    }
}

fn ends(told: &Unneeded) -> Ends {
    (told.interface, told.side, told.client, told.server)
}

impl Headers {
    /// Those of a packet, also if not all of its payload is there; `None` if they are not whole, or not of a first or only fragment.
    fn of(data: &[u8]) -> Option<Self> {
        let headers = LaxPacketHeaders::from_ip(data).ok()?;
        let (source, destination, is_first): (IpAddr, IpAddr, bool) = match headers.net? {
            NetHeaders::Ipv4(ip, _) => {
                (ip.source.into(), ip.destination.into(), ip.fragment_offset == IpFragOffset::ZERO)
            }
            NetHeaders::Ipv6(ip, extensions) => {
                let is_first = extensions.fragment.is_none_or(|it| it.fragment_offset == IpFragOffset::ZERO);
                (ip.source.into(), ip.destination.into(), is_first)
            }
            NetHeaders::Arp(_) => return None,
        };
        let (tcp, payload, is_fragment) = match (headers.transport, headers.payload) {
            (Some(TransportHeader::Tcp(tcp)), payload) => (tcp, payload.slice(), false),
            (None, LaxPayloadSlice::Ip(ip)) if ip.fragmented && is_first => {
                let (tcp, payload) = TcpHeader::from_slice(ip.payload).ok()?;
                (tcp, payload, true)
            }
            _ => return None,
        };
        let [source, destination] =
            [(source, tcp.source_port), (destination, tcp.destination_port)].map(SocketAddr::from);
        Some(Self { source, destination, tcp, len: data.len() - payload.len(), is_fragment })
    }
}

impl Connection {
    /// What becomes of a packet.
    fn pick(
        &mut self,
        packet: &Packet<'_>,
        headers: &Headers,
        counts: bool,
        tell: &mut impl FnMut(&mut Self),
    ) -> Fate {
        let (own, opposite) = (packet.toward as usize, packet.toward.opposite() as usize);
        let now_ns = packet.time_ns;
        let tcp = &headers.tcp;
        let (is_last, len) =
            (tcp.syn || tcp.fin || tcp.rst, (packet.wire_len as usize).saturating_sub(headers.len));
        let seen = Seen {
            seq: tcp.sequence_number,
            ack: tcp.acknowledgment_number,
            payload_len: u32::try_from(len).expect("small"),
            wire_len: packet.wire_len,
            is_plain: tcp.ack && !is_last && tcp.window_size != 0 && !headers.is_fragment,
            is_last: is_last || headers.is_fragment,
            time_ns: now_ns,
        };
        self.before = self.reach;
        let reach = (self.reach[own], self.reach[opposite]);
        self.reach[own] = reach.0.with(seen.seq, seen.payload_len, tcp.syn);
        let Some((windows, is_whole)) = self.spared else { return Fate::Whole };
        if tcp.syn {
            self.spared = None;
        }
        let (way, other) = (&self.counted.ways[own], &self.counted.ways[opposite]);
        if counts && is_whole && way.counts(other, &seen, (windows[own], windows[opposite]), reach) {
            self.counted.ways[own].count(&seen);
            if self.counted.is_due(now_ns) {
                self.told(now_ns, tell);
            }
            return Fate::Counted;
        }
        if self.counted.packets() != self.counted.told {
            self.told(now_ns, tell);
        }
        self.counted.told_ns = now_ns;
        self.counted.ways[own].hand_on(&seen, self.reach[own].sent);
        let window = windows[own];
        let start = seen.seq.wrapping_sub(window.from);
        // A SYN may begin another connection on the same ports, of which nothing was said.
        if len == 0 || tcp.syn || window.is_empty() {
            return Fate::Whole;
        }
        if start >= window.len() {
            if start < AHEAD
                && let Some((windows, _)) = &mut self.spared
            {
                windows[own].until = window.from;
            }
            return Fate::Whole;
        }
        let is_inside = seen.payload_len <= window.len() - start && !headers.is_fragment;
        if is_inside { Fate::Trimmed } else { Fate::Whole }
    }

    fn told(&mut self, now_ns: u64, tell: &mut impl FnMut(&mut Self)) {
        self.counted.told = self.counted.packets();
        self.counted.told_ns = now_ns;
        tell(self);
    }

    /// What was counted and not handed in yet.
    fn news(&mut self, (interface, side, client, server): Ends) -> Counted {
        let ways = [0, 1].map(|way| {
            let counted = &self.counted.ways[way];
            let now = (counted.full, counted.empty, counted.wire);
            let (full, empty, wire) = std::mem::replace(&mut self.told[way], now);
            let full = counted.full.wrapping_sub(full);
            let empty = counted.empty.wrapping_sub(empty);
            let (acked, full_ns, last_ns) = (counted.acked, counted.full_ns, counted.last_ns);
            Way { bytes: counted.range(), acked, full, empty, wire: counted.wire - wire, full_ns, last_ns }
        });
        Counted { interface, side, client, server, ways }
    }
}
