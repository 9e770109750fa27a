//! Instructions from prepared packets to sessions, counted by callgrind over the records of clovisor-trace's benchmark.
//!
//! Counts do not drift: a change of one in a hundred is a change of the code or of the compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::process;

/// The function of the benchmark that is counted.
const FUNCTION: &str = "*sessions::trace*";
/// Connections of each of its groups, and the requests in each, as the benchmark has them.
const CONNECTIONS: [u64; 4] = [1, 64, 1_000, 8_000];
const REQUESTS: u64 = 64_000;

/// Instructions a session, for each number of connections.
pub(crate) fn count(benchmark: &Path, dir: &Path) -> Result<Value> {
    let row = |connections| {
        let total = count_one(benchmark, dir, connections)?;
        Ok(json!({ "connections": connections, "instructions_per_session": total / REQUESTS }))
    };
    CONNECTIONS.into_iter().map(row).collect::<Result<Vec<Value>>>().map(Value::from)
}

fn count_one(benchmark: &Path, dir: &Path, connections: u64) -> Result<u64> {
    let out = dir.join(format!("callgrind.{connections}"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--toggle-collect={FUNCTION}")]);
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(benchmark);
    // As a test it runs once.
    command.args(["--bench", "--test", &format!("sessions/{connections}$")]);
    let what = format!("counting instructions at {connections} connections");
    process::logged(&what, "20 s", &mut command, &dir.join("valgrind.log"))?;
    let dump =
        fs::read_to_string(&out).with_context(|| format!("callgrind did not write {}", out.display()))?;
    let total = total(&dump).filter(|total| *total > 0);
    total.with_context(|| format!("callgrind has counted nothing: the benchmark has no {FUNCTION}"))
}

/// Instructions in a dump.
fn total(dump: &str) -> Option<u64> {
    dump.lines().rev().find_map(|line| {
        let rest = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?;
        rest.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn a_dump_ends_with_its_total() {
        assert_eq!(total("events: Ir\nsummary: 7\nfn=(1) x\n5 7\n\ntotals: 7\n"), Some(7));
        assert_eq!(total("events: Ir\nfn=(1) x\n"), None);
    }
}
