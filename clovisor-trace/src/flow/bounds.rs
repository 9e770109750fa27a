//! What segments prove of bytes that have not come: when, by the opposite stream, they had been sent or received.
//!
//! A repetition acknowledges more than its bytes did when they were first sent, so its own acknowledgement would put them
//! too late. What was seen behind them bounds that.

use std::collections::VecDeque;

/// Bounds of each kind that are kept: those of a full window of the largest segments.
const MOST: usize = 64;

/// Bounds of one direction, in the order in which they were seen.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    /// Ends of bytes that the receiver has acknowledged, each with the offset in its own stream by which it had. They
    /// came before what is there.
    received: VecDeque<(u64, u64)>,
    /// Ends of bytes that were sent, each with what their sender had acknowledged by then. Segments without payload tell it.
    sent: VecDeque<(u64, u64)>,
}

impl Bounds {
    /// The receiver had all before `end` by an offset of its own stream.
    pub(super) fn note_received(&mut self, end: u64, by: u64) {
        if self.received.len() < MOST {
            self.received.push_back((end, by));
        }
    }

    /// The sender had sent all before `end` by the time that it had acknowledged so much.
    pub(super) fn note_sent(&mut self, end: u64, acked: u64) {
        let is_known = self.sent_with(end).is_some_and(|known| known <= acked);
        if !is_known && self.sent.len() < MOST {
            self.sent.push_back((end, acked));
        }
    }

    /// What the sender had acknowledged at most when it first sent the bytes that end here.
    pub(super) fn sent_with(&self, end: u64) -> Option<u64> {
        self.sent.iter().filter(|(until, _)| *until >= end).map(|(_, acked)| *acked).min()
    }

    /// Ends of bytes of which that is known.
    pub(super) fn sent_ends(&self) -> impl Iterator<Item = u64> {
        self.sent.iter().map(|(until, _)| *until)
    }

    /// The end of bytes from `next` on which the receiver had by `done` of its own stream, and that bound.
    pub(super) fn received_by(&self, next: u64, done: u64) -> Option<(u64, u64)> {
        self.received.front().copied().filter(|(until, by)| *until > next && *by <= done)
    }

    /// All before an offset has come, or is given up.
    pub(super) fn advance(&mut self, offset: u64) {
        while self.received.front().is_some_and(|(until, _)| *until <= offset) {
            self.received.pop_front();
        }
        self.sent.retain(|(until, _)| *until > offset);
    }
}
