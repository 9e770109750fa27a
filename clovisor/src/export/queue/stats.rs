//! What became of every span that was pushed, counted where it happens and readable at any time.
//!
//! Invariant, at any time, since a span leaves the queue and gets its fate under one lock:
//! `pushed = queued + exported + dropped_queue_full + dropped_given_up + dropped_refused`. It is taken once a span where one
//! is pushed, and once a batch where it is settled.

use std::{
    ops::Add,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Live counters of one queue.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Snapshot>);

/// The counters at one moment. All but `queued` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Spans that the tracer handed over.
    pub pushed: u64,
    /// Of these, how many wait or are on their way.
    pub queued: u64,
    /// How many arrived.
    pub exported: u64,
    /// How many found the queue full.
    pub dropped_queue_full: u64,
    /// How many were tried for too long, or were still waiting at the end.
    pub dropped_given_up: u64,
    /// How many the far end refused for good.
    pub dropped_refused: u64,
    /// Tries after the first one, counted in batches.
    pub retries: u64,
}

impl Add for Snapshot {
    type Output = Self;

    /// The counters of two queues together.
    fn add(self, other: Self) -> Self {
        Self {
            pushed: self.pushed + other.pushed,
            queued: self.queued + other.queued,
            exported: self.exported + other.exported,
            dropped_queue_full: self.dropped_queue_full + other.dropped_queue_full,
            dropped_given_up: self.dropped_given_up + other.dropped_given_up,
            dropped_refused: self.dropped_refused + other.dropped_refused,
            retries: self.retries + other.retries,
        }
    }
}

impl Snapshot {
    /// Spans that will never arrive.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full + self.dropped_given_up + self.dropped_refused
    }

    /// Whether every span is accounted for; see the module.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.pushed == self.queued + self.exported + self.dropped()
    }
}

impl Stats {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        *self.lock()
    }

    /// A span comes into the queue.
    pub(super) fn push(&self) {
        let mut counts = self.lock();
        counts.pushed += 1;
        counts.queued += 1;
    }

    /// A span comes and finds no place.
    pub(super) fn refuse(&self, fate: impl FnOnce(&mut Snapshot) -> &mut u64) {
        let mut counts = self.lock();
        counts.pushed += 1;
        *fate(&mut counts) += 1;
    }

    /// Moves spans out of the queue, into one of the counters of what became of them.
    pub(super) fn settle(&self, count: u64, fate: impl FnOnce(&mut Snapshot) -> &mut u64) {
        let mut counts = self.lock();
        *fate(&mut counts) += count;
        // More than were queued cannot be; were they, the account would say so.
        counts.queued = counts.queued.saturating_sub(count);
    }

    /// A batch is sent again.
    pub(super) fn retry(&self) {
        self.lock().retries += 1;
    }

    /// Counters are whole between any two statements, so a panic elsewhere spoils none.
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
