//! Sessions that have ended and wait to be fetched, counted by protocol and outcome as they come.
//!
//! It needs no bound of its own: one packet ends at most as many sessions as its flow has open, and the caller
//! fetches them before it hands in the next.

use std::collections::VecDeque;

use crate::{ledger::Ended, session::Session};

/// Sessions in the order of their ends.
#[derive(Default)]
pub(crate) struct Outbox {
    sessions: VecDeque<Session>,
    counts: Ended,
}

impl Outbox {
    pub(crate) fn pop(&mut self) -> Option<Session> {
        self.sessions.pop_front()
    }

    /// Sessions by protocol and outcome, fetched ones included.
    pub(crate) fn counts(&self) -> Ended {
        self.counts
    }
}

impl Extend<Session> for Outbox {
    fn extend<I: IntoIterator<Item = Session>>(&mut self, sessions: I) {
        for session in sessions {
            self.counts[session.protocol as usize][session.outcome as usize] += 1;
            self.sessions.push_back(session);
        }
    }
}
