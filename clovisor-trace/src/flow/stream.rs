//! One direction of a connection, put back into order (RFC 9293 section 3.4).
//!
//! Bytes are delivered once, in sequence, and not before the bytes of the opposite stream that their sender
//! had acknowledged: the acknowledgement proves that those came first, whatever order packets reached us in.
//! Bytes that are missing are never guessed: once the receiver has acknowledged them and the time for
//! reordering is over, they are a gap, and a gap is an event of its own.
//!
//! Positions are offsets ([`Sequence`]).

mod arrival;
mod intake;
mod unrest;

use std::num::NonZeroU64;

use unrest::Unrest;

use super::{
    piece::{Mark, Piece, Taken},
    sequence::Sequence,
};
use crate::limits::Limits;

/// Pieces that are looked at for what the first one acknowledged.
const LOOK_AHEAD: usize = 8;
/// What a queued piece costs beside its bytes.
const PIECE_OVERHEAD: usize = 96;

/// One direction of a connection. Most are in order, and then hold nothing but how far they are.
pub(crate) struct Stream {
    sequence: Sequence,
    /// Next offset to deliver, once the start of the stream is known. No offset is zero.
    next: Option<NonZeroU64>,
    /// Highest offset that the receiver has acknowledged; zero if none.
    acked: u64,
    /// How far it was seen, with holes or without.
    seen: u64,
    unrest: Option<Box<Unrest>>,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self { sequence: Sequence::default(), next: None, acked: 0, seen: 0, unrest: None }
    }

    fn unrest(&mut self) -> &mut Unrest {
        self.unrest.get_or_insert_default()
    }

    /// What waits, in its order.
    fn waiting(&self) -> impl Iterator<Item = &Piece<Vec<u8>>> {
        self.unrest.iter().flat_map(|unrest| unrest.queue.values())
    }

    /// The first that waits.
    #[inline]
    fn head(&self) -> Option<&Piece<Vec<u8>>> {
        self.unrest.as_ref()?.queue.first_key_value().map(|(_, piece)| piece)
    }

    /// Whether nothing waits.
    #[inline]
    fn is_empty(&self) -> bool {
        self.unrest.as_ref().is_none_or(|unrest| unrest.queue.is_empty())
    }

    /// Offset of a sequence number; `None` if it is too far off to be of this connection.
    #[inline]
    pub(crate) fn offset(&mut self, seq: u32, now_ns: u64) -> Option<u64> {
        if self.next.is_none() {
            self.unrest().met_ns.get_or_insert(now_ns);
        }
        self.sequence.offset(seq)
    }

    /// Sequence number at an offset.
    pub(crate) fn seq(&self, offset: u64) -> u32 {
        self.sequence.seq(offset)
    }

    /// The stream starts at this offset: its SYN was seen, or the other side's acknowledgement of it.
    pub(crate) fn start(&mut self, offset: u64) {
        if self.next.is_none() {
            self.next = NonZeroU64::new(offset);
            self.sequence.start(offset);
        }
    }

    /// The sender has sent all before this offset, by the time that it had acknowledged so much of the opposite stream.
    pub(crate) fn stands_at(&mut self, offset: u64, acked: Option<u64>) {
        let is_empty = self.is_empty();
        if self.next.is_none() && is_empty {
            let unrest = self.unrest();
            unrest.stood = unrest.stood.max(offset);
        }
        let is_missing = !is_empty || self.next().is_none_or(|next| next < offset);
        if let Some(acked) = acked.filter(|_| is_missing) {
            self.unrest().bounds.note_sent(offset, acked);
        }
    }

    /// The sender had sent all before this offset by the time that it had acknowledged so much, before the flow began.
    pub(super) fn was_at(&mut self, offset: u64, acked: u64) {
        self.unrest().bounds.note_sent(offset, acked);
    }

    /// What the sender had acknowledged at most when it first sent the bytes that end here, by what was seen behind them.
    pub(crate) fn sent_with(&self, end: u64) -> Option<u64> {
        self.unrest.as_ref()?.bounds.sent_with(end)
    }

    /// The receiver has acknowledged all before this offset, `by` that offset of its own stream, if that is known. Whether
    /// it is more than it had before.
    pub(crate) fn acknowledge(&mut self, offset: u64, by: Option<u64>, now_ns: u64) -> bool {
        let (is_news, is_first) = (offset > self.acked, self.acked == 0);
        self.acked = self.acked.max(offset);
        // Of what has come nobody will ask when it was acknowledged.
        if self.next().is_none_or(|next| next < offset) {
            let acked = self.acked;
            let unrest = self.unrest();
            if is_news {
                unrest.acked_ns = now_ns;
                by.into_iter().for_each(|by| unrest.bounds.note_received(offset, by));
            }
            if unrest.queue.is_empty() {
                unrest.had = unrest.had.max(acked);
            }
            unrest.first_acked = Some(unrest.first_acked.map_or(offset, |first| first.min(offset)));
        }
        is_news && !is_first
    }

    /// Sequence number of the first byte, once it is known; it names the connection.
    pub(crate) fn first_seq(&self) -> Option<u32> {
        self.next.map(|_| self.sequence.first())
    }

    /// Next offset to deliver, once the start is known.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next.map(NonZeroU64::get)
    }

    /// Takes a piece in. `opposite` is how far the opposite stream was delivered.
    pub(crate) fn take<B: AsRef<[u8]>>(&mut self, piece: &Piece<B>, opposite: Option<u64>) -> Taken {
        if let Some(next) = self.next() {
            if piece.end() < next || (piece.end() == next && piece.mark == Mark::None) {
                return Taken::Repeated;
            }
            if piece.offset <= next
                && self.is_empty()
                && opposite.is_some_and(|done| piece.acked <= done)
                && self.first_known(next..piece.end()).is_none()
            {
                let skip = usize::try_from(next - piece.offset).unwrap_or(usize::MAX);
                return Taken::Now(skip.min(piece.bytes.as_ref().len()));
            }
        }
        self.enqueue(piece)
    }

    /// Notes that all before `offset` is dealt with.
    pub(crate) fn advance(&mut self, offset: u64) {
        self.next = self.next.max(NonZeroU64::new(offset));
        self.sequence.follow(offset);
        if let Some(unrest) = &mut self.unrest {
            unrest.bounds.advance(offset);
            // The next hole has its own time, from what shows it first.
            let shown_ns = unrest.head_ns().unwrap_or(unrest.acked_ns);
            unrest.stalled_ns =
                unrest.stalled_ns.filter(|_| self.acked > offset).map(|since| since.max(shown_ns));
        }
    }

    /// The next piece, if it may be delivered: it is in order, and `opposite` has reached what it acknowledges.
    pub(crate) fn pop(&mut self, opposite: Option<u64>) -> Option<Piece<Vec<u8>>> {
        let next = self.next()?;
        let unrest = self.unrest.as_mut()?;
        loop {
            let entry = unrest.queue.first_entry()?;
            let (piece, end) = (entry.get(), entry.get().end());
            if end < next || (end == next && piece.mark == Mark::None) {
                unrest.queued -= entry.remove().bytes.len() + PIECE_OVERHEAD;
                continue;
            }
            if piece.offset > next {
                return None;
            }
            let done = opposite?;
            // What follows in the stream was sent after it, unless this is a repetition.
            let acked = unrest.queue.values().take(LOOK_AHEAD).map(|piece| piece.acked);
            let acked = acked.chain(unrest.bounds.sent_with(end)).min()?;
            if acked <= done {
                let is_bound = |piece: &Piece<_>| piece.is_bound || acked < piece.acked;
                return unrest.unqueue(next).map(|piece| Piece {
                    acked,
                    is_bound: is_bound(&piece),
                    ..piece
                });
            }
            let (until, acked) = unrest.bounds.received_by(next, done)?;
            let piece = unrest.unqueue(next)?;
            return Some(Piece { acked, is_bound: true, ..unrest.keep_behind(until, piece) });
        }
    }

    /// When the first piece came that waits.
    pub(crate) fn head_ns(&self) -> Option<u64> {
        self.head().map(|piece| piece.time_ns)
    }

    /// The hole that holds the stream up: so many bytes are missing. An end that only acknowledgements tell is
    /// as real as any other.
    pub(crate) fn hole(&self) -> Option<u64> {
        let next = self.next()?;
        let first = self.head().map(|piece| piece.offset);
        // What the receiver has not got may still be sent again.
        let end = first.filter(|first| self.acked <= next || *first < self.acked).unwrap_or(self.acked);
        end.checked_sub(next).filter(|len| *len > 0)
    }

    /// Where the sender goes on, as far as is known: what is before that was sent before.
    pub(crate) fn frontier(&self) -> u64 {
        self.seen.max(self.acked)
    }

    /// Whether the receiver has more than was delivered here.
    pub(crate) fn is_behind(&self) -> bool {
        self.next().is_some_and(|next| next < self.acked)
    }

    /// Whether a reset waits for its turn.
    pub(crate) fn is_reset(&self) -> bool {
        self.waiting().any(|piece| piece.mark == Mark::Reset)
    }

    /// Whether the next piece is known to have been sent before, so that it need not wait for what it acknowledges.
    pub(crate) fn is_next_bound(&self) -> bool {
        self.head()
            .is_some_and(|piece| piece.is_bound && self.next().is_some_and(|next| piece.offset <= next))
    }

    /// The next piece, although the opposite stream has not reached what it acknowledges.
    pub(crate) fn pop_regardless(&mut self) -> Option<Piece<Vec<u8>>> {
        let next = self.next()?;
        let unrest = self.unrest.as_mut()?;
        let is_next = unrest.queue.first_key_value().is_some_and(|(offset, _)| *offset <= next);
        let piece = if is_next { unrest.unqueue(next) } else { None };
        piece.map(|piece| Piece { is_bound: true, ..piece })
    }

    /// Whether the stream has been held up for long enough, or by enough, that it must move on at all costs.
    pub(crate) fn is_stuck(&mut self, now_ns: u64, limits: &Limits) -> bool {
        let Some(next) = self.next() else { return false };
        if self.acked <= next && !self.is_full(limits) {
            if let Some(unrest) = &mut self.unrest {
                unrest.stalled_ns = None;
            }
            return false;
        }
        let since = *self.unrest().stalled_ns.get_or_insert(now_ns);
        self.is_full(limits) || since.saturating_add(limits.reorder_ns) <= now_ns
    }

    /// Whether more waits than may.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        self.memory_of_queue() > limits.stream
    }

    /// Takes the earliest sign of a stream met in its middle as its start, if it was met before a time.
    pub(crate) fn settle(&mut self, met_before_ns: u64, limits: &Limits) -> bool {
        if self.next.is_some() {
            return false;
        }
        let Some(unrest) = &self.unrest else { return false };
        let is_time = unrest.met_ns.is_some_and(|met| met <= met_before_ns);
        if !is_time && unrest.queued <= limits.stream {
            return false;
        }
        // Met in the middle, a repetition of what came before is not the start.
        let first = unrest.queue.iter().find(|(_, piece)| !piece.is_old).or(unrest.queue.first_key_value());
        let first = first.map(|(offset, _)| *offset);
        let start = first.into_iter().chain(unrest.first_acked).min();
        let Some(start) = start else { return false };
        let start = self.unrest().settle_at(start);
        self.start(start);
        true
    }

    /// When [`settle`](Self::settle) or [`is_stuck`](Self::is_stuck) will have something to say.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<u64> {
        let unrest = self.unrest.as_ref()?;
        if self.next.is_none() {
            let waits = !unrest.queue.is_empty() || unrest.first_acked.is_some();
            return unrest.met_ns.filter(|_| waits).map(|met| met.saturating_add(limits.settle_ns));
        }
        unrest.stalled_ns.map(|since| since.saturating_add(limits.reorder_ns))
    }

    /// Whether it has a start, and nothing waits or is missing.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.next().is_some_and(|next| self.acked <= next) && self.is_empty()
    }

    /// Whether it has a start, and nothing is known of bytes that have not come, not even that they were sent.
    pub(super) fn is_whole(&self) -> bool {
        let Some(next) = self.next() else { return false };
        let sent = self.unrest.iter().flat_map(|unrest| unrest.bounds.sent_ends().chain([unrest.stood]));
        self.is_at_rest() && sent.chain([self.seen]).all(|end| end <= next)
    }

    /// The next offset, where the stream has nothing but that: no sign of anything that waits or is missing, or was.
    #[inline]
    pub(super) fn in_order(&self) -> Option<u64> {
        self.next().filter(|next| self.unrest.is_none() && self.acked <= *next && self.seen <= *next)
    }

    /// The receiver has acknowledged all that came of a stream in order.
    #[inline]
    pub(super) fn acknowledge_all(&mut self) {
        self.acked = self.next().unwrap_or(0);
    }

    /// A stream in order goes on to this offset.
    #[inline]
    pub(super) fn go_on(&mut self, offset: u64) {
        self.seen = offset;
        self.next = NonZeroU64::new(offset);
        self.sequence.follow(offset);
    }

    /// It is at rest: nothing is missing any more, and what would only be looked at again if something were is forgotten.
    #[inline]
    pub(crate) fn rest(&mut self) {
        if let Some(unrest) = &mut self.unrest {
            unrest.stalled_ns = None;
            if unrest.bounds.is_empty() && unrest.hole_ns.is_none() {
                self.unrest = None;
            }
        }
    }

    /// Whether bytes are known to be missing that the receiver has.
    pub(crate) fn is_stalled(&self) -> bool {
        self.unrest.as_ref().is_some_and(|unrest| unrest.stalled_ns.is_some())
    }

    fn memory_of_queue(&self) -> usize {
        self.unrest.as_ref().map_or(0, |unrest| unrest.queued)
    }

    /// Bytes of memory held beside the flow.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.unrest.as_ref().map_or(0, |unrest| size_of::<Unrest>() + unrest.queued)
    }
}
