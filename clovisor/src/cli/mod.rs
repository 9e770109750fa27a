//! The command line: what can be asked for, and the help that explains it.
//!
//! It refuses to act: [`verbs`](crate::verbs) do. Every option is also an environment variable `CLOVISOR_*`.

mod buffers;
mod memory;
mod overload;
pub(crate) mod parse;
mod run;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clovisor_trace::{EgressRule, PortRule, Rules, Semconv};

use crate::{
    datapath::attach::Way,
    export::{Address, AddressError},
};

pub use buffers::BufferArgs;
pub use memory::MemoryArgs;
pub use overload::OverloadArgs;
pub use parse::Target;
pub use run::RunArgs;

/// Traces HTTP and TCP of pods and programs from their packets alone: nothing is injected, nothing restarted.
#[derive(Debug, Parser)]
#[command(name = "clovisor", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Say more on stderr: how packets were picked, what was attached (as CLOVISOR_LOG=debug does)
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What Clovisor can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace the pods of this Kubernetes node
    Run(Box<RunArgs>),
    /// Trace interfaces live
    Trace(Box<TraceArgs>),
    /// Trace a capture file, pcap or pcapng; needs no rights
    Read(ReadArgs),
    /// Remove what a killed clovisor left on interfaces
    Cleanup,
}

/// Trace interfaces live.
///
/// Needs root, or the capabilities NET_ADMIN, BPF and PERFMON.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clovisor trace -i veth1a2b --port 8080=http            a pod's server, at the host's end of its veth
  clovisor trace -i eth0 --egress 80=http                what this machine asks of others on port 80
  clovisor trace -i lo --port 3000 -- npm test           while a command runs
  clovisor trace -i veth1a2b --port 80 -w shop.pcapng    and keep the packets, for 'clovisor read shop.pcapng'
  clovisor trace -i veth1a2b=shop --port 80 --to localhost:4317   and send spans to Jaeger as service 'shop'")]
pub struct TraceArgs {
    /// Interface to trace, with the service name for its spans; may be given more than once
    #[arg(
        short,
        long = "interface",
        value_name = "IFACE[=SERVICE]",
        required = true,
        env = "CLOVISOR_INTERFACE",
        value_delimiter = ','
    )]
    pub interfaces: Vec<Target>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub selection: Selection,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub output: Output,
    /// How to attach: clsact filters, tcx links, or whichever sees all packets at the least cost
    #[arg(long, value_enum, default_value_t, env = "CLOVISOR_ATTACH")]
    pub attach: AttachWay,
    /// Stop after this time: 30, 30s, 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse::duration, env = "CLOVISOR_DURATION")]
    pub duration: Option<Duration>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub buffers: BufferArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub memory: MemoryArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub overload: OverloadArgs,
    /// Also write the packets that are traced to this file, as pcapng, for 'clovisor read', Wireshark and tshark. An existing
    /// file is overwritten; - is standard output. The file holds everything that was on the wire, passwords included
    #[arg(short, long, value_name = "FILE", env = "CLOVISOR_WRITE")]
    pub write: Option<PathBuf>,
    /// Close that file, and go on without, before it is larger than this: 500M, 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::size, env = "CLOVISOR_WRITE_LIMIT")]
    pub write_limit: u64,
    /// Trace while this command runs, and end with its exit code
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Trace a capture file.
///
/// A file that 'clovisor trace --write' has made gives the sessions of that run: it says which ports, targets and service names were
/// traced. --port and --egress, if given, are taken in their place, and --service in place of the names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clovisor read out.pcapng                  what 'clovisor trace -w out.pcapng' has traced
  clovisor read traffic.pcap --port 80=http
  tcpdump -i eth0 -w - | clovisor read - --port 8080 -o json")]
pub struct ReadArgs {
    /// The file, pcap or pcapng; - reads standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Stop after this time of the capture: 30, 30s, 500ms, 5m, 1h
    #[arg(long, value_name = "TIME", value_parser = parse::duration, env = "CLOVISOR_DURATION")]
    pub duration: Option<Duration>,
    /// Service name for the spans [default: the file's own, OTEL_SERVICE_NAME, or the name of the file]
    #[arg(long, value_name = "NAME", env = "CLOVISOR_SERVICE")]
    pub service: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub selection: Selection,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub output: Output,
}

