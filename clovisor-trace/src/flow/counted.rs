//! Packets that did not come, because they say nothing but that a stream goes on: what was counted of them.
//!
//! Such packets are taken as one that was merged of them: the bytes that they brought, of which any will do ([`super::unneeded`]), how
//! many they were, when the last was seen, and how far their sender had got the opposite stream. It refuses bytes that nobody said to be
//! unneeded: these are a gap.

use std::net::SocketAddr;

use super::{Context, Flow, Key, Mark, Piece};
use crate::{
    packet::{Side, Toward},
    protocol::{Conversation, Run},
};

/// What was counted of a connection since it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Number of the interface.
    pub interface: u32,
    /// Whether the pod there is server or client.
    pub side: Side,
    /// Address of the client.
    pub client: SocketAddr,
    /// Address of the server.
    pub server: SocketAddr,
    /// What the client sent, and what the server sent.
    pub ways: [Way; 2],
}

/// What was counted of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Sequence numbers of bytes that came in a row, from the first up to behind the last. The first ones may have been told before, and
    /// there may be none.
    pub bytes: (u32, u32),
    /// Highest acknowledgement number.
    pub acked: u32,
    /// Packets with payload.
    pub full: u32,
    /// Packets without.
    pub empty: u32,
    /// Bytes that all these had from their IP headers on.
    pub wire: u64,
    /// When the last packet with payload was seen, in the clock of the packets.
    pub full_ns: u64,
    /// When the last packet was seen.
    pub last_ns: u64,
}

impl Way {
    /// How many packets were counted.
    #[must_use]
    pub fn packets(&self) -> u64 {
        u64::from(self.full) + u64::from(self.empty)
    }
}

impl Counted {
    pub(super) fn key(&self) -> Key {
        Key::of(self.interface, self.side, self.client, self.server)
    }

    /// Bytes that they had from their IP headers on.
    #[must_use]
    pub fn wire(&self) -> u64 {
        self.ways.iter().map(|way| way.wire).sum()
    }

    /// How many packets were counted.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.ways.iter().map(Way::packets).sum()
    }
}

impl Flow {
    /// Takes in what was counted.
    pub(super) fn counted(&mut self, counted: &Counted, cx: &mut Context<'_>) {
        if counted.packets() > 0 {
            self.was_not_silent();
            if let Some(told) = &mut self.told {
                told.trimmed = 0;
            }
        }
        for toward in Toward::BOTH {
            let Way { full, empty, full_ns, last_ns, .. } = counted.ways[toward as usize];
            if full + empty > 0 {
                self.last_ns = self.last_ns.max(last_ns);
                self.conversation.counted(toward, &Run { full, empty, full_ns, last_ns });
            }
            self.take_counted(toward, &counted.ways[toward as usize], cx);
        }
        // What came of one direction was sent by the time that it is acknowledged.
        for toward in Toward::BOTH {
            let Way { acked, last_ns, empty, full, .. } = counted.ways[toward as usize];
            let opposite = &mut self.streams[toward.opposite() as usize];
            if full + empty > 0
                && let Some(acked) = opposite.offset(acked, last_ns)
            {
                opposite.acknowledge(acked, None, last_ns);
            }
        }
        self.run(cx.now_ns, cx);
    }

    /// It was asked because it seemed silent, and was not: the time counts from its last packet again.
    fn was_not_silent(&mut self) {
        if let Some((last_ns, asked_ns)) = self.told.as_mut().and_then(|told| told.asked.take())
            && self.last_ns == asked_ns
        {
            self.last_ns = last_ns;
        }
    }

    /// Takes in the bytes of one direction that were not told before.
    fn take_counted(&mut self, toward: Toward, way: &Way, cx: &mut Context<'_>) {
        if way.bytes.0 == way.bytes.1 {
            return;
        }
        let opposite = &mut self.streams[toward.opposite() as usize];
        // Where both went on in turns, neither is held up by the other.
        let acked = opposite.offset(way.acked, way.full_ns).min(opposite.next()).unwrap_or(0);
        let stream = &mut self.streams[toward as usize];
        let [first, end] = [way.bytes.0, way.bytes.1].map(|seq| stream.offset(seq, way.full_ns));
        let (Some(first), Some(end), Some(told)) = (first, end, &mut self.told) else { return };
        let told = &mut told.ways[toward as usize].counted;
        let offset = first.max(*told);
        if offset >= end {
            return;
        }
        *told = end;
        let piece = Piece {
            offset,
            time_ns: way.full_ns,
            acked,
            is_bound: false,
            bytes: &[][..],
            cut: end - offset,
            mark: Mark::None,
            packets: way.full,
            is_old: false,
            trouble: None,
        };
        self.take(toward, piece, cx);
    }
}
