//! The last words of `trace` and `read`: how many sessions, how they ended, how long they took, and the ledger
//! of everything that came in.

use std::fmt::{self, Write as _};

use clovisor_trace::{Ledger, Outcome, Session};
use hdrhistogram::Histogram;

use crate::export::Snapshot;

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

/// A line of counts: what came in, then what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What is counted.
    pub of: &'static str,
    /// How many came in.
    pub came: u64,
    /// What became of them; all parts together are `came`, or the account does not balance.
    pub parts: Vec<(&'static str, u64)>,
}

impl Account {
    /// Whether the parts make up the whole.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.came == self.parts.iter().map(|(_, count)| count).sum::<u64>()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = String::new();
        for (name, count) in self.parts.iter().filter(|(_, count)| *count > 0) {
            let between = if parts.is_empty() { "" } else { " + " };
            write!(parts, "{between}{count} {name}")?;
        }
        let parts = if parts.is_empty() { "0" } else { &parts };
        let sign = if self.balances() { "=" } else { "IS NOT (please report this)" };
        write!(f, "{:9} {} {sign} {parts}", self.of, self.came)
    }
}

/// The account of packets that came into the tracer.
#[must_use]
pub fn tracer_packets(ledger: &Ledger) -> Account {
    Account {
        of: "packets",
        came: ledger.packets,
        parts: vec![
            ("of sessions", ledger.segments),
            ("fragments joined", ledger.fragments - ledger.fragments_dropped),
            ("fragments lost", ledger.fragments_dropped),
            ("without a connection", ledger.stray),
            ("after the end", ledger.after_end),
            ("not TCP", ledger.not_tcp),
            ("malformed", ledger.malformed),
        ],
    }
}

/// The account of sessions, with those beyond the user's limit apart.
#[must_use]
pub fn sessions(ledger: &Ledger, tally: &Tally) -> Account {
    Account {
        of: "sessions",
        came: ledger.sessions_begun,
        parts: vec![
            ("handed on", tally.sessions()),
            ("sampled out", tally.sampled_out),
            ("beyond the limit", tally.beyond_limit),
            ("open", ledger.sessions_open),
        ],
    }
}

/// The account of spans of one exporter.
#[must_use]
pub fn spans(snapshot: &Snapshot) -> Account {
    Account {
        of: "spans",
        came: snapshot.pushed,
        parts: vec![
            ("exported", snapshot.exported),
            ("queued", snapshot.queued),
            ("lost, queue full", snapshot.dropped_queue_full),
            ("lost, given up", snapshot.dropped_given_up),
            ("lost, refused", snapshot.dropped_refused),
        ],
    }
}

/// What is said at the end.
#[must_use]
pub fn text(tally: &Tally, accounts: &[(String, Account)]) -> String {
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
    for (of, account) in accounts {
        _ = write!(text, "\n  {account}{}", if of.is_empty() { String::new() } else { format!(" ({of})") });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_does_not_balance_says_so() {
        let mut account = Account { of: "packets", came: 3, parts: vec![("a", 1), ("none", 0), ("b", 2)] };
        assert_eq!(account.to_string(), "packets   3 = 1 a + 2 b");
        account.came = 4;
        assert!(!account.balances());
        assert!(account.to_string().contains("IS NOT"));
    }
}
