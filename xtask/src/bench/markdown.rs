//! What was measured, as tables for people. It reads the JSON of [`table`](super::table) and works out nothing but units; what was not
//! measured has no table, and a dash where a row lacks it.

use std::fmt::Write as _;

use serde_json::Value;

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
    pods_table(&mut out, &json["pods"]);
    spans_table(&mut out, &json["spans"]);
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

/// Columns of what grows, behind the count.
const GROWTH: &str =
    "requests | packets a request | captured | CPU a session | resident, connected | resident | at most |";

fn flows_table(out: &mut String, flows: &Value) {
    if rows(flows).next().is_none() {
        return;
    }
    let _ = write!(out, "\nWith many flows\n\n| flows | {GROWTH}\n{}|\n", "| --- ".repeat(8));
    for row in rows(flows) {
        let _ = writeln!(out, "| {} | {}", row["flows"], growth(row));
    }
}

fn pods_table(out: &mut String, pods: &Value) {
    if rows(pods).next().is_none() {
        return;
    }
    let _ = write!(
        out,
        "\nWith many pods\n\n| pods | {GROWTH} a pod | CPU at rest |\n{}|\n",
        "| --- ".repeat(10)
    );
    for row in rows(pods) {
        let each = row["kb_per_pod"].as_f64().map_or("-".to_owned(), |kb| format!("{kb:.1} KB"));
        let idle = cell(row, "idle_us_per_second", 1e-3, 1, " ms/s");
        let _ = writeln!(out, "| {} | {} {each} | {idle} |", row["pods"], growth(row));
    }
}

fn growth(row: &Value) -> String {
    format!(
        "{} | {} | {} | {} | {} | {} | {} |",
        cell(row, "answered", 1.0, 0, ""),
        cell(row, "packets_per_request", 1.0, 2, ""),
        cell(row, "captured", 100.0, 2, " %"),
        cell(row, "cpu_us_per_session", 1.0, 2, " µs"),
        cell(row, "connected_kb", 1.0 / 1024.0, 1, " MB"),
        cell(row, "resident_kb", 1.0 / 1024.0, 1, " MB"),
        cell(row, "peak_kb", 1.0 / 1024.0, 1, " MB"),
    )
}

fn spans_table(out: &mut String, spans: &Value) {
    if rows(spans).next().is_none() {
        return;
    }
    *out += "\nIn process, one core\n\n| packets to | connections | sessions a second, in thousands |\n| --- | --- | --- |\n";
    for row in rows(spans) {
        let rate = cell(row, "sessions_per_second", 1e-3, 0, "");
        let _ = writeln!(out, "| {} | {} | {rate} |", text(&row["to"]), row["connections"]);
    }
}

fn instructions_table(out: &mut String, instructions: &Value) {
    if rows(instructions).next().is_none() {
        return;
    }
    *out += "\nInstructions in process\n\n| packets to | connections | instructions a session | allocations a session | lines of memory a session |\n\
             | --- | --- | --- | --- | --- |\n";
    for row in rows(instructions) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2} | {:.1} |",
            text(&row["to"]),
            row["connections"],
            row["instructions_per_session"],
            row["allocations_per_session"].as_f64().unwrap_or_default(),
            row["lines_per_session"].as_f64().unwrap_or_default(),
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
