//! What other programs make of the same captures: tshark, and Suricata where there is one.
//!
//! For each capture in `testdata` the requests of each connection with their responses, in order: method, target, status.
//! Every difference must be in `differences.md` with its reason, and everything there must still be one. Peers'
//! versions may be others than those named there; the comparison is the same.
//!
//! tshark must be in PATH. Suricata is at `CLOVISOR_SURICATA`: the root of a system that has it (`cargo xtask compare
//! --suricata` makes one).

mod differences;
#[path = "../offline/mod.rs"]
mod offline;
mod suricata;
mod tshark;
mod zeek;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::Command,
};

use clovisor_trace::{Detail, Session};
use differences::{Differences, Found};

/// Where servers speak HTTP in these captures.
const PORTS: [u16; 8] = [80, 8000, 8080, 8081, 8082, 8083, 8888, 3128];

/// A request and its response, in short: method, target and status, `-` for what was not seen, control characters escaped.
type Pair = String;

/// The pairs of each client's address and port, in order.
type Pairs = BTreeMap<String, Vec<Pair>>;

fn pair(method: Option<&str>, target: Option<&str>, status: Option<&str>) -> Pair {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let shown = |part: Option<&str>| {
        part.filter(|part| !part.is_empty()).unwrap_or("-").chars().map(escaped).collect::<String>()
    };
    format!("{} {} {}", shown(method), shown(target), shown(status))
}

/// The captures, by their names below `testdata`.
fn captures() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["golden", "zeek"] {
        for entry in fs::read_dir(testdata().join(folder)).expect("the folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
            if name.ends_with(".pcap") || name.ends_with(".pcapng") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found.sort();
    assert!(found.len() >= 34, "captures are missing: {found:?}");
    found
}

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// What Clovisor says.
fn clovisor(capture: &str) -> Pairs {
    // Where a capture is cut off, what came before counts, as for the peers.
    let (mut sessions, _) = offline::sessions(&testdata().join(capture), &PORTS);
    sessions.sort_by_key(|session| session.start_ns);
    let mut pairs = Pairs::new();
    for session in &sessions {
        let Session { client, detail: Detail::Http(exchange), .. } = session else { continue };
        let (request, response) = (exchange.request.as_ref(), exchange.response.as_ref());
        let status = response.map(|head| format!("{:03}", head.status));
        let (method, target) = (request.map(|head| &*head.method), request.map(|head| &*head.target));
        let connection = format!("{}:{}", client.ip(), client.port());
        pairs.entry(connection).or_default().push(pair(method, target, status.as_deref()));
    }
    pairs
}

/// Where they differ: lines that only one of them has, or, where both have the same in another order, all lines.
fn difference(ours: &Pairs, theirs: &Pairs) -> Found {
    let mut found = Found::default();
    let none = Vec::new();
    for connection in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let (ours, theirs) = (ours.get(connection).unwrap_or(&none), theirs.get(connection).unwrap_or(&none));
        let (mut only_ours, mut only_theirs) = (without(ours, theirs), without(theirs, ours));
        let common = |of: &[Pair], only: &[Pair]| without(of, only);
        if common(ours, &only_ours) != common(theirs, &only_theirs) {
            (only_ours, only_theirs) = (ours.clone(), theirs.clone());
        }
        found.clovisor.extend(only_ours.iter().map(|pair| format!("{connection} {pair}")));
        found.peer.extend(only_theirs.iter().map(|pair| format!("{connection} {pair}")));
    }
    found
}

/// What is in `all` more often than in `other`, in order.
fn without(all: &[Pair], other: &[Pair]) -> Vec<Pair> {
    let mut other = other.to_vec();
    let mut rest = all.to_vec();
    rest.retain(|pair| match other.iter().position(|other| other == pair) {
        Some(place) => {
            other.remove(place);
            false
        }
        None => true,
    });
    rest
}

/// Compares with one peer, capture by capture.
fn compare(peer: &str, ask: impl Fn(&str) -> Pairs) {
    let mut known = Differences::read(peer);
    let mut faults = String::new();
    let said = all(ask);
    for (capture, pairs) in &said {
        faults += &known.check(capture, &difference(&clovisor(capture), pairs));
    }
    faults += &known.unused();
    assert!(faults.is_empty(), "{faults}");
    check_score(peer, &said);
}

/// What a program says of each capture.
fn all(ask: impl Fn(&str) -> Pairs) -> BTreeMap<String, Pairs> {
    captures().into_iter().map(|capture| (capture.clone(), ask(&capture))).collect()
}

/// Checks the line of the table that says how many of Zeek's captures a program has as Zeek has recorded them.
fn check_score(program: &str, said: &BTreeMap<String, Pairs>) {
    let zeek = said.iter().filter(|(capture, _)| capture.starts_with("zeek/"));
    let (right, wrong): (Vec<_>, Vec<_>) = zeek.partition(|(capture, pairs)| {
        let (columns, expected) = zeek::pairs(capture);
        zeek::shown(pairs, &columns) == expected
    });
    let wrong: Vec<_> = wrong.into_iter().map(|(capture, _)| capture).collect();
    let line = format!("| {program} | {} of {} |", right.len(), right.len() + wrong.len());
    assert!(
        differences::FILE.contains(&line),
        "differences.md has no line {line}\notherwise than Zeek: {wrong:#?}"
    );
}

/// Says, as all tests here do, that one cannot run; where `CI` is set that is a failure.
fn skip(test: &str, reason: &str) {
    println!("skipped: {test}: {reason}");
    assert!(env::var_os("CI").is_none_or(|value| value.is_empty()), "{test} was skipped: {reason}");
}

fn version(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

#[test]
fn tshark_says_the_same() {
    let Some(version) = tshark::version() else {
        return skip("tshark_says_the_same", "no tshark (cargo xtask setup)");
    };
    println!("{version}");
    compare("tshark", tshark::pairs);
}

#[test]
#[ignore = "heavy: cargo xtask compare --suricata"]
fn suricata_says_the_same() {
    let suricata = suricata::Suricata::find();
    println!("{}", suricata.version());
    compare("Suricata", |capture| suricata.pairs(capture));
}

#[test]
fn clovisor_is_as_right_as_the_table_says() {
    check_score("Clovisor", &all(clovisor));
}
