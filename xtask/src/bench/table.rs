//! What was measured, as JSON and as tables for people: medians with the least and the most, and ratios of neighbouring runs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::live::Run;
use super::tracer::Kind;

/// Runs at one rate: without, with, without, with, …, without.
pub(crate) struct Series {
    pub(crate) rate: u32,
    pub(crate) runs: Vec<Run>,
}

/// A median, with the least and the most.
fn spread(values: impl IntoIterator<Item = f64>) -> Value {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2);
    json!({ "median": middle, "least": values.first(), "most": values.last() })
}

/// The spread of a value, found by its place in each of several measurements.
fn spread_at(measured: &[Value], place: &str) -> Value {
    spread(measured.iter().filter_map(|one| one.pointer(place)?.as_f64()))
}

impl Series {
    /// The kinds of tracers, in the order of their first run.
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for (kind, _) in self.runs.iter().filter_map(|run| run.tracer.as_ref()) {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        kinds
    }

    /// A value of each run with a tracer, and the mean of those of its two neighbours.
    fn pairs(&self, kind: Kind, name: &str) -> impl Iterator<Item = (f64, f64)> {
        let of = move |run: &Run| run.load[name].as_f64().unwrap_or_default();
        let is_wanted = move |three: &&[Run]| three[1].tracer.as_ref().is_some_and(|(it, _)| *it == kind);
        self.runs
            .windows(3)
            .filter(is_wanted)
            .map(move |three| (of(&three[1]), f64::midpoint(of(&three[0]), of(&three[2]))))
    }

    fn ratio(&self, kind: Kind, name: &str) -> Value {
        spread(self.pairs(kind, name).map(|(with, without)| with / without.max(1.0)))
    }

    fn without(&self, name: &str) -> Value {
        let runs = self.runs.iter().filter(|run| run.tracer.is_none());
        spread(runs.filter_map(|run| run.load[name].as_f64()))
    }

    fn tracer(&self, kind: Kind) -> Value {
        let all = || self.runs.iter().filter_map(|run| run.tracer.as_ref()).filter(|(it, _)| *it == kind);
        let of = |name: &str| spread(all().filter_map(|(_, traced)| traced[name].as_f64()));
        json!({
            "name": kind.name(),
            "runs": all().count(),
            "throughput_kept": self.ratio(kind, "answered"),
            "p50_ratio": self.ratio(kind, "p50_ns"),
            "p50_added_ns": spread(self.pairs(kind, "p50_ns").map(|(with, without)| with - without)),
            "p99_ratio": self.ratio(kind, "p99_ns"),
            "captured": of("captured"),
            "cpu_us_per_session": of("cpu_us_per_session"),
            "receiver_us_per_session": of("receiver_us_per_session"),
            "resident_kb": of("resident_kb"),
            "peak_kb": of("peak_kb"),
            "accounts_of_the_last": all().next_back().map(|(_, traced)| traced["accounts"].clone()),
        })
    }

    /// As a table takes it.
    pub(crate) fn json(&self) -> Value {
        json!({
            "rate": self.rate,
            "answered_without": self.without("answered"),
            "p50_ns_without": self.without("p50_ns"),
            "p99_ns_without": self.without("p99_ns"),
            "tracers": self.kinds().into_iter().map(|kind| self.tracer(kind)).collect::<Vec<_>>(),
        })
    }
}

/// Several measurements of the kernel's cost.
pub(crate) fn kernel(measured: &[Value]) -> Value {
    let load = |name: &str, measured: &[Value]| {
        let at = |place: &str| spread_at(measured, &format!("/{name}/{place}"));
        json!({
            "load": name,
            "requests": at("requests"),
            "packets": at("all/runs"),
            "ns_per_packet": at("all/ns_per_run"),
            "ns_per_request": at("ns_per_request"),
            "body_bytes": at("body_bytes"),
            "copied_bytes": at("tracer/copied_bytes"),
            "captured": at("tracer/captured"),
            "programs_of_the_last": measured.last().map(|last| last[name]["programs"].clone()),
            "accounts_of_the_last": measured.last().map(|last| last[name]["tracer"]["accounts"].clone()),
        })
    };
    ["small", "long"].map(|name| load(name, measured)).into()
}

