//! Where sessions must be the same without what nobody looks at: where segments are such as a TCP may send, and what is missing can be
//! known. Each exception has its reason.
//!
//! It refuses to judge captures: what of a packet is lost, late or cut makes a difference by itself.

use crate::steps::Segment;

/// What is known of the two ends of a connection.
#[derive(Default)]
pub(crate) struct Proper {
    ends: [End; 2],
    is_known: bool,
    /// Whether an end has cut it.
    is_reset: bool,
}

/// Whether sessions are the same.
pub(crate) struct Verdict {
    /// Without payload that nobody looks at.
    pub(crate) may_trim: bool,
    /// Where packets are only counted.
    pub(crate) may_count: bool,
}

/// What is known of an end.
#[derive(Default)]
struct End {
    /// Behind all that it sent, a FIN included.
    sent: Option<u32>,
    /// What it acknowledged at least: this has been sent.
    acked: Option<u32>,
    /// Behind the last byte.
    said: Option<u32>,
    /// Behind the last byte that it will ever send.
    last: Option<u32>,
}

impl Proper {
    /// Whether anything of the connection has come.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Takes note of a segment, and says what may be compared behind it.
    pub(crate) fn verdict(
        &mut self,
        segment: &Segment<'_>,
        seq: u32,
        ack: Option<u32>,
        len: usize,
    ) -> Verdict {
        self.is_known = true;
        // A reset that waits for what is missing before it ends its connection when the time for that is over. What was counted by
        // then, and is not told, comes too late.
        let mut may_count = !self.is_reset;
        self.is_reset |= segment.rst;
        // What was acknowledged and never sent is missing. Whether it was acknowledged before anything could be counted is forgotten.
        let opposite = &self.ends[usize::from(!segment.from_server)];
        may_count &= ack.zip(opposite.sent).is_none_or(|(ack, sent)| !is_ahead(ack, sent));
        let acked = opposite.acked;
        let end = &mut self.ends[usize::from(segment.from_server)];
        if segment.syn {
            *end = End::default();
        }
        let first = seq.wrapping_add(segment.syn.into());
        let until = first.wrapping_add(u32::try_from(len).expect("below 64 KiB"));
        let fin = until.wrapping_add(segment.fin.into());
        // How far a stream has come is known from its first packet on, and not that bytes are missing before that.
        may_count &= end.sent.is_some() || acked.is_none_or(|acked| !is_ahead(first, acked));
        end.acked = match (end.acked, ack) {
            (Some(before), Some(ack)) if is_ahead(ack, before) => Some(before),
            (before, ack) => ack.or(before),
        };
        if end.sent.is_none_or(|sent| is_ahead(fin, sent)) {
            end.sent = Some(fin);
        }
        if len > 0 && end.said.is_none_or(|said| is_ahead(until, said)) {
            end.said = Some(until);
        }
        if segment.fin && end.last.is_none_or(|last| is_ahead(last, until)) {
            end.last = Some(until);
        }
        // No receiver takes what is behind a FIN. The tracer does, but not where nobody knows how much it is.
        let may_trim = end.last.zip(end.said).is_none_or(|(last, said)| !is_ahead(said, last));
        Verdict { may_trim, may_count }
    }
}

/// Whether a sequence number is behind another one.
fn is_ahead(seq: u32, other: u32) -> bool {
    seq.wrapping_sub(other).cast_signed() > 0
}
