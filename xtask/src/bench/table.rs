//! What was measured, as JSON: medians with the least and the most, and ratios of neighbouring runs. The tables for people are
//! [`markdown`](super::markdown)'s.

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
            "accounts_of_the_worst": accounts_of_the_worst(all().map(|(_, traced)| traced)),
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

/// The accounts of the run in which the least was captured, the last of these: they say where the rest is.
fn accounts_of_the_worst<'a>(runs: impl DoubleEndedIterator<Item = &'a Value>) -> Option<Value> {
    let captured = |run: &Value| run["captured"].as_f64().unwrap_or_default();
    runs.rev()
        .min_by(|one, other| captured(one).total_cmp(&captured(other)))
        .map(|run| run["accounts"].clone())
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
            "accounts_of_the_worst": accounts_of_the_worst(measured.iter().map(|one| &one[name]["tracer"])),
        })
    };
    ["small", "long"].map(|name| load(name, measured)).into()
}

/// Several measurements of each count of flows.
pub(crate) fn flows(measured: &[Value]) -> Value {
    growth("flows", measured).into()
}

/// Several measurements of each count of pods, and what each pod takes of the memory beyond that of the fewest.
pub(crate) fn pods(measured: &[Value]) -> Value {
    let mut rows = growth("pods", measured);
    let of = |row: &Value| Some((row["pods"].as_f64()?, row["connected_kb"]["median"].as_f64()?));
    let fewest = rows.first().and_then(of);
    for row in rows.iter_mut().skip(1) {
        let each = fewest.zip(of(row)).map(|((fewest, least), (pods, kb))| (kb - least) / (pods - fewest));
        row["kb_per_pod"] = json!(each);
    }
    rows.into()
}

/// A row for each count of what grows, from the least on.
fn growth(what: &str, measured: &[Value]) -> Vec<Value> {
    let mut counts: Vec<u64> = measured.iter().filter_map(|one| one[what].as_u64()).collect();
    counts.sort_unstable();
    counts.dedup();
    let row = |count: u64| {
        let of: Vec<Value> = measured.iter().filter(|one| one[what] == count).cloned().collect();
        let at = |place: &str| spread_at(&of, place);
        json!({
            what: count,
            "answered": at("/answered"),
            "not_asked": at("/not_asked"),
            "packets_per_request": at("/packets_per_request"),
            "captured": at("/captured"),
            "cpu_us_per_session": at("/cpu_us_per_session"),
            "idle_us_per_second": at("/idle_us_per_second"),
            "connected_kb": at("/connected_kb"),
            "resident_kb": at("/resident_kb"),
            "peak_kb": at("/peak_kb"),
            "accounts_of_the_worst": accounts_of_the_worst(of.iter()),
        })
    };
    counts.into_iter().map(row).collect()
}

/// Several timings of each way through the process.
pub(crate) fn spans(measured: &[Value]) -> Value {
    let mut rows: Vec<Value> = Vec::new();
    for one in measured {
        let is_same = |other: &&Value| ["to", "connections"].iter().all(|name| other[name] == one[name]);
        if rows.iter().any(|row| is_same(&row)) {
            continue;
        }
        let of: Vec<Value> = measured.iter().filter(is_same).cloned().collect();
        let rate = spread_at(&of, "/sessions_per_second");
        rows.push(json!({ "to": one["to"], "connections": one["connections"], "sessions_per_second": rate }));
    }
    rows.into()
}

#[cfg(test)]
mod tests {
    use super::super::markdown::markdown;
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
        assert!(table.contains("| 10 | - | - | - | - | - | 3.0 MB (2.0 to 4.0) | - |"), "{table}");
    }

    #[test]
    fn each_way_is_a_row_in_the_order_of_the_first_turn() {
        let one = |to: &str, connections: u64, rate: f64| json!({ "to": to, "connections": connections, "sessions_per_second": rate });
        let rows = spans(&[
            one("sessions", 64, 2e6),
            one("OTLP", 64, 4e5),
            one("sessions", 64, 1e6),
            one("OTLP", 64, 3e5),
        ]);
        assert_eq!(rows.as_array().map(Vec::len), Some(2));
        assert_eq!(rows[0]["sessions_per_second"], json!({ "median": 2e6, "least": 1e6, "most": 2e6 }));
        let table = markdown(&json!({ "spans": rows }));
        assert!(table.contains("| OTLP | 64 | 400 (300 to 400) |"), "{table}");
    }

    #[test]
    fn a_pod_has_what_it_takes_beyond_the_fewest() {
        let one = |pods: u64, kb: u64| json!({ "pods": pods, "connected_kb": kb });
        let rows = pods(&[one(1, 1000), one(11, 1100), one(11, 1200), one(11, 1300)]);
        assert_eq!((&rows[0]["kb_per_pod"], &rows[1]["kb_per_pod"]), (&Value::Null, &json!(20.0)));
        let table = markdown(&json!({ "pods": rows }));
        assert!(
            table.contains("| 11 | - | - | - | - | 1.2 MB (1.1 to 1.3) | - | - | 20.0 KB | - |"),
            "{table}"
        );
        assert!(table.contains("| 1 | - | - | - | - | 1.0 MB (1.0 to 1.0) | - | - | - | - |"), "{table}");
    }
}
