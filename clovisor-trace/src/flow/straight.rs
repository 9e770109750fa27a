//! The usual segment: it is next in its stream, acknowledges exactly what has come of the other, and neither stream waits for anything.
//!
//! It refuses to decide anything. [`Flow::segment`] would come to the same for such a segment by a longer way, on which each question
//! that is asked has the answer that was seen here: nothing is missing, repeated, queued or bounded, and no clock runs.

use super::{Context, Flow};
use crate::{
    packet::{Segment, Toward},
    protocol::{Chunk, Conversation},
};

impl Flow {
    /// Whether a segment is such a one, with its offset and that of what it acknowledges.
    #[inline]
    pub(super) fn is_straight(&self, toward: Toward, segment: &Segment<'_>) -> Option<(u64, u64)> {
        let own = &self.streams[toward as usize];
        let opposite = &self.streams[toward.opposite() as usize];
        let (offset, acked) = (own.in_order()?, opposite.in_order()?);
        let is_plain = !(segment.syn | segment.fin | segment.rst)
            && segment.window != 0
            && segment.payload.len() == segment.payload_len as usize;
        let is_next = own.seq(offset) == segment.seq && segment.ack == Some(opposite.seq(acked));
        // The opening has nothing more to learn, and that both directions are seen is no news.
        (is_plain && is_next && self.opening.is_over() && self.seen == [true; 2]).then_some((offset, acked))
    }

    /// Takes it in.
    #[inline]
    pub(super) fn go_straight(
        &mut self,
        toward: Toward,
        segment: &Segment<'_>,
        (offset, acked): (u64, u64),
        cx: &mut Context<'_>,
    ) {
        let time_ns = cx.now_ns;
        self.streams[toward.opposite() as usize].acknowledge_all();
        self.conversation.packet(toward, time_ns, segment.payload_len.into(), Some(acked));
        self.closed[toward as usize] = false;
        if segment.payload.is_empty() {
            return;
        }
        let chunk = Chunk {
            toward,
            time_ns,
            offset,
            acked,
            is_bound: false,
            bytes: segment.payload,
            packets: 1,
            trouble: None,
        };
        self.streams[toward as usize].go_on(offset + u64::from(segment.payload_len));
        self.conversation.chunk(&chunk, cx.limits, &mut cx.out.reports);
    }
}
