//! What became of every span that was pushed, counted where it happens and readable at any time.
//!
//! Invariant, whenever nothing is on the move:
//! `pushed = queued + exported + dropped_queue_full + dropped_given_up + dropped_refused`.

use std::{
    ops::Add,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Live counters of one queue.
#[derive(Debug, Default)]
pub struct Stats {
    pub(super) pushed: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) exported: AtomicU64,
    pub(super) dropped_queue_full: AtomicU64,
    pub(super) dropped_given_up: AtomicU64,
    pub(super) dropped_refused: AtomicU64,
    pub(super) retries: AtomicU64,
}

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
        Snapshot {
            pushed: self.pushed.load(Relaxed),
            queued: self.queued.load(Relaxed),
            exported: self.exported.load(Relaxed),
            dropped_queue_full: self.dropped_queue_full.load(Relaxed),
            dropped_given_up: self.dropped_given_up.load(Relaxed),
            dropped_refused: self.dropped_refused.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }

    /// Moves spans out of the queue, into one of the counters of what became of them.
    pub(super) fn settle(&self, count: u64, fate: &AtomicU64) {
        fate.fetch_add(count, Relaxed);
        self.queued.fetch_sub(count, Relaxed);
    }
}
