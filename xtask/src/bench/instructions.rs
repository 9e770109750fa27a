//! Instructions, allocations and lines of memory that are in no cache, from prepared packets to sessions, and on to spans and encoded
//! bytes, counted by callgrind over the benchmarks of clovisor-trace and clovisor.
//!
//! Counts do not drift: a change of one in a hundred is a change of the code or of the compiler. The caches are on paper, and the same on
//! every machine.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::process;

/// Requests of each run of a benchmark.
pub(super) const REQUESTS: u64 = 64_000;
/// Connections at which sessions are counted, and those of what comes behind them, as the benchmarks have them.
pub(super) const CONNECTIONS: [u64; 4] = [1, 64, 1_000, 8_000];
pub(super) const BEHIND: u64 = 64;
/// The caches: bytes, ways, bytes of a line. 48 KB and 2 MB are what a core of its own has on many servers of today.
const CACHES: [&str; 3] = ["--cache-sim=yes", "--D1=49152,12,64", "--LL=2097152,16,64"];
/// Functions of C's library that allocate.
const ALLOCATE: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// The benchmarks, compiled.
pub(crate) struct Benchmarks {
    /// Packets to sessions.
    pub(crate) sessions: PathBuf,
    /// Packets to spans, JSON and OTLP.
    pub(crate) spans: PathBuf,
}

/// One thing that is counted.
struct Counted<'a> {
    /// What becomes of packets.
    to: &'a str,
    connections: u64,
    benchmark: &'a Path,
    /// The function of the benchmark that is counted.
    function: &'a str,
    /// Which of the benchmark's cases calls it.
    case: String,
}

impl Benchmarks {
    /// Instructions, allocations and lines of memory a session, for each of what they become.
    pub(crate) fn count(&self, dir: &Path) -> Result<Value> {
        let sessions = CONNECTIONS.map(|connections| Counted {
            to: "sessions",
            connections,
            benchmark: &self.sessions,
            function: "*sessions::trace*",
            case: format!("sessions/{connections}$"),
        });
        let behind = [("spans", "*::to_spans*"), ("JSON", "*::to_json*"), ("OTLP", "*::to_otlp*")];
        let behind = behind.map(|(to, function)| Counted {
            to,
            connections: BEHIND,
            benchmark: &self.spans,
            function,
            case: format!("to/{to}$"),
        });
        sessions
            .iter()
            .chain(&behind)
            .map(|one| one.count(dir))
            .collect::<Result<Vec<Value>>>()
            .map(Value::from)
    }
}

impl Counted<'_> {
    fn count(&self, dir: &Path) -> Result<Value> {
        let Self { to, connections, benchmark, function, case } = self;
        let out = dir.join(format!("callgrind.{to}.{connections}"));
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", &format!("--toggle-collect={function}")]).args(CACHES);
        command.arg(format!("--callgrind-out-file={}", out.display())).arg(benchmark);
        // As a test it runs once.
        command.args(["--bench", "--test", case]);
        let what = format!("counting instructions to {to} at {connections} connections");
        process::logged(&what, "40 s", &mut command, &dir.join("valgrind.log"))?;
        let dump =
            fs::read_to_string(&out).with_context(|| format!("callgrind did not write {}", out.display()))?;
        let instructions = total(&dump, "Ir").filter(|total| *total > 0);
        let instructions = instructions
            .with_context(|| format!("callgrind has counted nothing: the benchmark has no {function}"))?;
        let lines = total(&dump, "DLmr").zip(total(&dump, "DLmw")).map(|(read, written)| read + written);
        let lines = lines.context("callgrind has not counted lines of memory")?;
        Ok(json!({
            "to": to,
            "connections": connections,
            "instructions_per_session": instructions / REQUESTS,
            "allocations_per_session": calls(&dump, &ALLOCATE) as f64 / REQUESTS as f64,
            "lines_per_session": lines as f64 / REQUESTS as f64,
        }))
    }
}

/// How many events of a kind a dump has in all. Zeros at the end are not written.
fn total(dump: &str, event: &str) -> Option<u64> {
    let place = dump
        .lines()
        .find_map(|line| line.strip_prefix("events:"))?
        .split_whitespace()
        .position(|name| name == event)?;
    let totals = dump
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))?;
    totals.split_whitespace().nth(place).map_or(Some(0), |number| number.parse().ok())
}

/// Calls of functions in a dump. A name stands there once, behind the number that stands for it from then on.
fn calls(dump: &str, functions: &[&str]) -> u64 {
    let (mut names, mut called, mut calls) = (HashMap::new(), None, 0);
    for line in dump.lines() {
        let (what, rest) = line.split_once('=').unwrap_or_default();
        match what {
            "fn" | "cfn" => {
                let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
                if !name.is_empty() {
                    names.insert(number, name);
                }
                called = (what == "cfn").then(|| names.get(number).copied()).flatten();
            }
            "calls" if called.is_some_and(|called| functions.contains(&called)) => {
                calls += rest.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_ends_with_its_totals() {
        let dump = "events: Ir DLmr DLmw\nsummary: 7 2\nfn=(1) x\n5 7\n\ntotals: 7 2\n";
        assert_eq!(
            ["Ir", "DLmr", "DLmw", "Dw"].map(|event| total(dump, event)),
            [Some(7), Some(2), Some(0), None]
        );
        assert_eq!(total("events: Ir\nfn=(1) x\n", "Ir"), None);
    }

    #[test]
    fn calls_are_found_by_name_and_by_number() {
        let dump = "fn=(1) x\n5 7\ncob=(2)\ncfn=(3) malloc\ncalls=2 0\n5 9\ncfn=(4) free\ncalls=9 0\n6 1\n\n\
                    fn=(3)\n1 9\n\nfn=(5) y\ncfn=(3)\ncalls=40 +3\n7 2\n";
        assert_eq!(calls(dump, &ALLOCATE), 42);
    }
}
