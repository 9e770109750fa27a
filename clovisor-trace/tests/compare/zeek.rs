//! Zeek's own record of its captures: method, URI and status of each line, as far as the record has these columns.

use std::{collections::HashMap, fs};

use super::{Pairs, offline::unescaped, testdata};

/// Columns that are compared; the first two name the client.
const COLUMNS: [&str; 5] = ["id.orig_h", "id.orig_p", "method", "uri", "status_code"];

/// The columns of a capture's record, and its lines of them, sorted.
pub(super) fn pairs(capture: &str) -> (Vec<&'static str>, Vec<String>) {
    let log = fs::read_to_string(testdata().join(format!("{capture}.http.log"))).expect("a log");
    let named = log.lines().find_map(|line| line.strip_prefix("#fields\t"));
    let mut plain = log.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<_> = named.or_else(|| plain.next()).expect("names of columns").split('\t').collect();
    let columns: Vec<_> = COLUMNS.into_iter().filter(|column| names.contains(column)).collect();
    let mut lines: Vec<_> = plain
        .map(|line| {
            let values: HashMap<_, _> = names.iter().copied().zip(line.split('\t')).collect();
            let shown = columns.iter().map(|column| values[column].replace("(empty)", "-"));
            shown.collect::<Vec<_>>().join(" ")
        })
        .collect();
    lines.sort();
    (columns, lines)
}

/// Pairs in these columns, sorted.
pub(super) fn shown(pairs: &Pairs, columns: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for (connection, pairs) in pairs {
        let (address, port) = connection.rsplit_once(':').expect("a port");
        for pair in pairs {
            let (method, rest) = pair.split_once(' ').expect("a method");
            let (target, status) = rest.rsplit_once(' ').expect("a status");
            let target = unescaped(target);
            let values: HashMap<_, _> =
                COLUMNS.into_iter().zip([address, port, method, &target, status]).collect();
            lines.push(columns.iter().map(|column| values[column]).collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    lines
}
