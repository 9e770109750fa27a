//! What many flows cost: resident memory while they are open, and processor time a session, which should not depend on how many
//! others there are.
//!
//! All connections are open before what is counted begins, and each has its turn: at [`RATE`] 100,000 have all been asked once
//! after [`LEAST_SECONDS`]. Server and client hold a file for each, so both are several processes, as many for few flows as for
//! many. Data is acknowledged at once, since the longer a connection waits for its next request, the fewer acknowledgements would
//! ride on one. So nothing differs but the number of flows.
//!
//! A machine without the files or the memory for the most flows is refused before anything runs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::live;
use super::tracer::{Kind, Tracer};
use super::usage;
use super::world::{Size, Task, World};

/// Requests a second, over all connections.
const RATE: u32 = 10_000;
const LEAST_SECONDS: u16 = 12;

/// Most processes of either end: more would measure the machine's scheduler.
const MOST_PROCESSES: u32 = 32;
/// Ports that an address of the client may have for a server, by default.
const PORTS: u32 = 28_000;
/// Repetitions that need ports of their own: those of a connection that has ended are kept back for a minute.
const ROUNDS: u32 = 4;
/// Files that the machine has open beside the connections.
const OTHER_FILES: u64 = 16_384;
/// What a connection takes of the machine at most, both of its ends together, and all else.
const CONNECTION_KB: u64 = 16;
const OTHER_KB: u64 = 512 << 10;

/// Files that a process may have.
pub(super) fn files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The size of a world for up to so many flows; why this machine has none, if it has not.
pub(crate) fn size(most: u32) -> Result<Size> {
    let processes = processes(most, files());
    ensure!(
        processes <= MOST_PROCESSES,
        "{most} flows would take {processes} processes at each end, more than {MOST_PROCESSES}, as a process may have {} files \
         here (ulimit -Hn); raise that, or ask for fewer with --flows",
        files()
    );
    let free = free_files(&read("/proc/sys/fs/file-nr")?).context("/proc/sys/fs/file-nr")?;
    let wanted = 2 * u64::from(most) + OTHER_FILES;
    ensure!(
        free >= wanted,
        "{most} flows take {wanted} open files, and this machine has {free} left (fs.file-max); raise that, or ask for fewer with \
         --flows"
    );
    let free = free_kb(&read("/proc/meminfo")?).context("/proc/meminfo")?;
    let wanted = u64::from(most) * CONNECTION_KB + OTHER_KB;
    ensure!(
        free >= wanted,
        "{most} flows take up to {} MiB with both of their ends, and this machine has {} MiB left; ask for fewer with --flows",
        wanted >> 10,
        free >> 10
    );
    let addresses = most.saturating_mul(ROUNDS) / PORTS + 1;
    Ok(Size { processes, addresses, at_once: true, ..Size::default() })
}

/// How many processes take so many files together. An eighth of what each may have is left, for other files and since connections are
/// dealt out to a server's workers by chance.
fn processes(most: u32, files: u64) -> u32 {
    let each = (files.min(u64::from(u32::MAX)) * 7 / 8).max(1);
    u32::try_from(u64::from(most).div_ceil(each)).unwrap_or(u32::MAX).max(1)
}

/// Files that may still be opened: the first number are those that are open, the third the most (proc_sys_fs(5)).
fn free_files(file_nr: &str) -> Option<u64> {
    let mut numbers = file_nr.split_whitespace().map(str::parse::<u64>);
    let (open, most) = (numbers.next()?.ok()?, numbers.nth(1)?.ok()?);
    Some(most.saturating_sub(open))
}

/// Memory that may still be taken (proc_meminfo(5)).
fn free_kb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// One count of flows; what Clovisor took.
pub(crate) fn measure(world: &World, flows: u32, seconds: u16) -> Result<Value> {
    if flows == 0 {
        let tracer = Tracer::start(world, Kind::File)?;
        let memory = usage::at_rest(tracer.id())?;
        tracer.finish()?;
        return Ok(json!({ "flows": 0, "resident_kb": memory.resident_kb, "peak_kb": memory.peak_kb }));
    }
    let task = Task { connections: flows, rate: RATE, seconds: seconds.max(LEAST_SECONDS), long: None };
    let (load, mut traced) = live::traced(world, task, Kind::File)?;
    traced["flows"] = flows.into();
    traced["answered"] = load["answered"].clone();
    traced["not_asked"] = load["not_asked"].clone();
    Ok(traced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_stays_below_its_limit() {
        assert_eq!([processes(0, 20_000), processes(10_000, 20_000), processes(100_000, 20_000)], [1, 1, 6]);
        assert_eq!([processes(100_000, 1_024), processes(100_000, u64::MAX), processes(1, 0)], [112, 1, 1]);
    }

    #[test]
    fn what_the_machine_has_left_is_read() {
        assert_eq!(free_files("1632\t0\t2466170\n"), Some(2_464_538));
        assert_eq!(free_files("1632\n"), None);
        assert_eq!(free_kb("MemTotal: 9 kB\nMemAvailable:   17 kB\n"), Some(17));
        assert_eq!(free_kb("MemTotal: 9 kB\n"), None);
    }
}
