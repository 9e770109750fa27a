//! The ledger's law by the test's own arithmetic, from what `/metrics` says.

/// The samples of one scrape.
pub(crate) struct Metrics<'a> {
    text: &'a str,
    samples: Vec<(&'a str, f64)>,
}

impl<'a> Metrics<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name, value.parse().unwrap()))
        });
        Self { text, samples: samples.collect() }
    }

    /// The sum over all series of a name, of those with this label where one is given.
    pub(crate) fn sum(&self, name: &str, label: &str) -> u64 {
        let of_name = |series: &str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let found = self.samples.iter().filter(|(series, _)| of_name(series) && series.contains(label));
        let values: Vec<_> = found.map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {name} with {label} in\n{}", self.text);
        let sum: f64 = values.iter().sum();
        assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} {sum}");
        format!("{sum}").parse().unwrap()
    }

    /// Everything adds up, by the agent's own word and by these sums.
    pub(crate) fn assert_balanced(&self) {
        let sum = |name| self.sum(name, "");
        let text = self.text;
        for account in
            ["packets", "lost", "shed", "captured", "traced", "flows", "outcomes", "sessions", "spans"]
        {
            let label = format!("account=\"{account}\"");
            assert_eq!(self.sum("clovisor_ledger_imbalance", &label), 0, "{account}:\n{text}");
        }
        // The kernel goes on counting after its counters were read, so more may be found than they say, and never less.
        let captured = self.sum("clovisor_packets_total", "verdict=\"captured");
        let found = sum("clovisor_captured_packets_total") + sum("clovisor_captured_packets_held");
        assert!(captured <= found, "{captured} were captured, {found} found:\n{text}");
        let ended = sum("clovisor_sessions_total");
        assert_eq!(sum("clovisor_sessions_begun_total"), ended + sum("clovisor_sessions_open"), "{text}");
        let spans = sum("clovisor_spans_total");
        assert_eq!(ended, spans + sum("clovisor_spans_sampled_out_total"), "{text}");
        let fates =
            ["clovisor_spans_exported_total", "clovisor_spans_dropped_total", "clovisor_spans_queued"];
        assert_eq!(spans, fates.into_iter().map(sum).sum::<u64>(), "{text}");
        assert!(sum("clovisor_sessions_overlapping_loss_total") <= ended, "{text}");
        let lost = sum("clovisor_packets_lost_total");
        let by_verdict = self.sum("clovisor_packets_total", "verdict=\"lost");
        let ratio = self.samples.iter().find(|(series, _)| *series == "clovisor_loss_ratio{of=\"packets\"}");
        let (_, ratio) = ratio.unwrap_or_else(|| panic!("no ratio of lost packets in\n{text}"));
        assert_eq!(*ratio > 0.0, lost > 0, "{text}");
        assert!(*ratio <= 1.0 && lost >= by_verdict, "{text}");
    }
}
