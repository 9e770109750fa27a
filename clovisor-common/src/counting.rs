//! Which packets are only counted: what the kernel side does with packets of bytes that nobody looks at, and nothing else
//! depends on.
//!
//! It is here, and pure, so that tests of the tracer go through the very code that runs in the kernel. A packet is counted if it
//! says nothing new but that its stream goes on: it is next in its stream, in the middle of a window, it has no flag that
//! matters, nothing is missing before it, and it acknowledges nothing that anybody waits for. It is as if it had been merged with the one before, as network
//! cards and kernels merge packets. All others come to user space as ever, and what was counted is told before them.

use crate::{Window, assert_size};

/// Slots that there are: connections of which bytes are not needed, at a time. As many as are remembered. 2 MB, which are taken at once.
pub const SLOTS: u32 = 1 << 14;

/// Half of all sequence numbers: what is less far behind a place is ahead of it (RFC 9293 section 3.4).
pub const AHEAD: u32 = 1 << 31;
/// Most bytes in a row of which the first is remembered, so that the last is still ahead of it.
const LONGEST: u32 = 1 << 29;
/// What was counted is told when something was, and that was so long ago, in nanoseconds: 100 ms. It bounds how far user space is behind
/// a stream that flows, and costs ten records a second.
const TELL_AFTER_NS: u64 = 100_000_000;

/// What is not needed of a connection; the agent writes it, and only it, but for windows that the kernel side finds to be over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    /// The connection that has the slot now, as [`slot`] names it; an entry in `sessions` that names another is of one that had it
    /// before.
    pub owner: u32,
    /// Not zero if packets may be only counted.
    pub counts: u32,
    /// Bytes of the client, then of the server, that nobody looks at.
    pub unneeded: [Window; 2],
}
assert_size!(Spared, 24);

/// What was counted of a connection; the kernel side writes it, and only it. Counts go on as long as the owner is the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The connection that was counted, as [`slot`] names it.
    pub owner: u32,
    /// Packets that were counted when it was last told.
    pub told: u32,
    /// When it was last told, or a packet of it came to user space; kernel time, nanoseconds.
    pub told_ns: u64,
    /// Of the client, then of the server.
    pub ways: [Way; 2],
}
assert_size!(Counted, 112);

/// What was counted of one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Sequence numbers of bytes that came in a row behind the last packet with payload that was handed on: that of the first in the
    /// lower half, that behind the last in the upper. In one number, since it is read while it is written.
    pub bytes: u64,
    /// Bytes that the packets had from their IP headers on.
    pub wire: u64,
    /// Highest acknowledgement number.
    pub acked: u32,
    /// Packets with payload that were counted.
    pub full: u32,
    /// Packets without.
    pub empty: u32,
    /// What is known, of [`STANDS`], [`SPOKE`] and [`OVER`].
    pub state: u32,
    /// Kernel time of the last packet with payload that was counted, nanoseconds.
    pub full_ns: u64,
    /// Kernel time of the last packet that was counted.
    pub last_ns: u64,
}
assert_size!(Way, 48);

/// A packet that says nothing special has come, and so it is known what the next one may repeat.
pub const STANDS: u32 = 1;
/// A packet with payload has come to user space.
pub const SPOKE: u32 = 1 << 1;
/// It has ended, or what comes is in fragments: nothing is counted any more.
pub const OVER: u32 = 1 << 2;

/// The index of a slot that is named so.
#[must_use]
pub const fn slot(owner: u32) -> u32 {
    owner & (SLOTS - 1)
}

/// What matters of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Bytes from its IP header on.
    pub wire_len: u32,
    /// Whether it has the ACK flag, none of SYN, FIN and RST, and a window.
    pub is_plain: bool,
    /// Whether it has SYN, FIN or RST, or is a fragment.
    pub is_last: bool,
    /// Kernel time, nanoseconds.
    pub time_ns: u64,
}

impl Window {
    /// Bytes in it; none if it is not one.
    #[must_use]
    #[inline(always)]
    pub const fn len(self) -> u32 {
        let len = self.until.wrapping_sub(self.from);
        if len < AHEAD { len } else { 0 }
    }

    /// Whether there are none.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// How far a stream has come at an interface, by sequence numbers. Nothing is known if all is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Behind the last byte that was sent.
    pub sent: u32,
    /// Where it went on behind bytes that had not come, or was met, or one byte behind that; zero if nowhere.
    pub holed: u32,
}
assert_size!(Reach, 8);

impl Reach {
    /// So far it has come with these bytes, or begins with them, behind a SYN.
    #[must_use]
    #[inline(always)]
    pub const fn with(self, seq: u32, payload_len: u32, is_syn: bool) -> Self {
        if is_syn {
            return Self::known(seq.wrapping_add(1).wrapping_add(payload_len), 0);
        }
        let end = seq.wrapping_add(payload_len);
        let ahead = seq.wrapping_sub(self.sent);
        // Where it is met in its middle, nobody knows what is missing before.
        let is_met = self.sent == 0 && self.holed == 0;
        let sent = if is_met || end.wrapping_sub(self.sent) < AHEAD { end } else { self.sent };
        let is_hole = is_met || (ahead != 0 && ahead < AHEAD);
        let holed = if !is_hole {
            self.holed
        } else if seq == 0 {
            1
        } else {
            seq
        };
        Self::known(sent, holed)
    }

