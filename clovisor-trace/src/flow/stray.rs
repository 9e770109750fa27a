//! Packets without payload of connections that nobody follows: no flow begins with them, but one that begins right behind them knows
//! by them which bytes had been received, so that their repetition is not taken for news, and which had been sent, so that they may be one.
//!
//! It refuses to remember for long: ports are used again, and sequence numbers of an older connection would mislead.

use hashlink::LinkedHashMap;

use super::{Flow, Key};
use crate::packet::{Segment, Toward};

/// Connections that are remembered: those of a busy node's second. Beyond it the oldest is forgotten, which costs at most
/// the session that begins there.
const MOST: usize = 4_096;
/// How long: what a repetition takes on the longest ways.
const KEPT_NS: u64 = 1_000_000_000;

/// What such packets said of one direction.
#[derive(Clone, Copy, Debug)]
struct Stray {
    /// When the latest came.
    time_ns: u64,
    /// Sequence number of the first.
    seq: u32,
    /// What the latest acknowledges.
    ack: Option<u32>,
}

impl Stray {
    fn is_fresh(&self, now_ns: u64) -> bool {
        self.time_ns.saturating_add(KEPT_NS) >= now_ns
    }
}

/// Those of each direction, by connection.
#[derive(Default)]
pub(super) struct Strays {
    seen: LinkedHashMap<Key, [Option<Stray>; 2]>,
}

impl Strays {
    /// Takes note of a packet.
    pub(super) fn note(&mut self, key: &Key, toward: Toward, segment: &Segment<'_>, now_ns: u64) {
        if segment.rst || segment.fin {
            return;
        }
        let stray = &mut self.seen.entry(*key).or_insert([None; 2])[toward as usize];
        // What was sent since the first of them is news.
        let seq = stray.filter(|before| before.is_fresh(now_ns)).map_or(segment.seq, |first| first.seq);
        *stray = Some(Stray { time_ns: now_ns, seq, ack: segment.ack });
        self.seen.to_back(key);
        if self.seen.len() > MOST {
            self.seen.pop_front();
        }
    }

    /// Tells a flow that begins what was seen of its connection.
    pub(super) fn tell(&mut self, key: &Key, flow: &mut Flow, now_ns: u64) {
        if self.seen.is_empty() {
            return;
        }
        let strays = self.seen.remove(key).unwrap_or_default();
        for (toward, stray) in Toward::BOTH.into_iter().zip(strays) {
            if let Some(stray) = stray.filter(|stray| stray.is_fresh(now_ns)) {
                flow.remember(toward, &stray, now_ns);
            }
        }
    }

    /// Forgets an interface.
    pub(super) fn forget(&mut self, interface: u32) {
        self.seen.retain(|key, _| key.interface != interface);
    }
}

impl Flow {
    /// Takes in what a packet said before the flow began. Its time is now: the start of a stream is waited for from now on.
    fn remember(&mut self, toward: Toward, stray: &Stray, now_ns: u64) {
        let (own, opposite) = (toward as usize, toward.opposite() as usize);
        let at = self.streams[own].offset(stray.seq, now_ns);
        let acked = stray.ack.and_then(|ack| self.streams[opposite].offset(ack, now_ns));
        if let Some(acked) = acked {
            self.streams[opposite].acknowledge(acked, at, now_ns);
        }
        if let (Some(at), Some(acked)) = (at, acked) {
            self.streams[own].was_at(at, acked);
        }
    }
}
