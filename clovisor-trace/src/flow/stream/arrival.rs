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
        let seen = self.seen.max(self.next.unwrap_or(0));
        self.seen = seen.max(piece.end());
        if piece.offset >= seen {
            if self.queue.is_empty() && self.next.is_none_or(|next| next >= seen) {
                self.hole_ns = None;
            }
            if piece.offset > seen && seen > 0 {
                self.hole_ns.get_or_insert(piece.time_ns);
            }
            return None;
        }
        let waits = self.queue.range(..=piece.offset).next_back();
        let is_known = self.next.is_some_and(|next| piece.offset < next)
            || waits.is_some_and(|(_, held)| piece.offset < held.end());
        let is_late = self.hole_ns.is_some_and(|since| piece.time_ns >= since.saturating_add(round_trip_ns));
        Some(match (is_known, piece.end() <= self.acked) {
            (true, true) => Trouble::Duplicate,
            (true, false) => Trouble::Retransmission,
            (false, _) if is_late => Trouble::Retransmission,
            (false, _) => Trouble::OutOfOrder,
        })
    }
}
