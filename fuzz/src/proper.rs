//! What a TCP may send: where that is broken, what nobody looks at may make a difference, by design.
//!
//! It refuses nothing that a network may do to segments, nor what ends may do to each other.

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
    /// Behind the last byte that it sent.
    sent: Option<u32>,
    /// Behind the last byte that it will ever send.
    last: Option<u32>,
}

impl Proper {
    /// Whether anything of the connection has come.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// Takes note of a segment. Whether it may be sent behind those before it.
    pub(crate) fn may_send(&mut self, segment: &Segment<'_>, seq: u32, len: usize) -> Verdict {
        self.is_known = true;
        // A reset that waits for what is missing before it ends its connection when the time for that is over. What was counted by
        // then, and is not told, comes too late.
        let may_count = !self.is_reset;
        self.is_reset |= segment.rst;
        let len = u32::try_from(len).expect("below 64 KiB");
        let end = &mut self.ends[usize::from(segment.from_server)];
        let seq = seq.wrapping_add(segment.syn.into());
        let until = seq.wrapping_add(len);
        if segment.syn {
            *end = End::default();
        }
        if len > 0 && end.sent.is_none_or(|sent| is_ahead(until, sent)) {
            end.sent = Some(until);
        }
        if segment.fin {
            end.last = Some(end.last.filter(|last| is_ahead(until, *last)).unwrap_or(until));
        }
        // No receiver takes what is behind a FIN. The tracer does; without it nobody could know where it ended.
        let may_trim = end.last.zip(end.sent).is_none_or(|(last, sent)| !is_ahead(sent, last));
        Verdict { may_trim, may_count }
    }
}

/// Whether a sequence number is behind another one.
fn is_ahead(seq: u32, other: u32) -> bool {
    seq.wrapping_sub(other).cast_signed() > 0
}
