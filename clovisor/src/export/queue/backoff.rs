//! How long to wait before the next try: doubling, bounded, and different on every node.
//!
//! It refuses to know clocks and sinks.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The waits of one batch.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits from about `first` up to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The next wait: what the server `asked` for, else between half and all of our own.
    pub(crate) fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.next.min(self.most);
        self.next = own.saturating_mul(2);
        // Agents of a whole cluster lose the collector at the same moment and must not come back at the same moment;
        // nor may they when it asked all of them for the same wait, so that is stretched by up to our own.
        asked.map_or(own.mul_f64(0.5 + random() / 2.0), |asked| asked + own.mul_f64(random()))
    }
}

/// A number from 0 to 1; the keys of `RandomState` differ at each call and need no crate for randomness.
fn random() -> f64 {
    // The upper 32 bits, which an f64 holds exactly.
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for own in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.wait(None).as_millis();
            assert!((own / 2..=own).contains(&wait), "{wait} for {own}");
        }
    }

    #[test]
    fn what_a_server_asks_for_is_the_least() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let wait = backoff.wait(Some(Duration::from_secs(30)));
        assert!((30_000..=30_100).contains(&wait.as_millis()), "{wait:?}");
    }

    #[test]
    fn two_nodes_differ() {
        let waits: Vec<_> =
            (0..8).map(|_| Backoff::new(Duration::from_secs(1), Duration::MAX).wait(None)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
