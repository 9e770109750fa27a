//! Sessions that have ended and wait to be fetched, counted by outcome as they come.
//!
//! It needs no bound of its own: one packet ends at most as many sessions as its flow has open, and the caller
//! fetches them before it hands in the next.

use std::collections::VecDeque;

use crate::{outcome::Outcome, session::Session};

/// Sessions in the order of their ends.
#[derive(Default)]
pub(crate) struct Outbox {
    sessions: VecDeque<Session>,
    counts: [u64; Outcome::ALL.len()],
}

impl Outbox {
    pub(crate) fn pop(&mut self) -> Option<Session> {
        self.sessions.pop_front()
    }

    /// Sessions by outcome, in the order of [`Outcome::ALL`], fetched ones included.
    pub(crate) fn counts(&self) -> [u64; Outcome::ALL.len()] {
        self.counts
    }
}

impl Extend<Session> for Outbox {
    fn extend<I: IntoIterator<Item = Session>>(&mut self, sessions: I) {
        for session in sessions {
            self.counts[session.outcome as usize] += 1;
            self.sessions.push_back(session);
        }
    }
}