/// Several measurements of each count of flows.
pub(crate) fn flows(measured: &[Value]) -> Value {
    let mut counts: Vec<u64> = measured.iter().filter_map(|one| one["flows"].as_u64()).collect();
    counts.sort_unstable();
    counts.dedup();
    let row = |count: u64| {
        let of: Vec<Value> = measured.iter().filter(|one| one["flows"] == count).cloned().collect();
        let at = |place: &str| spread_at(&of, place);
        json!({
            "flows": count,
            "answered": at("/answered"),
            "captured": at("/captured"),
            "cpu_us_per_session": at("/cpu_us_per_session"),
            "resident_kb": at("/resident_kb"),
            "peak_kb": at("/peak_kb"),
            "accounts_of_the_last": of.last().map(|last| last["accounts"].clone()),
        })
    };
    counts.into_iter().map(row).collect()
}

/// All that was measured, for people.
pub(crate) fn markdown(json: &Value) -> String {
    let machine = &json["machine"];
    let mut out = format!(
        "Clovisor {}, kernel {}, {} x {}; {} s a run; median (least to most)\n",
        text(&machine["clovisor"]),
        text(&machine["kernel"]),
        machine["processors"],
        text(&machine["processor"]),
        json["seconds"],
    );
    for (name, version) in json["peers"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "{name}: {}", text(version));
    }
    live_table(&mut out, json);
    kernel_table(&mut out, &json["kernel"]);
    flows_table(&mut out, &json["flows"]);
    instructions_table(&mut out, &json["instructions"]);
    out
}

fn live_table(out: &mut String, json: &Value) {
    let seconds = json["seconds"].as_f64().unwrap_or(1.0);
    for row in rows(&json["live"]) {
        let load =
            if row["rate"] == 0 { "At saturation".to_owned() } else { format!("At {}/s", row["rate"]) };
        let _ = write!(
            out,
            "\n{load}; without a tracer {} requests/s, p50 {}, p99 {}\n\n\
             | tracer | throughput kept | p50, ratio | p50 added | p99, ratio | captured | CPU a session | resident | at most |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
            cell(row, "answered_without", 1.0 / seconds, 0, ""),
            cell(row, "p50_ns_without", 1e-3, 1, " µs"),
            cell(row, "p99_ns_without", 1e-3, 1, " µs"),
        );
        for tracer in rows(&row["tracers"]) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                text(&tracer["name"]),
                cell(tracer, "throughput_kept", 100.0, 1, " %"),
                cell(tracer, "p50_ratio", 1.0, 2, ""),
                cell(tracer, "p50_added_ns", 1e-3, 1, " µs"),
                cell(tracer, "p99_ratio", 1.0, 2, ""),
                cell(tracer, "captured", 100.0, 2, " %"),
                cell(tracer, "cpu_us_per_session", 1.0, 2, " µs"),
                cell(tracer, "resident_kb", 1.0 / 1024.0, 1, " MB"),
                cell(tracer, "peak_kb", 1.0 / 1024.0, 1, " MB"),
            );
        }
    }
}

fn kernel_table(out: &mut String, kernel: &Value) {
    if rows(kernel).next().is_none() {
        return;
    }
    *out += "\nIn the kernel\n\n| load | packets | cost a packet | cost a request | bodies | copied | captured |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n";
    for row in rows(kernel) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            text(&row["load"]),
            cell(row, "packets", 1.0, 0, ""),
            cell(row, "ns_per_packet", 1.0, 0, " ns"),
            cell(row, "ns_per_request", 1.0, 0, " ns"),
            cell(row, "body_bytes", 1e-6, 1, " MB"),
            cell(row, "copied_bytes", 1e-6, 1, " MB"),
            cell(row, "captured", 100.0, 2, " %"),
        );
    }
}

