//! What the kernel side does with stretches that nobody looks at, on paper: packets of them come without their payload, or are
//! only counted, by the very rule that it has ([`clovisor_common::counting`]).
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use clovisor_common::{
    Window,
    counting::{self, AHEAD, Reach, Seen},
};
use clovisor_trace::{Counted, Packet, Side, Toward, Tracer, Unneeded, Way, Wish};
use etherparse::{NetHeaders, PacketHeaders, TcpHeader, TransportHeader};

/// Picks packets as the kernel side does.
pub struct Trim {
    /// By client and server.
    connections: HashMap<[SocketAddr; 2], Connection>,
    /// What the kernel side is not told yet.
    late: VecDeque<(usize, Unneeded)>,
    /// So many packets come before it is told.
    delay: usize,
    packets: usize,
    /// Bytes of payload that were not copied.
    pub spared: usize,
    /// Packets that were only counted.
    pub counted: u64,
}

/// What it knows of a connection.
#[derive(Default)]
struct Connection {
    /// How far each direction has come.
    reach: [Reach; 2],
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

impl Trim {
    pub fn new(delay: usize) -> Self {
        let (connections, late) = (HashMap::new(), VecDeque::new());
        Self { connections, late, delay, packets: 0, spared: 0, counted: 0 }
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
        let headers = PacketHeaders::from_ip_slice(packet.data).expect("a packet");
        let len = headers.payload.slice().len();
        let fate = match (headers.transport, headers.net) {
            (Some(TransportHeader::Tcp(tcp)), Some(NetHeaders::Ipv4(ip, _))) => {
                let source = SocketAddr::from((ip.source, tcp.source_port));
                let destination = SocketAddr::from((ip.destination, tcp.destination_port));
                let ends = match packet.toward {
                    Toward::Server => [source, destination],
                    Toward::Client => [destination, source],
                };
                let connection = self.connections.entry(ends).or_default();
                let mut tell = |connection: &mut Connection| {
                    tracer.handle_counted(&connection.news(packet.interface, packet.side, ends), now_ns);
                };
                connection.pick(packet, &tcp, len, &mut tell)
            }
            _ => Fate::Whole,
        };
        let kept = match fate {
            Fate::Whole => packet.data,
            Fate::Trimmed => &packet.data[..packet.data.len() - len],
            Fate::Counted => {
                self.counted += 1;
                self.spared += len;
                return self.hear(tracer, now_ns);
            }
        };
        self.spared += packet.data.len() - kept.len();
        tracer.handle_packet(&Packet { data: kept, ..*packet });
        self.hear(tracer, now_ns);
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
                Wish::Ask | Wish::Forget => self.note(&told, tracer, now_ns),
            }
        }
    }

    /// Does what the tracer wishes.
    fn note(&mut self, told: &Unneeded, tracer: &mut Tracer, now_ns: u64) {
        let Some(connection) = self.connections.get_mut(&[told.client, told.server]) else { return };
        match told.wish {
            Wish::Spare { bytes, counts } => {
                if connection.spared.is_none() {
                    connection.counted = counting::Counted::default();
                    connection.told = Default::default();
                }
                connection.spared = Some((bytes.map(|(from, until)| Window { from, until }), counts));
            }
            Wish::Ask => {
                let news = connection.news(told.interface, told.side, [told.client, told.server]);
                tracer.handle_counted(&news, now_ns);
                tracer.answer_counted(told, now_ns);
            }
            Wish::Forget => {
                connection.spared = None;
                let news = connection.news(told.interface, told.side, [told.client, told.server]);
                tracer.handle_counted(&news, now_ns);
            }
        }
    }

    /// Hands in what was counted and is not known, at the end.
    pub fn finish(&mut self, tracer: &mut Tracer, now_ns: u64) {
        for (ends, connection) in &mut self.connections {
            tracer.handle_counted(&connection.news(1, Side::Server, *ends), now_ns);
        }
    }
}

impl Connection {
    /// What becomes of a packet with so much payload.
    fn pick(
        &mut self,
        packet: &Packet<'_>,
        tcp: &TcpHeader,
        len: usize,
        tell: &mut impl FnMut(&mut Self),
    ) -> Fate {
        let (own, opposite) = (packet.toward as usize, packet.toward.opposite() as usize);
        let now_ns = packet.time_ns;
        let is_last = tcp.syn || tcp.fin || tcp.rst;
        let seen = Seen {
            seq: tcp.sequence_number,
            ack: tcp.acknowledgment_number,
            payload_len: u32::try_from(len).expect("small"),
            wire_len: packet.wire_len,
            is_plain: tcp.ack && !is_last && tcp.window_size != 0,
            is_last,
            time_ns: now_ns,
        };
        let reach = (self.reach[own], self.reach[opposite]);
        self.reach[own] = reach.0.with(seen.seq, seen.payload_len, tcp.syn);
        let Some((windows, counts)) = self.spared else { return Fate::Whole };
        if tcp.syn {
            self.spared = None;
        }
        if counts
            && self.counted.ways[own].counts(
                &self.counted.ways[opposite],
                &seen,
                (windows[own], windows[opposite]),
                reach,
            )
        {
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
        if len == 0 || window.is_empty() {
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
        if seen.payload_len > window.len() - start { Fate::Whole } else { Fate::Trimmed }
    }

    fn told(&mut self, now_ns: u64, tell: &mut impl FnMut(&mut Self)) {
        self.counted.told = self.counted.packets();
        self.counted.told_ns = now_ns;
        tell(self);
    }

    /// What was counted and not handed in yet.
    fn news(&mut self, interface: u32, side: Side, [client, server]: [SocketAddr; 2]) -> Counted {
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
