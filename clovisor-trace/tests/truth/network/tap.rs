//! The tap on the network's way: which packets it sees, and what of the two streams it can know by them.

#![allow(unreachable_pub, reason = "modules of one test binary")]

use std::{collections::BTreeSet, ops::Range};

use clovisor_trace::{Limits, Toward};
use etherparse::PacketBuilder;

use super::{Flags, Network, Packet};

/// A packet as the tap saw it.
#[derive(Clone, Debug)]
pub struct Frame {
    pub toward: Toward,
    pub data: Vec<u8>,
}

/// What was said, and what the tap saw of it.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub frames: Vec<Frame>,
    /// What each frame is, for people.
    pub text: Vec<String>,
    /// Whether any packet that passed the tap is not in `frames`, and whether one of the handshake is not.
    pub missed: bool,
    pub no_handshake: bool,
    /// For each exchange that was begun: where its request and response are in the two streams. The response
    /// is `None` if it was not begun.
    pub places: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// Bytes of each stream that the tap saw at least once.
    pub seen: [Vec<bool>; 2],
    /// For each byte of each stream, what its sender had of the other one when it first sent it.
    pub acks: [Vec<usize>; 2],
    /// For each byte of each stream, the most that its sender had when it sent it first, by all packets that the tap saw.
    pub shown: [Vec<usize>; 2],
    /// The same by those that the tap had seen when the byte came.
    pub told: [Vec<usize>; 2],
    /// Whether each byte of each stream, when the tap first saw it, was known to have been sent before.
    pub was_sent: [Vec<bool>; 2],
    /// What the sender of each of these streams had sent, as far as packets showed.
    stands: [usize; 2],
    /// Where packets that brought the tap new bytes begin and end.
    pub edges: [BTreeSet<usize>; 2],
    /// From where on each stream is followed.
    starts: [Start; 2],
    /// When the tap saw that bytes of each stream were acknowledged: up to where, and when, in nanoseconds.
    acked: [Vec<(usize, u64)>; 2],
    /// Bytes of each stream that passed before the tap saw any.
    old: [Vec<bool>; 2],
    /// Whether the tap saw a packet from which a connection is followed, and since then each end's FIN.
    followed: bool,
    pub fins: [bool; 2],
    pub reset: bool,
    /// What happened, by name.
    pub did: BTreeSet<&'static str>,
}

/// From where on a stream is followed, if its handshake was not seen.
#[derive(Clone, Debug)]
struct Start {
    met_ns: Option<u64>,
    at: usize,
}

impl Default for Start {
    fn default() -> Self {
        Self { met_ns: None, at: usize::MAX }
    }
}

impl Start {
    /// Whether earlier bytes may still come.
    fn is_open(&self, now_ns: u64) -> bool {
        self.met_ns.is_none_or(|met| now_ns - met < Limits::default().settle_ns)
    }
}

