//! The queue's front door: what of a segment is new, and what is known of when it was sent.

use std::ops::Range;

use super::{Mark, Piece, Stream, Taken};

impl Stream {
    /// Queues what of a piece is new. Bytes that wait already stay as they are: it is the first that the receiver
    /// takes, and which one it was an observer cannot know better.
    pub(super) fn enqueue<B: AsRef<[u8]>>(&mut self, piece: &Piece<B>) -> Taken {
        if self.goes_on_with(piece) {
            self.insert(self.held(piece, piece.offset..piece.end(), piece.bytes.as_ref()));
            return Taken::Queued;
        }
        let bytes = piece.bytes.as_ref();
        let bytes_end = piece.offset + bytes.len() as u64;
        let mut at = piece.offset.max(self.next().unwrap_or(0)).min(bytes_end);
        let queue = &self.unrest().queue;
        let mut new = Vec::new();
        let before = queue.range(..=at).next_back().map(|(offset, _)| *offset);
        let mut is_copy = false;
        for held in queue.range(before.unwrap_or(at)..bytes_end.max(at)).map(|(_, held)| held) {
            if held.offset > at {
                new.push(at..held.offset);
            }
            is_copy |= held.acked > piece.acked;
            at = at.max(held.offset + held.bytes.len() as u64).min(bytes_end);
        }
        let has_tail = piece.mark != Mark::None || piece.cut > 0;
        if at < bytes_end || has_tail {
            new.push(at..bytes_end);
        }
        // Of what waits, it may say that it was sent earlier.
        if is_copy && piece.acked > 0 {
            self.unrest().bounds.note_sent(piece.end(), piece.acked);
        }
        let new = new.into_iter().flat_map(|range| self.cut_where_known(range)).collect::<Vec<_>>();
        let mut any = false;
        for range in new {
            let is_last = range.end == bytes_end;
            let end = if is_last { piece.end() } else { range.end };
            let within = |offset: u64| usize::try_from(offset - piece.offset).unwrap_or(bytes.len());
            let held = self.held(piece, range.start..end, &bytes[within(range.start)..within(range.end)]);
            any |= self.insert(Piece {
                cut: if is_last { piece.cut } else { 0 },
                mark: if is_last { piece.mark } else { Mark::None },
                trouble: piece.trouble.filter(|_| !any),
                ..held
            });
        }
        if any { Taken::Queued } else { Taken::Repeated }
    }

    /// Whether all of a piece is new, the same is known of all of it, and all that waits is before it, as where the stream waits for
    /// its start.
    fn goes_on_with<B: AsRef<[u8]>>(&self, piece: &Piece<B>) -> bool {
        let is_before = |held: &Piece<Vec<u8>>| {
            held.offset < piece.offset
                && held.offset + held.bytes.len() as u64 <= piece.offset
                && held.acked <= piece.acked
        };
        let bytes_end = piece.offset + piece.bytes.as_ref().len() as u64;
        let last = self.unrest.as_ref().and_then(|unrest| unrest.queue.last_key_value());
        piece.offset >= self.next().unwrap_or(0)
            && (piece.end() > piece.offset || piece.mark != Mark::None)
            && last.is_none_or(|(_, last)| is_before(last))
            && self.first_known(piece.offset..bytes_end).is_none()
    }

    /// A part of a piece, with these bytes, as it waits.
    fn held<B>(&self, piece: &Piece<B>, range: Range<u64>, bytes: &[u8]) -> Piece<Vec<u8>> {
        Piece {
            offset: range.start,
            time_ns: piece.time_ns,
            acked: piece.acked,
            is_bound: piece.is_bound || self.is_repeated(range.end, piece.acked),
            bytes: bytes.to_vec(),
            cut: piece.cut,
            mark: piece.mark,
            packets: if range.start > piece.offset { 0 } else { piece.packets },
            trouble: piece.trouble,
            is_old: range.end <= self.acked.max(self.unrest.as_ref().map_or(0, |unrest| unrest.stood)),
        }
    }

    /// Whether bytes that end here, and come with this acknowledgement, are known to have been sent before.
    pub(in crate::flow) fn is_repeated(&self, end: u64, acked: u64) -> bool {
        end <= self.acked || self.sent_with(end).is_some_and(|sent| sent <= acked)
    }

    /// The first place within a range, if any, behind which less is known of when its bytes were sent than before it.
    pub(super) fn first_known(&self, range: Range<u64>) -> Option<u64> {
        let is_inside = |at: &u64| range.start < *at && *at < range.end;
        let acked = Some(self.acked).filter(is_inside);
        match &self.unrest {
            Some(unrest) if !unrest.bounds.is_empty() => {
                unrest.bounds.sent_ends().filter(is_inside).chain(acked).min()
            }
            _ => acked,
        }
    }

    /// A range in parts of each of which the same is known of when it was sent.
    pub(super) fn cut_where_known(&self, mut range: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        while let Some(at) = self.first_known(range.clone()) {
            parts.push(range.start..at);
            range.start = at;
        }
        parts.push(range);
        parts
    }

    /// Queues a piece that overlaps no other's bytes. Whether it says anything new.
    pub(super) fn insert(&mut self, piece: Piece<Vec<u8>>) -> bool {
        let unrest = self.unrest();
        if let Some(held) = unrest.queue.get(&piece.offset) {
            // Only a mark, or the place of bytes that were cut, can be there.
            let better = piece.end() > held.end() || piece.cut < held.cut || piece.mark != Mark::None;
            if !better || held.mark != Mark::None {
                return false;
            }
        }
        unrest.insert(piece);
        true
    }
}