    /// A stream of which nothing is missing and that stands at zero just went by the number before: user space gets past that.
    #[inline(always)]
    const fn known(sent: u32, holed: u32) -> Self {
        Self { sent, holed: if sent == 0 && holed == 0 { u32::MAX } else { holed } }
    }

    /// Whether user space has got past what had not come, when it told this window.
    #[inline(always)]
    const fn is_whole(self, window: Window) -> bool {
        self.holed == 0 || window.from.wrapping_sub(self.holed) < AHEAD
    }
}

impl Way {
    /// Sequence numbers of the first byte in a row, and behind the last.
    #[must_use]
    #[inline(always)]
    pub const fn range(&self) -> (u32, u32) {
        (self.bytes as u32, (self.bytes >> 32) as u32)
    }

    /// Whether a packet is only counted, by what is known of the other direction, and by the windows of both and how far they had come
    /// before.
    #[must_use]
    #[inline(always)]
    pub const fn counts(
        &self,
        other: &Self,
        seen: &Seen,
        (window, opposite): (Window, Window),
        (reach, opposite_reach): (Reach, Reach),
    ) -> bool {
        seen.is_plain
            && self.state & (STANDS | OVER) == STANDS
            && other.state & STANDS != 0
            // Neither end has said that it has more than has come here: that would be waited for.
            && reach.sent.wrapping_sub(other.acked) < AHEAD
            // A FIN takes a number, too.
            && opposite_reach.sent.wrapping_add((other.state & OVER != 0) as u32).wrapping_sub(seen.ack) < AHEAD
            && seen.seq == reach.sent
            && reach.is_whole(window)
            && opposite_reach.is_whole(opposite)
            && (seen.payload_len == 0 || self.goes_on(seen, window))
            && (seen.ack == self.acked || self.is_inside(seen.ack, opposite, opposite_reach.sent))
    }

    /// Whether its payload is in the middle of the window: with the last byte, something ends.
    #[inline(always)]
    const fn goes_on(&self, seen: &Seen, window: Window) -> bool {
        let start = seen.seq.wrapping_sub(window.from);
        let in_row = seen.seq.wrapping_sub(self.bytes as u32);
        self.state & SPOKE != 0
            && start < window.len()
            && seen.payload_len < window.len() - start
            && in_row < LONGEST
            && seen.payload_len < LONGEST
    }

    /// Whether an acknowledgement leads from one place in the middle of the other direction's window to a later one, which has come:
    /// what ends before the window is acknowledged already.
    #[inline(always)]
    const fn is_inside(&self, ack: u32, opposite: Window, opposite_sent: u32) -> bool {
        let before = self.acked.wrapping_sub(opposite.from);
        let after = ack.wrapping_sub(opposite.from);
        0 < before
            && before < after
            && after < opposite.len()
            && after <= opposite_sent.wrapping_sub(opposite.from)
    }

    /// Counts a packet. What it adds up to is written behind what it is made of, so that whoever reads it meanwhile finds each byte's
    /// packet counted.
    #[inline(always)]
    pub const fn count(&mut self, seen: &Seen) {
        self.acked = seen.ack;
        self.last_ns = seen.time_ns;
        self.wire = self.wire.wrapping_add(seen.wire_len as u64);
        if seen.payload_len > 0 {
            self.full = self.full.wrapping_add(1);
            self.full_ns = seen.time_ns;
            let end = seen.seq.wrapping_add(seen.payload_len);
            let (first, behind) = self.range();
            // A packet without payload may have shown that bytes are missing: it has come to user space, and what came before was told.
            let first = if behind == seen.seq { first } else { seen.seq };
            self.bytes = first as u64 | (end as u64) << 32;
        } else {
            self.empty = self.empty.wrapping_add(1);
        }
    }

    /// A packet comes to user space; `sent` is how far this direction was sent with it. What comes next is in a row with it.
    #[inline(always)]
    pub const fn hand_on(&mut self, seen: &Seen, sent: u32) {
        if seen.payload_len > 0 {
            self.state |= SPOKE;
            self.bytes = sent as u64 | (sent as u64) << 32;
        }
        if seen.is_last {
            self.state |= OVER;
        }
        if !seen.is_plain {
            self.state &= !STANDS;
            return;
        }
        if self.state & STANDS == 0 || seen.ack.wrapping_sub(self.acked) < AHEAD {
            self.acked = seen.ack;
        }
        self.state |= STANDS;
    }
}

impl Counted {
    /// Packets that were counted.
    #[must_use]
    #[inline(always)]
    pub const fn packets(&self) -> u32 {
        let [client, server] = &self.ways;
        client.full.wrapping_add(client.empty).wrapping_add(server.full).wrapping_add(server.empty)
    }

    /// Whether there is something to tell that has waited long enough.
    #[must_use]
    #[inline(always)]
    pub const fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.told_ns) >= TELL_AFTER_NS
    }
}
