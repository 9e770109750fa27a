//! What the agent has seen and done, in Prometheus' text format.
//!
//! [`Observed`] is one moment of the agent; [`render`] writes it. It refuses to keep counts of its own: each is
//! counted where it happens. No path, query or address of a pod is ever a label.

use std::{collections::BTreeMap, fmt};

use clovisor_common::{ShedValue, Verdict};
use clovisor_trace::{Outcome, Protocol};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    export::Snapshot,
    ledger::{Books, Sinks},
    red::Red,
};

/// The agent at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What became of packets, sessions and spans.
    pub books: Books,
    /// What was counted of requests.
    pub red: Option<Red>,
    /// Pods that are traced.
    pub pods_attached: usize,
    /// Pods that should be traced and are not yet.
    pub pods_pending: usize,
    /// Pods that the configuration asks for and that cannot be traced.
    pub pods_skipped: usize,
    /// Pods of which one direction is not seen.
    pub pods_one_sided: usize,
    /// Interfaces that are traced: at the host, and inside pods' namespaces.
    pub interfaces: [usize; 2],
    /// Times that a pod could not be attached.
    pub attach_errors: u64,
    /// Configurations applied since the start.
    pub config_reloads: u64,
    /// Entries of the configuration that are wrong.
    pub config_errors: usize,
    /// Whether Redis answers.
    pub redis_connected: bool,
    /// Whether the API server answers.
    pub kubernetes_connected: bool,
    /// Whether pods and services were listed once.
    pub synced: bool,
}

impl Observed {
    /// Packets that were wanted and lost, for whatever reason.
    #[must_use]
    pub fn packets_lost(&self) -> u64 {
        self.books.packets_lost().iter().map(|(_, count)| count).sum()
    }

    /// Whether the agent does its work: it knows the cluster, and what is to be attached is. Redis and Jaeger
    /// may be gone.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.synced && (self.pods_attached > 0 || self.pods_pending == 0)
    }
}

/// Prometheus' text format (`application/openmetrics-text; version=1.0.0`).
///
/// # Errors
/// Only if formatting fails.
pub fn render(observed: &Observed) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix("clovisor").register_collector(Box::new(observed.clone()));
    // Under names that are not ours alone.
    if let Some(red) = &observed.red {
        registry.register_collector(Box::new(red.clone()));
    }
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauges(
            &mut encoder,
            "build_info",
            "The agent's version",
            "version",
            &[(env!("CARGO_PKG_VERSION"), 1)],
        )?;
        self.packets(&mut encoder)?;
        self.shed(&mut encoder)?;
        self.sessions(&mut encoder)?;
        self.exports(&mut encoder)?;
        self.law(&mut encoder)?;
        self.control(&mut encoder)
    }
}

