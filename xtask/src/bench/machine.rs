//! The machine that a benchmark runs on: what it is, and whether anything else keeps it busy.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process;
use crate::workspace;

/// How long it is watched before a benchmark.
const WATCH: Duration = Duration::from_secs(2);
/// Share of the processors' time, in per cent, that others may take.
pub(crate) const MOST_BUSY: u64 = 5;

/// What it is: for the table.
pub(crate) fn describe() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models = || cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let git = process::output(workspace::in_root("git").args(["describe", "--always", "--dirty"]));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processor": models().next().unwrap_or("unknown"),
        "processors": models().count(),
        "clovisor": git.map(|name| name.trim().to_owned()).unwrap_or_default(),
    })
}

/// Per cent of the processors' time that is taken now, by anybody.
pub(crate) fn busy() -> Result<u64> {
    let (busy, all) = times()?;
    thread::sleep(WATCH);
    let (later_busy, later_all) = times()?;
    Ok((later_busy - busy) * 100 / (later_all - all).max(1))
}

/// Ticks that were worked, and all ticks, since the start of the machine (proc_stat(5)).
fn times() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}
