//! Three hundred pods on one node, ten times over. It is the agent's own scale test with a small API server in the
//! cluster's place: here, 300 pods would measure containerd.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::World;
use crate::{cache, process, workspace};

const PODS: &str = "300";
const TEST: &str = "scale::many_pods_over_many_rounds_leave_nothing_behind";

pub(super) fn run(_: &mut World) -> Result<()> {
    let log = cache::log("e2e/many-pods");
    let mut command = workspace::cargo();
    command
        .args(["test", "--locked", "--package", "clovisor", "--test", "agent", "--"])
        .args(["--exact", TEST, "--nocapture"])
        .env("CLOVISOR_SCALE", PODS)
        // What is missing is a failure, not a skip.
        .env("CI", "true");
    process::logged(&format!("{PODS} pods, ten times"), "2 to 3 min", &mut command, &log)?;
    let said = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let rounds: Vec<_> = said.lines().filter(|line| line.starts_with("round ")).collect();
    rounds.iter().for_each(|round| eprintln!("  {round}"));
    ensure!(rounds.len() == 10, "{} rounds were played and not 10; see {}", rounds.len(), log.display());
    Ok(())
}
