//! What segments prove of bytes that have not come: when, by the opposite stream, they had been sent or received.
//!
//! A repetition acknowledges more than its bytes did when they were first sent, so its own acknowledgement would put them
//! too late. What was seen behind them bounds that.

use std::collections::VecDeque;

/// Bounds of each kind that are kept: those of a full window of the largest segments.
const MOST: usize = 64;

/// Bounds of one direction. Most have none at most times, and then hold nothing.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    kept: Option<Box<Kept>>,
}

/// Those of each kind, in the order in which they were seen.
#[derive(Debug, Default)]
struct Kept {
    /// Ends of bytes that the receiver has acknowledged, each with the offset in its own stream by which it had. They
    /// came before what is there.
    received: VecDeque<(u64, u64)>,
    /// Ends of bytes that were sent, each with what their sender had acknowledged by then. Segments without payload tell it.
    sent: VecDeque<(u64, u64)>,
}

impl Bounds {
    /// Whether nothing is known.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// The receiver had all before `end` by an offset of its own stream.
    pub(super) fn note_received(&mut self, end: u64, by: u64) {
        let received = &mut self.kept.get_or_insert_default().received;
        if received.len() < MOST {
            received.push_back((end, by));
        }
    }

    /// The sender had sent all before `end` by the time that it had acknowledged so much.
    pub(super) fn note_sent(&mut self, end: u64, acked: u64) {
        if self.sent_with(end).is_some_and(|known| known <= acked) {
            return;
        }
        let sent = &mut self.kept.get_or_insert_default().sent;
        if sent.len() < MOST {
            sent.push_back((end, acked));
        }
    }

    /// What the sender had acknowledged at most when it first sent the bytes that end here.
    #[inline]
    pub(super) fn sent_with(&self, end: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        self.sent().filter(|(until, _)| *until >= end).map(|(_, acked)| *acked).min()
    }

    /// Ends of bytes of which that is known.
    pub(super) fn sent_ends(&self) -> impl Iterator<Item = u64> {
        self.sent().map(|(until, _)| *until)
    }

    fn sent(&self) -> impl Iterator<Item = &(u64, u64)> {
        self.kept.iter().flat_map(|kept| &kept.sent)
    }

    /// The end of bytes from `next` on which the receiver had by `done` of its own stream, and that bound.
    pub(super) fn received_by(&self, next: u64, done: u64) -> Option<(u64, u64)> {
        let front = self.kept.as_ref()?.received.front().copied();
        front.filter(|(until, by)| *until > next && *by <= done)
    }

    /// All before an offset has come, or is given up.
    #[inline]
    pub(super) fn advance(&mut self, offset: u64) {
        let Some(Kept { received, sent }) = self.kept.as_deref_mut() else { return };
        while received.front().is_some_and(|(until, _)| *until <= offset) {
            received.pop_front();
        }
        sent.retain(|(until, _)| *until > offset);
        if received.is_empty() && sent.is_empty() {
            self.kept = None;
        }
    }
}
