//! Durations in OpenTelemetry's buckets. A plain value: a copy of it is of one moment.

use std::fmt;

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds in seconds: those that the semantic conventions advise for `http.server.request.duration`.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Durations counted by bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// By bucket, not added up; the last has no bound.
    counts: [u64; BOUNDS.len() + 1],
    sum_ns: u128,
}

impl Histogram {
    pub(super) fn observe(&mut self, duration_ns: u64) {
        let seconds = duration_ns as f64 / 1e9;
        // A value that is equal to a bound is below it: `le`.
        self.counts[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum_ns += u128::from(duration_ns);
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.counts).collect();
        encoder.encode_histogram::<NoLabelSet>(self.sum_ns as f64 / 1e9, self.count(), &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_part_of_its_bucket() {
        let mut histogram = Histogram::default();
        for duration_ns in [0, 5_000_000, 5_000_001, 10_000_000_000, 10_000_000_001, u64::MAX] {
            histogram.observe(duration_ns);
        }
        let mut expected = [0; BOUNDS.len() + 1];
        (expected[0], expected[1], expected[13], expected[14]) = (2, 1, 1, 2);
        assert_eq!((histogram.counts, histogram.count()), (expected, 6));
    }
}
