//! The results as JSON, and as a table for people.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::live::Run;

/// Runs at one rate: without, with, without, with, …, without.
pub(crate) struct Series {
    pub(crate) rate: u32,
    pub(crate) runs: Vec<Run>,
}

/// A median, with the least and the most.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2);
    json!({ "median": middle, "least": values.first(), "most": values.last() })
}

/// A value of each traced run over the mean of those of its two neighbours.
fn ratio(series: &Series, name: &str) -> Value {
    let of = |run: &Run| run.load[name].as_f64().unwrap_or_default();
    let threes = series.runs.windows(3).filter(|three| three[1].tracer.is_some());
    spread(threes.map(|three| of(&three[1]) * 2.0 / (of(&three[0]) + of(&three[2])).max(1.0)).collect())
}

fn traced(series: &Series, name: &str) -> Value {
    spread(series.runs.iter().filter_map(|run| run.tracer.as_ref()?[name].as_f64()).collect())
}

fn untraced(series: &Series, name: &str) -> Value {
    let runs = series.runs.iter().filter(|run| run.tracer.is_none());
    spread(runs.filter_map(|run| run.load[name].as_f64()).collect())
}

/// All of it.
pub(crate) fn json(machine: &Value, seconds: u16, all: &[Series]) -> Value {
    let rows = all.iter().map(|series| {
        json!({
            "rate": series.rate,
            "runs": series.runs.iter().filter(|run| run.tracer.is_some()).count(),
            "answered_without": untraced(series, "answered"),
            "p50_ns_without": untraced(series, "p50_ns"),
            "p99_ns_without": untraced(series, "p99_ns"),
            "throughput_kept": ratio(series, "answered"),
            "p50_ratio": ratio(series, "p50_ns"),
            "p99_ratio": ratio(series, "p99_ns"),
            "captured": traced(series, "captured"),
            "cpu_us_per_session": traced(series, "cpu_us_per_session"),
            "resident_kb": traced(series, "resident_kb"),
            "accounts_of_the_last": series.runs.iter().rev().find_map(|run| Some(run.tracer.as_ref()?["accounts"].clone())),
        })
    });
    json!({ "machine": machine, "seconds": seconds, "rows": rows.collect::<Vec<_>>() })
}

/// The table.
pub(crate) fn markdown(json: &Value) -> String {
    let machine = &json["machine"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out = format!(
        "Clovisor {}, kernel {}, {} x {}; {} s a run; median (least to most)\n\n\
         | load | requests/s without | throughput kept | p50 without | p50, ratio | p99, ratio | captured | CPU a session | resident |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        text(&machine["clovisor"]),
        text(&machine["kernel"]),
        machine["processors"],
        text(&machine["processor"]),
        json["seconds"],
    );
    let seconds = json["seconds"].as_f64().unwrap_or(1.0);
    for row in json["rows"].as_array().into_iter().flatten() {
        let cell = |name: &str, scale: f64, digits: usize, unit: &str| {
            let of = |which: &str| row[name][which].as_f64().unwrap_or(f64::NAN) * scale;
            let (median, least, most) = (of("median"), of("least"), of("most"));
            format!("{median:.digits$}{unit} ({least:.digits$} to {most:.digits$})")
        };
        let load = if row["rate"] == 0 { "saturation".to_owned() } else { format!("{}/s", row["rate"]) };
        let _ = writeln!(
            out,
            "| {load} | {} | {} | {} | {} | {} | {} | {} | {} |",
            cell("answered_without", 1.0 / seconds, 0, ""),
            cell("throughput_kept", 100.0, 1, " %"),
            cell("p50_ns_without", 1e-3, 1, " µs"),
            cell("p50_ratio", 1.0, 2, ""),
            cell("p99_ratio", 1.0, 2, ""),
            cell("captured", 100.0, 2, " %"),
            cell("cpu_us_per_session", 1.0, 2, " µs"),
            cell("resident_kb", 1.0 / 1024.0, 1, " MB"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(answered: u64, sessions: Option<u64>) -> Run {
        let load = json!({ "answered": answered, "p50_ns": 1000, "p99_ns": 2000 });
        Run {
            load,
            tracer: sessions.map(|sessions| json!({ "captured": sessions as f64 / answered as f64 })),
        }
    }

    #[test]
    fn a_run_is_compared_with_its_neighbours_alone() {
        let runs = vec![
            run(100, None),
            run(80, Some(80)),
            run(100, None),
            // The machine has become slower: both sides of the ratio have.
            run(20, Some(10)),
            run(30, None),
            run(30, Some(30)),
            run(30, None),
        ];
        let series = Series { rate: 0, runs };
        let json = json(&json!({}), 1, &[series]);
        let row = &json["rows"][0];
        assert_eq!(row["throughput_kept"]["median"], 0.8);
        assert_eq!(row["throughput_kept"]["least"], 20.0 * 2.0 / 130.0);
        assert_eq!(row["captured"]["least"], 0.5);
        assert_eq!(row["runs"], 3);
        let table = markdown(&json);
        assert!(table.contains("| saturation | 100 (30 to 100) | 80.0 % (30.8 to 100.0) |"), "{table}");
    }
}
