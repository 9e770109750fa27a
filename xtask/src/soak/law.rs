//! What must hold of a soak: nothing was killed, memory does not grow, and the ledger adds up.
//!
//! Memory is flat where the median of the last third of the samples is at most [`MOST_GROWTH`] above that of the middle third. The
//! first third is left out: queues and the allocator fill up in it. A leak of less than that in a third of the time is not seen.

use serde_json::{Value, json};

/// Growth that is no growth, in per cent.
pub(crate) const MOST_GROWTH: f64 = 5.0;
/// Fewer samples than this tell nothing of thirds.
const LEAST_SAMPLES: usize = 9;
/// How an account that does not add up is printed.
const WRONG: &str = "IS NOT";

/// By how many per cent the last third is above the middle one; `None` where there are too few samples.
pub(crate) fn growth(samples: &[u64]) -> Option<f64> {
    let third = samples.len() / 3;
    if samples.len() < LEAST_SAMPLES {
        return None;
    }
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let (middle, last) = (median(middle) as f64, median(last) as f64);
    Some((last - middle) * 100.0 / middle.max(1.0))
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// One law: whether it held, and what was found.
pub(crate) struct Verdict {
    pub(crate) law: &'static str,
    pub(crate) held: bool,
    pub(crate) found: String,
}

impl Verdict {
    pub(crate) fn json(&self) -> Value {
        json!({ "law": self.law, "held": self.held, "found": self.found })
    }
}

/// Nothing was killed.
pub(crate) fn alive(kills: u64) -> Verdict {
    Verdict { law: "nothing is killed for want of memory", held: kills == 0, found: format!("{kills} kills") }
}

/// Memory does not grow.
pub(crate) fn flat(law: &'static str, samples: &[u64]) -> Verdict {
    let growth = growth(samples);
    let found = match growth {
        Some(growth) => format!("{growth:+.1} % (at most {MOST_GROWTH:+} %)"),
        None => format!("{} samples, too few to tell", samples.len()),
    };
    Verdict { law, held: growth.is_some_and(|growth| growth <= MOST_GROWTH), found }
}

/// Each account adds up, and there are some.
pub(crate) fn balanced(accounts: &[String]) -> Verdict {
    let wrong: Vec<&str> =
        accounts.iter().filter(|line| line.contains(WRONG)).map(|line| line.trim()).collect();
    let found = if wrong.is_empty() { format!("{} accounts", accounts.len()) } else { wrong.join("; ") };
    Verdict { law: "the ledger balances", held: wrong.is_empty() && !accounts.is_empty(), found }
}

/// What the ledger says was exported is what arrived.
pub(crate) fn arrived(exported: Option<u64>, came: u64) -> Verdict {
    let found = match exported {
        Some(exported) => format!("{exported} exported, {came} came"),
        None => format!("nothing exported by the ledger, {came} came"),
    };
    Verdict { law: "what was exported has arrived", held: exported == Some(came), found }
}

/// Spans that the ledger calls exported.
pub(crate) fn exported(accounts: &[String]) -> Option<u64> {
    let spans = accounts.iter().find_map(|line| line.trim().strip_prefix("spans "))?;
    let parts = spans.split(" = ").nth(1)?.split(" (").next()?;
    parts.split(" + ").find_map(|part| part.strip_suffix(" exported")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_the_start_and_from_noise() {
        let filling: Vec<u64> = (0..30).map(|at| 1_000 + 10 * at.min(8)).collect();
        assert!(flat("", &filling).held);
        let noisy: Vec<u64> = (0..30).map(|at| 1_000 + (at * 7919) % 100).collect();
        assert!(flat("", &noisy).held);
        let leaking: Vec<u64> = (0..30).map(|at| 1_000 + 10 * at).collect();
        assert!(!flat("", &leaking).held);
        let shrinking: Vec<u64> = (0..30).map(|at| 1_000 - 10 * at).collect();
        assert!(flat("", &shrinking).held);
        assert!(!flat("", &[1_000; 8]).held, "too few to tell");
    }

    #[test]
    fn an_account_that_is_wrong_or_absent_breaks_the_law() {
        let right = "  sessions  7 = 7 handed on".to_owned();
        let wrong = "  spans     7 IS NOT (please report this) 6 exported".to_owned();
        assert!(balanced(std::slice::from_ref(&right)).held);
        assert!(!balanced(&[right, wrong]).held);
        assert!(!balanced(&[]).held);
    }

    #[test]
    fn the_ledger_says_what_was_exported() {
        let line = "  spans     9 = 7 exported + 2 lost, queue full (OTLP to 127.0.0.1:4317)".to_owned();
        assert_eq!(exported(&["  lost      0 = 0".to_owned(), line]), Some(7));
        assert_eq!(exported(&["  spans     2 = 2 lost, queue full".to_owned()]), None);
    }
}