impl Network<'_> {
    /// A packet passes the tap.
    pub(super) fn tap(&mut self, packet: &Packet) {
        self.passed += 1;
        let from = packet.from;
        let list = &self.trouble.missed;
        let missed = !list.is_empty() && list[self.passed % list.len()];
        if missed || self.passed <= self.trouble.late {
            self.run.missed = true;
            if !self.run.seen[from].contains(&true) {
                mark(&mut self.run.old[from], &packet.range);
            }
            self.run.no_handshake |= self.passed < 3;
            self.run.reset |= packet.flags == Flags::Reset;
            return;
        }
        // What passed before the tap saw anything of the stream, and comes again, is not news.
        let now_ns = self.run.frames.len() as u64 * self.trouble.pace_ns;
        let acks = &self.run.acked[from];
        // Nor is what the receiver had for longer than a tap waits for it.
        let is_late = |at: usize| {
            let ack = acks.get(acks.partition_point(|(until, _)| *until <= at));
            ack.is_some_and(|(_, when)| now_ns - when >= Limits::default().reorder_ns)
        };
        // Nor is what is before the start of a stream that was met in its middle, if it comes too late to be looked at.
        let start = &mut self.run.starts[from];
        if start.is_open(now_ns) && !packet.range.is_empty() {
            start.at = start.at.min(packet.range.start);
        }
        if matches!(packet.flags, Flags::Syn | Flags::SynAck) {
            start.at = 0;
        }
        let start = if start.is_open(now_ns) { 0 } else { start.at };
        let is_old = |at: usize| at < start || self.run.old[from].get(at) == Some(&true) || is_late(at);
        let is_late_fin = is_late(packet.range.end);
        let news = packet.range.clone().find(|at| !is_old(*at)).unwrap_or(packet.range.end);
        mark(&mut self.run.seen[from], &(news..packet.range.end));
        let stands = self.run.stands[from].max(self.run.acked[from].last().map_or(0, |(until, _)| *until));
        let was_sent = &mut self.run.was_sent[from];
        for at in was_sent.len()..packet.range.end {
            was_sent.push(at < stands);
        }
        for at in packet
            .range
            .clone()
            .filter(|at| self.run.told[from].get(*at).is_none_or(|told| *told == usize::MAX))
        {
            was_sent[at] = at < stands;
        }
        self.run.stands[from] = self.run.stands[from].max(packet.range.end);
        let acked = &mut self.run.acked[1 - from];
        // FIN takes a place of its own.
        let until = packet.ack + usize::from(packet.ack_fin);
        if acked.last().is_none_or(|(before, _)| *before < until) {
            acked.push((until, now_ns));
        }
        let (shown, told) = (&mut self.run.shown[from], &mut self.run.told[from]);
        shown.resize(shown.len().max(packet.range.end), usize::MAX);
        // What is behind bytes was sent after them.
        let later = shown[..packet.range.end].iter_mut().rev();
        later.take_while(|least| **least > packet.ack).for_each(|least| *least = packet.ack);
        told.resize(shown.len(), usize::MAX);
        let first = packet.range.clone().filter(|at| told[*at] == usize::MAX).collect::<Vec<_>>();
        first.into_iter().for_each(|at| told[at] = shown[at]);
        // A connection is followed from its handshake or its first bytes on.
        if packet.flags == Flags::SynAck {
            self.run.starts[0].at = 0;
        }
        self.run.followed |= !packet.range.is_empty() || matches!(packet.flags, Flags::Syn | Flags::SynAck);
        if self.run.followed {
            self.run.starts.iter_mut().for_each(|start| _ = start.met_ns.get_or_insert(now_ns));
            let is_new = |at: usize| self.run.seen[from].get(at) != Some(&true);
            if packet.range.clone().any(is_new) {
                self.run.edges[from].extend([packet.range.start, packet.range.end]);
            }
            // A FIN that the receiver had for longer comes too late, as bytes do.
            self.run.fins[from] |= packet.flags == Flags::Fin && !is_late_fin;
        }
        self.run.reset |= packet.flags == Flags::Reset;
        let frame = self.frame(packet);
        let Packet { range, ack, flags, .. } = packet;
        let bytes = &self.ends[from].out[range.clone()];
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(50)]).replace(['\r', '\n'], "|");
        self.run.text.push(format!("{} {range:?} acks {ack} {flags:?} {start}", ["client", "server"][from]));
        self.run.frames.push(frame);
    }

    fn frame(&mut self, packet: &Packet) -> Frame {
        let from = packet.from;
        let position = |end: usize, offset: usize| {
            self.trouble.isn[end].wrapping_add(1).wrapping_add(u32::try_from(offset).expect("short"))
        };
        let ports = [40_000, 8_080];
        let is_syn = matches!(packet.flags, Flags::Syn | Flags::SynAck);
        let seq = position(from, packet.range.start).wrapping_sub(u32::from(is_syn));
        // Both numbers are of bytes, so that it wraps within a message.
        if !packet.range.is_empty() && position(from, packet.range.end - 1) < seq {
            self.run.did.insert("wrap-around");
        }
        let mut tcp = etherparse::TcpHeader::new(ports[from], ports[1 - from], seq, 60_000);
        (tcp.syn, tcp.fin) = (is_syn, packet.flags == Flags::Fin);
        (tcp.rst, tcp.psh) = (packet.flags == Flags::Reset, !packet.range.is_empty());
        if packet.flags != Flags::Syn {
            tcp.ack = true;
            tcp.acknowledgment_number = position(1 - from, packet.ack).wrapping_add(packet.ack_fin.into());
        }
        let mut bytes = self.ends[from].out[packet.range.clone()].to_vec();
        if packet.altered {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        let ips = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let mut data = Vec::new();
        PacketBuilder::ipv4(ips[from], ips[1 - from], 64)
            .tcp_header(tcp)
            .write(&mut data, &bytes)
            .expect("fits");
        Frame { toward: if from == 0 { Toward::Server } else { Toward::Client }, data }
    }
}

fn mark(bytes: &mut Vec<bool>, range: &Range<usize>) {
    if bytes.len() < range.end {
        bytes.resize(range.end, false);
    }
    bytes[range.clone()].fill(true);
}
