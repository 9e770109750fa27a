//! `cargo xtask e2e`: scenarios in a real Kubernetes cluster on this machine, which is made for them and taken down.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::e2e::{self, Scenario, World};
use crate::needs::{self, Unmet};
use crate::process;
use crate::stop::Stop;

/// Play end-to-end scenarios in a real Kubernetes cluster.
///
/// Makes a cluster of one node in namespaces of its own (nothing of this machine's network, mounts or containers is
/// touched), plays the scenarios and takes it down. The first time Kubernetes is built, which takes about 12 minutes;
/// after that the cluster is up in about 20 seconds. Takes 3 GiB of memory and 3 GiB of disk. Ends with a line
/// `N passed, N failed`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask e2e                      all scenarios\n  \
    cargo xtask e2e cluster              those with `cluster` in their name\n  \
    cargo xtask e2e --keep               all, then leave the cluster running until Ctrl-C\n  \
    cargo xtask e2e --keep --no-scenario a cluster and nothing else")]
pub(crate) struct Arguments {
    /// Only scenarios whose name has one of these in it
    filter: Vec<String>,
    /// Leave the cluster running until Ctrl-C, and say how to use it
    #[arg(long)]
    keep: bool,
    /// Play no scenario
    #[arg(long, conflicts_with = "filter")]
    no_scenario: bool,
    /// Only print the names of the scenarios
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<&Scenario> =
        e2e::ALL.iter().filter(|scenario| arguments.chooses(scenario.name)).collect();
    if arguments.list {
        for scenario in chosen {
            println!("{:<24} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    if chosen.is_empty() && !arguments.no_scenario {
        let names: Vec<_> = e2e::ALL.iter().map(|scenario| scenario.name).collect();
        let error = anyhow::anyhow!("no scenario has that in its name; there are: {}", names.join(", "));
        return Err(Unmet::usage(&error).into());
    }
    if !process::is_root() {
        return Err(Unmet::root("e2e", "makes namespaces and runs containers").into());
    }
    needs::ensure(&needs::E2E)?;
    // From here on there is something to take down, so signals no longer kill us.
    let stop = Stop::on_signals()?;
    let started = Instant::now();
    eprintln!("starting a cluster …");
    let mut world = World::start(&stop)?;
    eprintln!("  … it is up after {} s", started.elapsed().as_secs());
    let (passed, failed) = play(&chosen, &mut world, &stop);
    if arguments.keep && !stop.wanted() {
        eprintln!(
            "the cluster runs until Ctrl-C; ask it so:\n  {} get pods -A",
            world.cluster.kubectl_by_hand()
        );
        while !stop.wanted() {
            world.cluster.check()?;
            thread::sleep(Duration::from_millis(200));
        }
    }
    drop(world);
    println!("{passed} passed, {} failed", failed.len());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

impl Arguments {
    fn chooses(&self, name: &str) -> bool {
        !self.no_scenario && (self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part)))
    }
}

/// Plays them all, also after one that failed. Returns how many passed, and the names of the others.
fn play(scenarios: &[&Scenario], world: &mut World, stop: &Stop) -> (usize, Vec<&'static str>) {
    let (mut passed, mut failed) = (0, Vec::new());
    for scenario in scenarios {
        eprintln!("== {}: {}", scenario.name, scenario.about);
        let started = Instant::now();
        let outcome = (scenario.run)(world);
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(()) => {
                passed += 1;
                eprintln!("  passed in {seconds} s");
            }
            Err(error) => {
                failed.push(scenario.name);
                eprintln!("  FAILED after {seconds} s: {error:#}");
                if stop.wanted() {
                    break;
                }
                world.show_state();
            }
        }
    }
    (passed, failed)
}
