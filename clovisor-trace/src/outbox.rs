//! Sessions that have ended and wait to be fetched, counted by protocol and outcome as they go, and marked where they
//! may have lost packets.
//!
//! It needs no bound of its own: one packet ends at most as many sessions as its flow has open, and the caller
//! fetches them before it hands in the next; those that are kept are of so short a time.

use std::collections::VecDeque;

use crate::{
    flow::{Shed, Unneeded},
    ledger::Ledger,
    loss::{Loss, Losses},
    protocol::{Report, Reports},
    session::Session,
};

/// Sessions in the order of their ends.
#[derive(Default)]
pub(crate) struct Outbox {
    /// What flows have reported, and signed.
    pub(crate) reports: Reports,
    losses: Losses,
    /// What was found to be unneeded since it was last asked for.
    pub(crate) unneeded: VecDeque<Unneeded>,
    /// Connections that were left out since it was last asked for.
    pub(crate) shed: VecDeque<Shed>,
    /// Now, in the clock of the packets.
    pub(crate) now_ns: u64,
    /// The latest time that it was.
    latest_ns: u64,
    idle_ns: u64,
    keep_ns: u64,
}

impl Outbox {
    /// Nothing has ended yet. A connection is waited for so long.
    pub(crate) fn new(idle_ns: u64) -> Self {
        Self { idle_ns, ..Self::default() }
    }

    /// Whether a session is to be fetched: it has ended long enough ago.
    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        self.latest_ns = self.latest_ns.max(self.now_ns);
        // A loss that is heard of at that time may have happened at this.
        let is_due =
            |ended_ns: u64| self.keep_ns == 0 || ended_ns.saturating_add(self.keep_ns) < self.latest_ns;
        self.reports.front().is_some_and(|report| is_due(report.ended_ns))
    }

    /// The next session, which is counted by that.
    #[inline]
    pub(crate) fn pop(&mut self, ledger: &mut Ledger) -> Option<Session> {
        let Report { session, ended_ns, .. } = self.reports.front_mut()?;
        ledger.sessions[session.protocol as usize][session.outcome as usize] += 1;
        if !self.losses.is_empty() {
            session.overlaps_loss |= self.losses.overlap(session, *ended_ns, self.idle_ns);
        }
        ledger.sessions_overlapping_loss += u64::from(session.overlaps_loss);
        self.reports.pop_front().map(|report| report.session)
    }

    /// From now on keeps sessions so long.
    pub(crate) fn keep(&mut self, keep_ns: u64) {
        self.keep_ns = keep_ns;
    }

    /// Sessions that were not fetched yet.
    pub(crate) fn len(&self) -> u64 {
        self.reports.len() as u64
    }

    /// Takes note of a loss.
    pub(crate) fn lost(&mut self, loss: &Loss) {
        self.losses.note(loss);
    }

    /// An interface is no longer traced, and its losses are forgotten: sessions of it are marked first.
    pub(crate) fn forget(&mut self, interface: u32) {
        for Report { ended_ns, session, .. } in
            self.reports.iter_mut().filter(|kept| kept.session.interface == interface)
        {
            session.overlaps_loss |= self.losses.overlap(session, *ended_ns, self.idle_ns);
        }
        self.losses.forget(interface);
    }
}
