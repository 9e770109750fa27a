//! Sessions that have ended and wait to be fetched, counted by protocol and outcome as they go, and marked where they
//! may have lost packets.
//!
//! It needs no bound of its own: one packet ends at most as many sessions as its flow has open, and the caller
//! fetches them before it hands in the next; those that are kept are of so short a time.

use std::collections::VecDeque;

use crate::{
    flow::Unneeded,
    ledger::Ended,
    loss::{Loss, Losses},
    session::Session,
};

/// Sessions in the order of their ends.
#[derive(Default)]
pub(crate) struct Outbox {
    sessions: VecDeque<Kept>,
    counts: Ended,
    /// How many of them are marked.
    overlapping: u64,
    losses: Losses,
    /// What was found to be unneeded since it was last asked for.
    pub(crate) unneeded: VecDeque<Unneeded>,
    /// Now, in the clock of the packets.
    pub(crate) now_ns: u64,
    /// The latest time that it was.
    latest_ns: u64,
    idle_ns: u64,
    keep_ns: u64,
}

/// A session that has ended.
struct Kept {
    ended_ns: u64,
    session: Session,
}

impl Outbox {
    /// Nothing has ended yet. A connection is waited for so long.
    pub(crate) fn new(idle_ns: u64) -> Self {
        Self { idle_ns, ..Self::default() }
    }

    /// The next session that has ended long enough ago.
    pub(crate) fn pop(&mut self) -> Option<Session> {
        self.latest_ns = self.latest_ns.max(self.now_ns);
        let is_due = |kept: &Kept| {
            // A loss that is heard of at that time may have happened at this.
            self.keep_ns == 0 || kept.ended_ns.saturating_add(self.keep_ns) < self.latest_ns
        };
        self.sessions.front().is_some_and(is_due).then(|| self.take()).flatten()
    }

    fn take(&mut self) -> Option<Session> {
        let Kept { ended_ns, mut session } = self.sessions.pop_front()?;
        self.counts[session.protocol as usize][session.outcome as usize] += 1;
        if !self.losses.is_empty() {
            session.overlaps_loss |= self.losses.overlap(&session, ended_ns, self.idle_ns);
        }
        self.overlapping += u64::from(session.overlaps_loss);
        Some(session)
    }

    /// From now on keeps sessions so long.
    pub(crate) fn keep(&mut self, keep_ns: u64) {
        self.keep_ns = keep_ns;
    }

    /// Sessions that were not fetched yet.
    pub(crate) fn len(&self) -> u64 {
        self.sessions.len() as u64
    }

    /// Sessions by protocol and outcome that were fetched.
    pub(crate) fn counts(&self) -> Ended {
        self.counts
    }

    /// Sessions that overlap a loss and were fetched.
    pub(crate) fn overlapping(&self) -> u64 {
        self.overlapping
    }

    /// Takes note of a loss.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        self.losses.note(loss);
    }

    /// An interface is no longer traced, and its losses are forgotten: sessions of it are marked first.
    pub(crate) fn forget(&mut self, interface: u32) {
        for Kept { ended_ns, session } in
            self.sessions.iter_mut().filter(|kept| kept.session.interface == interface)
        {
            session.overlaps_loss |= self.losses.overlap(session, *ended_ns, self.idle_ns);
        }
        self.losses.forget(interface);
    }
}

impl Extend<Session> for Outbox {
    fn extend<I: IntoIterator<Item = Session>>(&mut self, sessions: I) {
        let ended_ns = self.now_ns;
        self.sessions.extend(sessions.into_iter().map(|session| Kept { ended_ns, session }));
    }
}