fn flows_table(out: &mut String, flows: &Value) {
    if rows(flows).next().is_none() {
        return;
    }
    *out += "\nWith many flows\n\n| flows | requests | captured | CPU a session | resident | at most |\n\
             | --- | --- | --- | --- | --- | --- |\n";
    for row in rows(flows) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            row["flows"],
            cell(row, "answered", 1.0, 0, ""),
            cell(row, "captured", 100.0, 2, " %"),
            cell(row, "cpu_us_per_session", 1.0, 2, " µs"),
            cell(row, "resident_kb", 1.0 / 1024.0, 1, " MB"),
            cell(row, "peak_kb", 1.0 / 1024.0, 1, " MB"),
        );
    }
}

fn instructions_table(out: &mut String, instructions: &Value) {
    if rows(instructions).next().is_none() {
        return;
    }
    *out += "\nInstructions in process\n\n| packets to | connections | instructions a session | allocations a session |\n\
             | --- | --- | --- | --- |\n";
    for row in rows(instructions) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2} |",
            text(&row["to"]),
            row["connections"],
            row["instructions_per_session"],
            row["allocations_per_session"].as_f64().unwrap_or_default(),
        );
    }
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A spread; a dash where nothing was measured.
fn cell(row: &Value, name: &str, scale: f64, digits: usize, unit: &str) -> String {
    let of = |which: &str| Some(row[name][which].as_f64()? * scale);
    match (of("median"), of("least"), of("most")) {
        (Some(median), Some(least), Some(most)) => {
            format!("{median:.digits$}{unit} ({least:.digits$} to {most:.digits$})")
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(answered: u64, traced: Option<(Kind, u64)>) -> Run {
        let load = json!({ "answered": answered, "p50_ns": 1000, "p99_ns": 2000 });
        let captured = |sessions: u64| json!({ "captured": sessions as f64 / answered as f64 });
        Run { load, tracer: traced.map(|(kind, sessions)| (kind, captured(sessions))) }
    }

    #[test]
    fn a_run_is_compared_with_its_neighbours_alone() {
        let runs = vec![
            run(100, None),
            run(80, Some((Kind::File, 80))),
            run(100, None),
            // The machine has become slower: both sides of the ratio have.
            run(20, Some((Kind::File, 10))),
            run(30, None),
            run(6, Some((Kind::Otlp, 6))),
            run(30, None),
            run(30, Some((Kind::File, 30))),
            run(30, None),
        ];
        let row = Series { rate: 0, runs }.json();
        let [file, otlp] = row["tracers"].as_array().unwrap().as_slice() else { panic!("{row}") };
        assert_eq!(file["throughput_kept"]["median"], 0.8);
        assert_eq!(file["throughput_kept"]["least"], 20.0 / 65.0);
        assert_eq!(file["captured"]["least"], 0.5);
        assert_eq!(file["runs"], 3);
        assert_eq!((&otlp["throughput_kept"]["median"], &otlp["runs"]), (&json!(0.2), &json!(1)));
        let table = markdown(&json!({ "seconds": 1, "live": [row] }));
        assert!(table.contains("At saturation; without a tracer 30 (30 to 100) requests/s"), "{table}");
        assert!(table.contains("| Clovisor, to a file | 80.0 % (30.8 to 100.0) |"), "{table}");
        assert!(!table.contains("In the kernel"), "{table}");
    }

    #[test]
    fn counts_of_flows_are_rows_in_their_order() {
        let one = |flows: u64, kb: u64| json!({ "flows": flows, "resident_kb": kb });
        let flows = flows(&[one(10, 2048), one(0, 1024), one(10, 4096), one(10, 3072)]);
        assert_eq!(flows[0]["flows"], 0);
        assert_eq!(flows[1]["resident_kb"], json!({ "median": 3072.0, "least": 2048.0, "most": 4096.0 }));
        let table = markdown(&json!({ "flows": flows }));
        assert!(table.contains("| 10 | - | - | - | 3.0 MB (2.0 to 4.0) | - |"), "{table}");
    }
}
