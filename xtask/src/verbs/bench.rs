//! `cargo xtask bench`: what Clovisor costs a server, its clients and this machine.

use std::fs;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::bench::tracer::Kind;
use crate::bench::world::{Programs, World};
use crate::bench::{flows, instructions, kernel, live, machine, peers, table};
use crate::needs::{self, Need};
use crate::stop::Stop;
use crate::temp::Scratch;
use crate::{process, workspace};

/// Most repetitions of what is no comparison in pairs: it varies less.
const REPETITIONS: u8 = 3;

/// Measure what Clovisor costs: live and in turn with runs without it, in the kernel, with many flows, and in instructions.
///
/// A server (nginx, one worker) and a client with kept-alive connections in network namespaces; Clovisor at the server's veth
/// writes JSON lines to a file, or sends OTLP to a receiver that only counts. Every request carries a number that its response
/// brings back: client and spans are held against each other by it. Prints tables, and writes them as bench/live.md and
/// bench/live.json in the target directory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    parts: Vec<Part>,
    /// Live: requests a second; 0 is as fast as it goes
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [0, 5_000, 20_000, 50_000])]
    rates: Vec<u32>,
    /// Live: runs with each tracer at each rate; there is one more without. Others: repetitions, three at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// How long each run sends
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Live: also with other tracers, which are got the first time: httpry, Suricata, Packetbeat and tshark
    #[arg(long)]
    peers: bool,
    /// Measure even while other programs keep the machine busy
    #[arg(long)]
    busy: bool,
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Throughput, latency, what is captured, processor time and memory, with and without
    Live,
    /// What programs cost in the kernel
    Kernel,
    /// Memory and processor time with up to 100,000 flows, as far as a process may have so many files
    Flows,
    /// Instructions and allocations from packets to sessions, spans, JSON and OTLP, which do not drift
    Instructions,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !process::is_root() {
        let why = "makes network namespaces and loads programs into the kernel";
        return Err(needs::Unmet::root("bench", why).into());
    }
    needs::ensure(&needs::BUILD)?;
    needs::ensure(&[Need::Ip, Need::Nginx, Need::Valgrind])?;
    if arguments.peers {
        needs::ensure(&needs::PEERS)?;
    }
    eprintln!("building clovisor and the ends of its connections …");
    let programs = Programs {
        clovisor: workspace::build_clovisor()?,
        load: workspace::build_load()?,
        receiver: workspace::build_receiver()?,
    };
    let benchmarks = instructions::Benchmarks {
        sessions: workspace::build_benchmark("clovisor-trace", "sessions")?,
        spans: workspace::build_benchmark("clovisor", "spans")?,
    };
    refuse_if_busy(arguments.busy)?;
    let stop = Stop::on_signals()?;
    let scratch = Scratch::new("clovisor-bench")?;
    let world = World::new(scratch.path(), programs)?;
    let suite = Suite { arguments, world, stop };
    let has = |part| arguments.parts.contains(&part);
    let empty = || Value::Array(Vec::new());
    let json = json!({
        "machine": machine::describe(),
        "peers": if arguments.peers { peers::versions() } else { json!({}) },
        "seconds": arguments.seconds,
        "live": if has(Part::Live) { suite.live()? } else { empty() },
        "kernel": if has(Part::Kernel) { suite.kernel()? } else { empty() },
        "flows": if has(Part::Flows) { suite.flows()? } else { empty() },
        "instructions": if has(Part::Instructions) { benchmarks.count(scratch.path())? } else { empty() },
    });
    let text = table::markdown(&json);
    let dir = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("live.json"), format!("{json:#}\n")))
        .and_then(|()| fs::write(dir.join("live.md"), &text))
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    println!("{text}");
    Ok(())
}

fn refuse_if_busy(measure_anyway: bool) -> Result<()> {
    let (busy, most) = (machine::busy()?, machine::MOST_BUSY);
    if busy > most && !measure_anyway {
        let error = anyhow::anyhow!(
            "other programs take {busy} % of this machine, and more than {most} % would be measured as Clovisor's; end \
             them, or measure anyway with --busy"
        );
        return Err(needs::Unmet::usage(&error).into());
    }
    Ok(())
}

struct Suite<'a> {
    arguments: &'a Arguments,
    world: World,
    stop: Stop,
}

impl Suite<'_> {
    /// Before each run.
    fn step(&self, what: &str) -> Result<()> {
        anyhow::ensure!(!self.stop.wanted(), "stopped");
        eprintln!("{what} …");
        Ok(())
    }

    /// Each tracer in turn, each between two runs without.
    fn live(&self) -> Result<Value> {
        let Arguments { rates, runs, seconds, .. } = self.arguments;
        let mut kinds = vec![Kind::File, Kind::Otlp];
        if self.arguments.peers {
            kinds.extend(peers::ALL.map(Kind::Peer));
        }
        let mut all = Vec::new();
        for &rate in rates {
            let mut series =
                table::Series { rate, runs: vec![live::run(&self.world, rate, *seconds, None)?] };
            for number in 1..=*runs {
                for &kind in &kinds {
                    let name = kind.name();
                    self.step(&format!("{rate} requests/s (0: all it can), run {number} of {runs}, {name}"))?;
                    series.runs.push(live::run(&self.world, rate, *seconds, Some(kind))?);
                    series.runs.push(live::run(&self.world, rate, *seconds, None)?);
                }
            }
            all.push(series.json());
        }
        Ok(all.into())
    }

    fn kernel(&self) -> Result<Value> {
        let mut all = Vec::new();
        for number in 1..=self.arguments.runs.min(REPETITIONS) {
            self.step(&format!("cost in the kernel, run {number}"))?;
            all.push(kernel::measure(&self.world, self.arguments.seconds)?);
        }
        Ok(table::kernel(&all))
    }

    fn flows(&self) -> Result<Value> {
        let (mut all, counts) = (Vec::new(), flows::counts());
        for number in 1..=self.arguments.runs.min(REPETITIONS) {
            for &count in &counts {
                self.step(&format!("{count} flows, run {number}"))?;
                all.push(flows::measure(&self.world, count, self.arguments.seconds)?);
            }
        }
        Ok(table::flows(&all))
    }
}
