//! What a process and those that it started have used of the machine.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A tick of process times (proc_pid_stat(5)), in microseconds; it is the same on all Linux.
const TICK_US: f64 = 10_000.0;
/// How long a process has to be at rest to be taken for done, and how long that is waited for: what it has not worked off by
/// then, it is not charged for, and it may lose it.
const REST: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

/// Processor time so far, and resident memory now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_us: f64,
    pub(crate) resident_kb: u64,
    pub(crate) peak_kb: u64,
}

/// Of a process and all below it.
pub(crate) fn of(id: u32) -> Result<Usage> {
    let mut all = Usage::default();
    let mut left = vec![id];
    while let Some(id) = left.pop() {
        // One that has ended between the look at its parent and here is no more to be asked.
        let stat = match fs::read_to_string(format!("/proc/{id}/stat")) {
            Err(_) if !left.is_empty() || all != Usage::default() => continue,
            stat => stat?,
        };
        let one = parse(&stat, &fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default());
        all.cpu_us += one.cpu_us;
        all.resident_kb += one.resident_kb;
        all.peak_kb += one.peak_kb;
        for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            left.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    Ok(all)
}

/// Waits until a process has nothing more to do, and says what it has used by then.
pub(crate) fn at_rest(id: u32) -> Result<Usage> {
    let (mut before, end) = (of(id)?, Instant::now() + PATIENCE);
    loop {
        thread::sleep(REST);
        let now = of(id)?;
        if now.cpu_us - before.cpu_us <= TICK_US || Instant::now() > end {
            return Ok(now);
        }
        before = now;
    }
}

/// From proc_pid_stat(5) and proc_pid_status(5).
fn parse(stat: &str, status: &str) -> Usage {
    // The program's name may hold anything; behind it stands the state, the third field.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
    let memory = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Usage { cpu_us: ticks * TICK_US, resident_kb: memory("VmRSS:"), peak_kb: memory("VmHWM:") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 90 0 0 0 12 30 5 6 20 0 1 0 100 1 1";
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse(stat, status), Usage { cpu_us: 420_000.0, resident_kb: 1024, peak_kb: 2048 });
    }

    #[test]
    fn this_process_is_somewhere_and_another_is_nowhere() {
        assert!(of(std::process::id()).unwrap().resident_kb > 0);
        // Linux has no process of this number: proc_sys_kernel(5), pid_max.
        assert!(of(1 << 23).is_err());
    }
}