impl Observed {
    fn packets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kernel = self.books.kernel().cloned().unwrap_or_default();
        let verdicts = Verdict::ALL.map(|verdict| (verdict_name(verdict), kernel.verdicts.of(verdict)));
        counters(
            encoder,
            "packets",
            "Packets at traced interfaces, by what the kernel side did",
            "verdict",
            &verdicts,
        )?;
        let ledger = &self.books.tracer;
        let fates = [
            ("segment", ledger.segments),
            ("fragment", ledger.fragments),
            ("stray", ledger.stray),
            ("after_end", ledger.after_end),
            ("shed", ledger.shed),
            ("not_tcp", ledger.not_tcp),
            ("malformed", ledger.malformed),
            ("unreadable", kernel.buffers.invalid),
        ];
        counters(
            encoder,
            "captured_packets",
            "Packets that were captured, by what became of them",
            "fate",
            &fates,
        )?;
        let help = "Captured packets that are held back for order";
        gauge(encoder, "captured_packets_held", help, kernel.buffers.held)?;
        let bytes = [("wire", ledger.bytes), ("copied", ledger.bytes_copied)];
        let help = "Bytes of packets that were captured: on the wire, and those of them that were copied";
        counters(encoder, "captured_bytes", help, "where", &bytes)?;
        let lost = self.books.packets_lost();
        counters(encoder, "packets_lost", "Packets that were wanted and lost", "reason", &lost)?;
        let by_cpu = kernel.lost_by_cpu.iter().enumerate().filter(|(_, packets)| **packets > 0);
        let by_cpu: Vec<_> = by_cpu.map(|(cpu, packets)| (cpu.to_string(), *packets)).collect();
        let by_cpu: Vec<_> = by_cpu.iter().map(|(cpu, packets)| (cpu.as_str(), *packets)).collect();
        let help = "Packets that were wanted and lost, by the CPU that handled them";
        counters(encoder, "packets_lost_by_cpu", help, "cpu", &by_cpu)
    }

    fn shed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kernel = self.books.kernel().cloned().unwrap_or_default();
        let help = "What is left out: 0 nothing, 1 bodies, 2 bodies and sessions";
        gauge(encoder, "overload_level", help, kernel.level as u64)?;
        let help = "Sessions that were left out, about: clients that pipeline have more";
        counter(encoder, "sessions_shed", help, self.books.sessions_shed())?;
        let of = |count: fn(&ShedValue) -> u64| -> Vec<_> {
            let some = kernel.shed.iter().filter(|(_, shed)| shed.packets > 0);
            some.map(|(pod, shed)| (pod.as_str(), count(shed))).collect()
        };
        let packets = of(|shed| shed.packets);
        counters(encoder, "pod_packets_shed", "Packets that the kernel side left out", "pod", &packets)?;
        let help = "Sessions that the kernel side left out, about";
        counters(encoder, "pod_sessions_shed", help, "pod", &of(|shed| shed.sessions))
    }

    fn sessions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ledger = &self.books.tracer;
        let help = "Sessions that ended, by protocol and outcome";
        let mut family = encoder.encode_descriptor("sessions", help, None, MetricType::Counter)?;
        for (protocol, counts) in Protocol::ALL.into_iter().zip(ledger.sessions) {
            for (outcome, count) in Outcome::ALL.into_iter().zip(counts) {
                let labels = [("protocol", protocol.name()), ("outcome", outcome.name())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        counter(encoder, "sessions_begun", "Sessions that began", ledger.sessions_begun)?;
        gauge(encoder, "sessions_open", "Sessions that have begun and not ended", ledger.sessions_open)?;
        let help = "Sessions during which packets of their interface were lost";
        counter(encoder, "sessions_overlapping_loss", help, ledger.sessions_overlapping_loss)?;
        counter(encoder, "flows_begun", "Connections that were followed", ledger.flows_begun)?;
        counter(
            encoder,
            "flows_evicted",
            "Connections given up because a limit was reached",
            ledger.flows_evicted,
        )?;
        gauge(encoder, "flows_open", "Connections that are followed", ledger.flows_open)
    }

    fn exports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let none = BTreeMap::new();
        let sinks = match &self.books.sinks {
            Sinks::One(sinks) => sinks,
            Sinks::Each(_) => &none,
        };
        let by_sink = |of: fn(&Snapshot) -> u64| -> Vec<_> {
            sinks.iter().map(|(sink, spans)| (*sink, of(spans))).collect()
        };
        let all = by_sink(|spans| spans.pushed);
        counters(encoder, "spans", "Spans handed to the exporter, by kind of sink", "sink", &all)?;
        let help = "Sessions of which the sampler wants no span";
        counter(encoder, "spans_sampled_out", help, self.books.sampled_out)?;
        let exported = by_sink(|spans| spans.exported);
        counters(encoder, "spans_exported", "Spans that arrived", "sink", &exported)?;
        let help = "Spans that will never arrive";
        let mut family = encoder.encode_descriptor("spans_dropped", help, None, MetricType::Counter)?;
        for (sink, spans) in sinks {
            for (reason, count) in [
                ("queue_full", spans.dropped_queue_full),
                ("given_up", spans.dropped_given_up),
                ("refused", spans.dropped_refused),
            ] {
                let labels = [("sink", *sink), ("reason", reason)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let retries = by_sink(|spans| spans.retries);
        counters(encoder, "export_retries", "Batches that were sent again", "sink", &retries)?;
        gauge(encoder, "spans_queued", "Spans that wait", self.books.spans().queued)
    }

    fn law(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let spans = self.books.spans();
        let help = "Share of what was wanted that is lost: packets, and spans";
        let mut family = encoder.encode_descriptor("loss_ratio", help, None, MetricType::Gauge)?;
        for (of, lost, wanted) in [
            ("packets", self.packets_lost(), self.books.packets_wanted()),
            ("spans", spans.dropped(), spans.pushed),
        ] {
            ConstGauge::new(ratio(lost, wanted)).encode(family.encode_family(&[("of", of)])?)?;
        }
        let mut by_account = BTreeMap::new();
        for account in self.books.accounts() {
            *by_account.entry(account.of).or_insert(0) += account.difference();
        }
        let help = "By how much an account of the ledger does not add up";
        let mut family = encoder.encode_descriptor("ledger_imbalance", help, None, MetricType::Gauge)?;
        for (account, difference) in by_account {
            let difference = ConstGauge::new(i64::try_from(difference).unwrap_or(i64::MAX));
            difference.encode(family.encode_family(&[("account", account)])?)?;
        }
        Ok(())
    }

    fn control(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let states = [
            ("attached", self.pods_attached),
            ("pending", self.pods_pending),
            ("skipped", self.pods_skipped),
        ];
        gauges(encoder, "pods", "Pods that the configuration asks for, by state", "state", &states)?;
        gauge(
            encoder,
            "pods_one_sided",
            "Pods of which packets in one direction are not seen",
            self.pods_one_sided as u64,
        )?;
        let sides = [("host", self.interfaces[0]), ("pod", self.interfaces[1])];
        gauges(
            encoder,
            "interfaces_attached",
            "Interfaces that are traced, on the host and inside pods' network namespaces",
            "side",
            &sides,
        )?;
        counter(encoder, "attach_errors", "Times that a pod could not be attached", self.attach_errors)?;
        counter(encoder, "config_reloads", "Configurations applied", self.config_reloads)?;
        gauge(
            encoder,
            "config_errors",
            "Entries of the configuration that are wrong",
            self.config_errors as u64,
        )?;
        gauge(encoder, "redis_up", "Whether Redis answers", self.redis_connected.into())?;
        gauge(encoder, "kubernetes_up", "Whether the API server answers", self.kubernetes_connected.into())
    }
}

/// 0 where nothing was wanted.
#[expect(clippy::cast_precision_loss, reason = "a ratio of counts needs no more than 52 bits")]
fn ratio(lost: u64, wanted: u64) -> f64 {
    if wanted == 0 { 0.0 } else { lost as f64 / wanted as f64 }
}

/// The value of the label `verdict`.
fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Emitted => "captured",
        Verdict::EmittedCut => "captured_cut",
        Verdict::EmittedTrimmed => "captured_without_payload",
        Verdict::NotIp => "not_ip",
        Verdict::NotTcp => "not_tcp",
        Verdict::NotSelected => "not_selected",
        Verdict::Malformed => "malformed",
        Verdict::FragmentNotSelected => "fragment_not_selected",
        Verdict::LostNoRoom => "lost_buffer_full",
        Verdict::LostNoReader => "lost_no_reader",
        Verdict::Shed => "shed",
        Verdict::Counted => "counted",
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// A counter for each value of a label.
fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        ConstCounter::new(*count).encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

/// A gauge for each value of a label.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&str, usize)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in values {
        let count = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
        count.encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{KernelSide, Source},
        overload::Level,
    };

    #[test]
    fn every_count_is_there() {
        let mut observed = Observed {
            pods_attached: 3,
            pods_one_sided: 1,
            interfaces: [1, 2],
            redis_connected: true,
            ..Observed::default()
        };
        observed.books.tracer.sessions[Protocol::Http as usize][Outcome::Complete as usize] = 7;
        let spans = Snapshot { pushed: 8, dropped_queue_full: 2, ..Snapshot::default() };
        let shed = BTreeMap::from([("shop/cart-1".to_owned(), ShedValue { packets: 9, sessions: 3 })]);
        let kernel = KernelSide { shed, level: Level::Sessions, ..KernelSide::default() };
        observed.books.source = Source::Kernel(Box::new(kernel));
        observed.books.tracer.shed_requests = 1;
        observed.books.sinks = Sinks::One(BTreeMap::from([("otlp-grpc", spans)]));
        let text = render(&observed).unwrap();
        for line in [
            concat!("clovisor_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "clovisor_packets_total{verdict=\"captured\"} 0",
            "clovisor_packets_lost_total{reason=\"buffer_full\"} 0",
            "clovisor_sessions_total{protocol=\"http\",outcome=\"complete\"} 7",
            "clovisor_spans_dropped_total{sink=\"otlp-grpc\",reason=\"queue_full\"} 2",
            "clovisor_loss_ratio{of=\"packets\"} 0.0",
            "clovisor_loss_ratio{of=\"spans\"} 0.25",
            "clovisor_ledger_imbalance{account=\"captured\"} 0",
            // More may have come since the verdicts were read.
            "clovisor_ledger_imbalance{account=\"shed\"} 0",
            "clovisor_overload_level 2",
            "clovisor_sessions_shed_total 4",
            "clovisor_pod_packets_shed_total{pod=\"shop/cart-1\"} 9",
            "clovisor_pod_sessions_shed_total{pod=\"shop/cart-1\"} 3",
            // Seven ended, and none of them began.
            "clovisor_ledger_imbalance{account=\"outcomes\"} 7",
            "clovisor_pods{state=\"attached\"} 3",
            "clovisor_pods_one_sided 1",
            "clovisor_interfaces_attached{side=\"pod\"} 2",
            "clovisor_redis_up 1",
            "clovisor_kubernetes_up 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_document_has_them_all() {
        let observed = Observed { red: Some(Red::default()), ..Observed::default() };
        let text = render(&observed).unwrap();
        let suffix = |kind: &str| if kind == "counter" { "_total" } else { "" };
        let mut rendered: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| (format!("{name}{}", suffix(kind)), kind.to_owned()))
            .collect();
        let mut documented: Vec<_> = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
            .filter_map(|(name, rest)| Some((name.to_owned(), rest.split_once(" |")?.0.to_owned())))
            .collect();
        rendered.sort();
        documented.sort();
        assert_eq!(documented, rendered);
    }

    #[test]
    fn ready_is_to_know_the_cluster_and_to_have_attached() {
        let observed = |synced, attached, pending| Observed {
            synced,
            pods_attached: attached,
            pods_pending: pending,
            ..Observed::default()
        };
        assert!(!observed(false, 0, 0).is_ready());
        assert!(observed(true, 0, 0).is_ready());
        assert!(!observed(true, 0, 1).is_ready());
        assert!(observed(true, 1, 1).is_ready());
    }
}
