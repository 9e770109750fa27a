//! What of the suite is measured, how often and for how long, as the command line says it. Nothing is done here.

use clap::ValueEnum;

/// What Clovisor follows by default (`clovisor_trace::Limits::flows`): beyond that it forgets flows, which is another thing.
const MOST_FLOWS: i64 = 131_072;
/// A bridge of Linux has 1,023 ports at most (`BR_MAX_PORTS`).
const MOST_PODS: i64 = 1_000;

/// The choice.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    pub(crate) parts: Vec<Part>,
    /// Live: requests a second; 0 is as fast as it goes
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [0, 5_000, 20_000, 50_000])]
    pub(crate) rates: Vec<u32>,
    /// Live: runs with each tracer at each rate; there is one more without. Spans: turns. Others: repetitions, three at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) runs: u8,
    /// How long each run sends
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub(crate) seconds: u16,
    /// Flows: how many connections
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [0, 10, 1_000, 10_000, 100_000],
          value_parser = clap::value_parser!(u32).range(..=MOST_FLOWS))]
    pub(crate) flows: Vec<u32>,
    /// Pods: how many
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 30, 100, 300],
          value_parser = clap::value_parser!(u16).range(1..=MOST_PODS))]
    pub(crate) pods: Vec<u16>,
    /// Live: also with other tracers, which are got the first time: httpry, Suricata, Packetbeat and tshark
    #[arg(long)]
    pub(crate) peers: bool,
}

impl Choice {
    /// The most flows of any run.
    pub(crate) fn most_flows(&self) -> u32 {
        self.flows.iter().max().copied().unwrap_or(0)
    }
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Throughput, latency, what is captured, processor time and memory, with and without
    Live,
    /// What programs cost in the kernel
    Kernel,
    /// Memory and processor time with up to 100,000 flows
    Flows,
    /// Memory and processor time with up to 300 traced pods
    Pods,
    /// Sessions a second in process, on one core: packets to sessions, to spans, JSON and OTLP
    Spans,
    /// Instructions and allocations from packets to sessions, spans, JSON and OTLP, which do not drift
    Instructions,
}

impl Part {
    /// Whether it traces live, in network namespaces.
    pub(crate) fn is_live(self) -> bool {
        !self.is_in_process()
    }

    /// Whether it runs benchmarks in process alone.
    pub(crate) fn is_in_process(self) -> bool {
        matches!(self, Self::Spans | Self::Instructions)
    }

    /// Whether spans are sent by OTLP.
    pub(crate) fn has_receiver(self) -> bool {
        self == Self::Live
    }
}
