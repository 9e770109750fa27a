//! Instructions from prepared packets to sessions, counted by callgrind over the records of clovisor-trace's benchmark.
//!
//! Counts do not drift: a change of one in a hundred is a change of the code or of the compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::process;

/// The function of the benchmark that is counted.
const FUNCTION: &str = "sessions::trace*";
/// Connections of each of its groups, and the requests in each, as the benchmark has them.
const CONNECTIONS: [u64; 4] = [1, 64, 1_000, 8_000];
const REQUESTS: u64 = 64_000;

/// Instructions a session, for each number of connections.
pub(crate) fn count(benchmark: &Path, dir: &Path) -> Result<Value> {
    let out = dir.join("callgrind");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=no"]);
    command.arg(format!("--toggle-collect={FUNCTION}")).arg(format!("--dump-after={FUNCTION}"));
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(benchmark);
    // Each group once to see that all sessions come, and once more as a test.
    command.args(["--bench", "--test"]);
    process::logged("counting instructions", "2 min", &mut command, &dir.join("valgrind.log"))?;
    let mut totals = Vec::new();
    for number in 1.. {
        let Ok(dump) = fs::read_to_string(format!("{}.{number}", out.display())) else { break };
        totals.push(total(&dump).context("a dump of callgrind has no total")?);
    }
    ensure!(totals.len() == CONNECTIONS.len() * 2, "the benchmark ran other groups than known: {totals:?}");
    // The first of each pair also pays for pages that are new.
    let seconds = totals.chunks(2).map(|pair| pair[1]);
    let row = |(connections, total): (u64, u64)| json!({ "connections": connections, "instructions_per_session": total / REQUESTS });
    Ok(CONNECTIONS.into_iter().zip(seconds).map(row).collect())
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
