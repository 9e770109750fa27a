//! `cargo xtask bench`: what Clovisor costs a server, its clients and this machine.

use std::fs;

use anyhow::{Context, Result};

use crate::bench::{live::Bench, machine, table};
use crate::needs::{self, Need};
use crate::stop::Stop;
use crate::temp::Scratch;
use crate::{process, workspace};

/// Measure what Clovisor costs: live runs with and without it, in turn, at several rates and at saturation.
///
/// A server (nginx, one worker) and a client with 64 kept-alive connections in network namespaces; Clovisor at the server's
/// veth writes JSON lines to a file. Every request carries a number that its response brings back: client and spans are held
/// against each other by it. Prints a table, and writes it as bench/live.md and bench/live.json in the target directory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Requests a second; 0 is as fast as it goes
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [0, 5_000, 20_000, 50_000])]
    rates: Vec<u32>,
    /// Runs with Clovisor at each rate; there is one more without
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    runs: u8,
    /// How long each run sends
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Measure even while other programs keep the machine busy
    #[arg(long)]
    busy: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !process::is_root() {
        return Err(needs::Unmet::root(
            "bench",
            "makes network namespaces and loads programs into the kernel",
        )
        .into());
    }
    needs::ensure(&needs::BUILD)?;
    needs::ensure(&[Need::Ip, Need::Nginx])?;
    eprintln!("building clovisor and the load client …");
    let (clovisor, load) = (workspace::build_clovisor()?, workspace::build_load()?);
    let busy = machine::busy()?;
    if busy > machine::MOST_BUSY && !arguments.busy {
        let most = machine::MOST_BUSY;
        let error = anyhow::anyhow!(
            "other programs take {busy} % of this machine, and more than {most} % would be measured as Clovisor's; end \
             them, or measure anyway with --busy"
        );
        return Err(needs::Unmet::usage(&error).into());
    }
    let stop = Stop::on_signals()?;
    let scratch = Scratch::new("clovisor-bench")?;
    let bench = Bench::new(scratch.path(), load, clovisor)?;
    let mut all = Vec::new();
    for &rate in &arguments.rates {
        let mut runs = vec![bench.run(rate, arguments.seconds, false)?];
        for number in 1..=arguments.runs {
            if stop.wanted() {
                anyhow::bail!("stopped");
            }
            eprintln!("{rate} requests/s (0: all it can), run {number} of {} …", arguments.runs);
            runs.push(bench.run(rate, arguments.seconds, true)?);
            runs.push(bench.run(rate, arguments.seconds, false)?);
        }
        all.push(table::Series { rate, runs });
    }
    let json = table::json(&machine::describe(), arguments.seconds, &all);
    let text = table::markdown(&json);
    let dir = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("live.json"), format!("{json:#}\n")))
        .and_then(|()| fs::write(dir.join("live.md"), &text))
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    println!("{text}");
    Ok(())
}
