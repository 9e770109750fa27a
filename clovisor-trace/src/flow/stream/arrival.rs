//! How a segment comes: fresh, again or late, in the words of `docs/anatomy.md`.

use super::{Piece, Stream};
use crate::anatomy::Trouble;

impl Stream {
    /// What is wrong with how the first byte of a piece comes, before it is taken in.
    pub(in crate::flow) fn judge<B: AsRef<[u8]>>(
        &mut self,
        piece: &Piece<B>,
        round_trip_ns: u64,
    ) -> Option<Trouble> {
        // Gaps of the capture count as seen.
        let seen = self.seen.max(self.next().unwrap_or(0));
        self.seen = seen.max(piece.end());
        if piece.offset >= seen {
            if self.is_empty()
                && self.next().is_none_or(|next| next >= seen)
                && let Some(unrest) = &mut self.unrest
            {
                unrest.hole_ns = None;
            }
            if piece.offset > seen && seen > 0 {
                self.unrest().hole_ns.get_or_insert(piece.time_ns);
            }
            return None;
        }
        let unrest = self.unrest.as_deref();
        let waits = unrest.and_then(|unrest| unrest.queue.range(..=piece.offset).next_back());
        let is_known = self.next().is_some_and(|next| piece.offset < next)
            || waits.is_some_and(|(_, held)| piece.offset < held.end());
        let hole_ns = unrest.and_then(|unrest| unrest.hole_ns);
        let is_late = hole_ns.is_some_and(|since| piece.time_ns >= since.saturating_add(round_trip_ns));
        Some(match (is_known, piece.end() <= self.acked) {
            (true, true) => Trouble::Duplicate,
            (true, false) => Trouble::Retransmission,
            (false, _) if is_late => Trouble::Retransmission,
            (false, _) => Trouble::OutOfOrder,
        })
    }
}
