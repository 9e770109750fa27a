//! What waits or is missing in a stream, and what is known of it before it has begun.
//!
//! It refuses to say what may be delivered: only the stream knows how far it is.

use std::collections::BTreeMap;

use super::PIECE_OVERHEAD;
use crate::flow::{
    bounds::Bounds,
    piece::{Mark, Piece},
};

/// What there is of a stream before its start is known, and while something waits or is missing.
#[derive(Default)]
pub(super) struct Unrest {
    /// When the receiver acknowledged the most, if it was more than had come.
    pub(super) acked_ns: u64,
    /// Lowest offset that the receiver has acknowledged.
    pub(super) first_acked: Option<u64>,
    /// What was acknowledged before any byte was met: those before it are repetitions.
    pub(super) had: u64,
    /// What was sent before any byte was met: those before it may be repetitions.
    pub(super) stood: u64,
    pub(super) bounds: Bounds,
    pub(super) queue: BTreeMap<u64, Piece<Vec<u8>>>,
    /// Bytes of memory held in the queue.
    pub(super) queued: usize,
    /// Since when there is a hole in it, unless there is none.
    pub(super) hole_ns: Option<u64>,
    /// When the first sign of the stream was seen, while its start is not known.
    pub(super) met_ns: Option<u64>,
    /// Since when bytes are missing that the receiver has.
    pub(super) stalled_ns: Option<u64>,
}

impl Unrest {
    /// When the first piece came that waits.
    pub(super) fn head_ns(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(_, piece)| piece.time_ns)
    }

    /// Queues a piece, in the place of one that is at the same offset.
    pub(super) fn insert(&mut self, piece: Piece<Vec<u8>>) {
        self.queued += piece.bytes.len() + PIECE_OVERHEAD;
        if let Some(old) = self.queue.insert(piece.offset, piece) {
            self.queued -= old.bytes.len() + PIECE_OVERHEAD;
        }
    }

    /// Takes the first piece off the queue, without what was delivered before.
    pub(super) fn unqueue(&mut self, next: u64) -> Option<Piece<Vec<u8>>> {
        let (_, mut piece) = self.queue.pop_first()?;
        self.queued -= piece.bytes.len() + PIECE_OVERHEAD;
        piece.trim(next);
        Some(piece)
    }

    /// Drops repetitions of what came before the start. Where the sender stood still before its first segment is a better
    /// start than the middle of what it repeats.
    pub(super) fn settle_at(&mut self, start: u64) -> u64 {
        let start = start.max(self.had);
        let goes_on = self.queue.values().any(|piece| piece.end() > self.stood);
        // Unless the receiver is known to have had less: the rest is under way.
        let stood = self.stood.min(self.first_acked.unwrap_or(self.stood));
        let start = if goes_on { start.max(stood) } else { start };
        let mut later = self.queue.split_off(&start);
        if let Some(mut over) =
            self.queue.pop_last().map(|(_, piece)| piece).filter(|piece| piece.end() > start)
        {
            over.trim(start);
            over.packets = over.packets.max(1);
            later.entry(start).or_insert(over);
        }
        self.queue = later;
        self.queued = self.queue.values().map(|piece| piece.bytes.len() + PIECE_OVERHEAD).sum();
        // The first may be a repetition of which nothing tells.
        if let Some(mut first) = self.queue.first_entry() {
            first.get_mut().is_bound = true;
        }
        start
    }

    /// Puts back what of a piece is behind an offset.
    pub(super) fn keep_behind(&mut self, offset: u64, mut piece: Piece<Vec<u8>>) -> Piece<Vec<u8>> {
        let len = usize::try_from(offset - piece.offset).unwrap_or(usize::MAX);
        if len < piece.bytes.len() {
            let bytes = piece.bytes.split_off(len);
            self.insert(Piece { offset, bytes, packets: 0, ..piece });
            (piece.cut, piece.mark) = (0, Mark::None);
        }
        piece
    }
}
