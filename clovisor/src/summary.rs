//! The last words of `trace` and `read`: how many sessions, how they ended, how long they took, and the ledger
//! of everything that came in.

use std::fmt::Write as _;

use clovisor_trace::{Ledger, Outcome, Session};
use hdrhistogram::Histogram;

use crate::ledger::Books;

/// Longest duration that is told apart: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// What was handed on.
#[derive(Debug)]
pub struct Tally {
    durations_us: Histogram<u64>,
    outcomes: [u64; Outcome::ALL.len()],
    /// Sessions that ended after the limit that the user gave was reached.
    pub beyond_limit: u64,
    /// Sessions that the sampler left out.
    pub sampled_out: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let durations_us = Histogram::new_with_bounds(1, LONGEST_US, 3)
            .expect("the bounds are constants that the histogram accepts");
        Self { durations_us, outcomes: [0; Outcome::ALL.len()], beyond_limit: 0, sampled_out: 0 }
    }
}

impl Tally {
    /// Counts a session.
    pub fn count(&mut self, session: &Session) {
        self.outcomes[session.outcome as usize] += 1;
        if session.outcome == Outcome::Complete {
            self.durations_us.saturating_record(session.duration_ns() / 1_000);
        }
    }

    /// Sessions handed on.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

/// What is said at the end.
#[must_use]
pub fn text(tally: &Tally, books: &Books) -> String {
    let mut text = format!("{} sessions", tally.sessions());
    let outcomes = Outcome::ALL.iter().zip(tally.outcomes).filter(|(_, count)| *count > 0);
    for (at, (outcome, count)) in outcomes.enumerate() {
        let between = if at == 0 { ": " } else { ", " };
        _ = write!(text, "{between}{count} {}", outcome.name());
    }
    if !tally.durations_us.is_empty() {
        let quantile = |q| duration(tally.durations_us.value_at_quantile(q));
        _ = write!(text, "; p50 {}, p99 {}", quantile(0.5), quantile(0.99));
    }
    if books.kernel().is_some() {
        let Ledger { bytes, bytes_copied, .. } = books.tracer;
        _ = write!(text, "\n  bytes     {bytes} on the wire, {bytes_copied} copied");
    }
    for account in books.accounts().iter().filter(|account| account.shown || account.difference() > 0) {
        _ = write!(text, "\n  {account}");
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}