/// Which connections to trace.
#[derive(Debug, Args)]
pub struct Selection {
    /// Port that the pod (or program) listens on, and its protocol: http (the default) or tcp. Without
    /// --port and --egress, 80 and 8080
    #[arg(short, long = "port", value_name = "PORT[=PROTOCOL]", value_parser = parse::port, env = "CLOVISOR_PORT", value_delimiter = ',')]
    pub ports: Vec<PortRule>,
    /// Where the pod (or program) connects to: a port, or an address and port; an IPv6 address in brackets
    #[arg(short, long, value_name = "[IP:]PORT[=PROTOCOL]", value_parser = parse::egress, env = "CLOVISOR_EGRESS", value_delimiter = ',')]
    pub egress: Vec<EgressRule>,
    /// Header whose values requests and responses are to keep; may be given more than once. None are by default
    #[arg(long = "header", value_name = "NAME", value_parser = parse::header, env = "CLOVISOR_HEADER", value_delimiter = ',')]
    pub headers: Vec<String>,
    /// Clients are traced elsewhere, by another clovisor: a server's span becomes the child of the span that its client has
    /// there. --egress implies it
    #[arg(long, env = "CLOVISOR_JOIN")]
    pub join: bool,
}

impl Selection {
    /// Whether clients may have spans, so that a server's span can be the child of one.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.join || !self.egress.is_empty()
    }

    /// The rules; those for a newcomer if none were given, and whether that was so.
    #[must_use]
    pub fn rules(&self) -> (Rules, bool) {
        let mut rules = Rules { ports: self.ports.clone(), egress: self.egress.clone() };
        let none = rules == Rules::default();
        if none {
            rules.ports =
                [80, 8080].map(|port| PortRule { port, protocol: clovisor_trace::Protocol::Http }).into();
        }
        (rules, none)
    }
}

/// What to do with spans.
#[derive(Debug, Args)]
pub struct Output {
    /// How to show sessions on standard output [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_enum, value_name = "FORM", env = "CLOVISOR_OUTPUT")]
    pub output: Option<Form>,
    /// Also send spans there: host:port (4317 OTLP, 4318 OTLP over HTTP, 14268 or 6831 Jaeger Thrift), or
    /// otlp(s)://, http(s)://, jaeger+http://, jaeger+udp://; may be given more than once
    #[arg(long, value_name = "ADDRESS", value_parser = address, env = "CLOVISOR_TO", value_delimiter = ',')]
    pub to: Vec<Address>,
    /// Stop after this many sessions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), env = "CLOVISOR_LIMIT")]
    pub limit: Option<u64>,
    /// Names of attributes: stable (OpenTelemetry's), legacy (the original Clovisor's), or dup (both)
    #[arg(long, value_name = "NAMES", default_value = "stable", value_parser = str::parse::<Semconv>, env = "CLOVISOR_SEMCONV")]
    pub semconv: Semconv,
    /// Do not write a summary to stderr at the end
    #[arg(short, long)]
    pub quiet: bool,
}

fn address(text: &str) -> Result<Address, AddressError> {
    text.parse()
}

/// How sessions are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A row for each session, for people
    Table,
    /// A JSON object on one line for each session
    Json,
    /// Nothing; only --to
    None,
}

/// [`Way`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AttachWay {
    /// clsact; tcx where a foreign tcx program would keep packets from clsact
    #[default]
    Auto,
    /// Filters on a clsact qdisc; any kernel
    Clsact,
    /// tcx links; kernel 6.6 and later
    Tcx,
}

impl From<AttachWay> for Way {
    fn from(way: AttachWay) -> Self {
        match way {
            AttachWay::Auto => Self::Auto,
            AttachWay::Clsact => Self::Clsact,
            AttachWay::Tcx => Self::Tcx,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::{cgroup, memory::Memory, overload::Setting};

    #[test]
    fn the_definition_holds_together() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn overload_has_its_settings() {
        let setting = |more: &[&str]| {
            let words = ["clovisor", "trace", "-i", "lo"].iter().chain(more);
            match super::Cli::try_parse_from(words).ok()?.command {
                super::Command::Trace(arguments) => {
                    Some(arguments.overload.setting(arguments.buffers.unneeded()))
                }
                _ => None,
            }
        };
        let unneeded = [Some(64 << 10), Some(16 << 10)];
        assert_eq!(setting(&[]), Some(Some(Setting { cpu: None, unneeded })));
        assert_eq!(setting(&["--cpu", "250m"]), Some(Some(Setting { cpu: Some(0.25), unneeded })));
        // Bodies go first, also where all are wanted.
        let all = Setting { cpu: None, unneeded: [None, unneeded[1]] };
        assert_eq!(setting(&["--copy-all"]), Some(Some(all)));
        assert_eq!(setting(&["--no-shedding"]), Some(None));
        assert_eq!(setting(&["--no-shedding", "--cpu", "1"]), None, "one says never, the other when");
    }

    #[test]
    fn memory_has_a_default_and_a_least() {
        let memory = |more: &[&str]| {
            let words = ["clovisor", "trace", "-i", "lo"].iter().chain(more);
            match super::Cli::try_parse_from(words).ok()?.command {
                super::Command::Trace(arguments) => Some(arguments.memory.bound()),
                _ => None,
            }
        };
        assert_eq!(memory(&[]), Some(Memory::within(cgroup::memory_limit())));
        assert_eq!(memory(&["--memory", "24"]), Some(Memory::mib(24)));
        assert_eq!(memory(&["--memory", "4"]), None);
    }
}
