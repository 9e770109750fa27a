//! Sessions that have ended and wait to be fetched, counted by protocol and outcome as they come, and marked where they
//! may have lost packets.
//!
//! It needs no bound of its own: one packet ends at most as many sessions as its flow has open, and the caller
//! fetches them before it hands in the next.

use std::collections::VecDeque;

use crate::{ledger::Ended, loss::Losses, session::Session};

/// Sessions in the order of their ends.
#[derive(Default)]
pub(crate) struct Outbox {
    sessions: VecDeque<Session>,
    counts: Ended,
    /// How many of them are marked.
    overlapping: u64,
    pub(crate) losses: Losses,
    /// Now, in the clock of the packets.
    pub(crate) now_ns: u64,
    idle_ns: u64,
}

impl Outbox {
    /// Nothing has ended yet. A connection is waited for so long.
    pub(crate) fn new(idle_ns: u64) -> Self {
        Self { idle_ns, ..Self::default() }
    }

    pub(crate) fn pop(&mut self) -> Option<Session> {
        self.sessions.pop_front()
    }

    /// Sessions by protocol and outcome, fetched ones included.
    pub(crate) fn counts(&self) -> Ended {
        self.counts
    }

    /// Sessions that overlap a loss, fetched ones included.
    pub(crate) fn overlapping(&self) -> u64 {
        self.overlapping
    }
}

impl Extend<Session> for Outbox {
    fn extend<I: IntoIterator<Item = Session>>(&mut self, sessions: I) {
        for mut session in sessions {
            self.counts[session.protocol as usize][session.outcome as usize] += 1;
            if !self.losses.is_empty() {
                session.overlaps_loss = self.losses.overlap(&session, self.now_ns, self.idle_ns);
                self.overlapping += u64::from(session.overlaps_loss);
            }
            self.sessions.push_back(session);
        }
    }
}
