//! Sessions a second in process, on one core: prepared packets to sessions alone, to sessions and spans, and on to JSON lines or
//! OTLP's protobuf. Criterion times the same benchmarks of which callgrind counts the [`instructions`](super::instructions).
//!
//! Neither the kernel nor a queue nor a write is in it. Times drift, so all ways are run in turn, and each turn gives one value of
//! each: the median of criterion's samples.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::instructions::{BEHIND, Benchmarks, CONNECTIONS, REQUESTS};
use crate::process;

/// What is run before anything is timed, in seconds, so that the processor is at its pace.
const WARM_UP: &str = "1";

impl Benchmarks {
    /// Sessions a second of each way, timed once for so many seconds each.
    pub(crate) fn time(&self, dir: &Path, seconds: u16) -> Result<Vec<Value>> {
        let home = dir.join("criterion");
        for benchmark in [&self.sessions, &self.spans] {
            let mut command = Command::new(benchmark);
            command.env("CRITERION_HOME", &home).args(["--bench", "--noplot", "--warm-up-time", WARM_UP]);
            command.args(["--measurement-time", &seconds.to_string()]);
            let what = format!("timing {}", benchmark.file_name().unwrap_or_default().display());
            let about = format!("{} s", 4 * (seconds + 2));
            process::logged(&what, &about, &mut command, &dir.join("criterion.log"))?;
        }
        let alone = CONNECTIONS.map(|count| ("sessions", count, format!("packets to sessions/{count}")));
        let behind = ["spans", "JSON", "OTLP"].map(|to| (to, BEHIND, format!("packets to/{to}")));
        let mut all = Vec::new();
        for (to, connections, place) in alone.into_iter().chain(behind) {
            let file = home.join(place).join("new/sample.json");
            let text = fs::read_to_string(&file)
                .with_context(|| format!("criterion did not write {}", file.display()))?;
            let rate = rate(&text).with_context(|| format!("{} has no samples", file.display()))?;
            all.push(json!({ "to": to, "connections": connections, "sessions_per_second": rate }));
        }
        Ok(all)
    }
}

/// Sessions a second in the median of samples, as criterion writes them: how often each has run the benchmark, and its nanoseconds.
fn rate(text: &str) -> Option<f64> {
    let samples: Value = serde_json::from_str(text).ok()?;
    let numbers =
        |name: &str| samples[name].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>();
    let (runs, times) = (numbers("iters")?, numbers("times")?);
    let mut rates: Vec<f64> =
        runs.iter().zip(times).map(|(runs, ns)| runs * REQUESTS as f64 * 1e9 / ns).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_a_rate_and_nothing_has_none() {
        // 64,000 sessions in 0.1 s, in 0.04 s and in 0.064 s.
        let text = r#"{"sampling_mode":"Flat","iters":[2.0,1.0,1.0],"times":[2e8,4e7,6.4e7]}"#;
        assert_eq!(rate(text), Some(1_000_000.0));
        assert_eq!(rate(r#"{"iters":[],"times":[]}"#), None);
        assert_eq!(rate("{}"), None);
    }
}
