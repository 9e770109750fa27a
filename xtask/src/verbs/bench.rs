//! `cargo xtask bench`: what Clovisor costs a server, its clients and this machine.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::bench::choice::{Choice, Part};
use crate::bench::markdown::markdown;
use crate::bench::suite::Suite;
use crate::bench::{machine, peers};
use crate::needs::{self, Need};
use crate::stop::Stop;
use crate::temp::Scratch;
use crate::{process, workspace};

/// Measure what Clovisor costs: live and in turn with runs without it, in the kernel, with many flows and many pods, and in process.
///
/// A server (nginx, one worker) and a client with kept-alive connections in network namespaces; Clovisor at the server's veth
/// writes JSON lines to a file, or sends OTLP to a receiver that only counts. Every request carries a number that its response
/// brings back: client and spans are held against each other by it. Prints tables, and writes them as bench/live.md and
/// bench/live.json in the target directory.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Measure even while other programs keep the machine busy
    #[arg(long)]
    busy: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure_needs(&arguments.choice)?;
    let stop = Stop::on_signals()?;
    let scratch = Scratch::new("clovisor-bench")?;
    let suite = Suite::build(&arguments.choice, scratch.path(), stop)?;
    refuse_if_busy(arguments.busy)?;
    let json = json!({
        "machine": machine::describe(),
        "peers": if arguments.choice.peers { peers::versions() } else { json!({}) },
        "seconds": arguments.choice.seconds,
        "live": suite.run(Part::Live)?,
        "kernel": suite.run(Part::Kernel)?,
        "flows": suite.run(Part::Flows)?,
        "pods": suite.run(Part::Pods)?,
        "spans": suite.run(Part::Spans)?,
        "instructions": suite.run(Part::Instructions)?,
    });
    let text = markdown(&json);
    let dir = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(dir.join("live.json"), format!("{json:#}\n")))
        .and_then(|()| fs::write(dir.join("live.md"), &text))
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    println!("{text}");
    Ok(())
}

/// What the chosen parts need from the machine.
fn ensure_needs(choice: &Choice) -> Result<()> {
    let parts = &choice.parts;
    let is_live = parts.iter().any(|part| part.is_live());
    if is_live && !process::is_root() {
        let why = "makes network namespaces and loads programs into the kernel";
        return Err(needs::Unmet::root("bench", why).into());
    }
    needs::ensure(&needs::BUILD)?;
    if is_live {
        needs::ensure(&[Need::Ip, Need::Tc, Need::Nginx])?;
    }
    if parts.contains(&Part::Instructions) {
        needs::ensure(&[Need::Valgrind])?;
    }
    if choice.peers && parts.contains(&Part::Live) {
        needs::ensure(&needs::PEERS)?;
    }
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
