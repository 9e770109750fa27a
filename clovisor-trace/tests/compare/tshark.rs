//! tshark's opinion of a capture: its fields of HTTP, and its own links from responses to requests.

use std::{collections::BTreeMap, process::Command};

use super::{PORTS, Pairs, pair, testdata};

/// What is asked for, in the order of the columns. Fields may occur more than once in a packet.
const FIELDS: [&str; 12] = [
    "frame.number",
    "tcp.stream",
    "ip.src",
    "ipv6.src",
    "tcp.srcport",
    "ip.dst",
    "ipv6.dst",
    "tcp.dstport",
    "http.request.method",
    "http.request.uri",
    "http.response.code",
    "http.request_in",
];

/// Stands between the occurrences of a field; no text has it.
const BETWEEN: char = '\u{1}';

/// A request that tshark has shown.
struct Request {
    frame: String,
    method: String,
    target: String,
    status: Option<String>,
}

fn tshark() -> Command {
    let mut command = Command::new("tshark");
    // Nobody's own settings.
    command.env("HOME", "/nonexistent").env("XDG_CONFIG_HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
    command
}

pub(super) fn version() -> Option<String> {
    super::version(tshark().arg("--version"))
}

/// The pairs of a capture.
pub(super) fn pairs(capture: &str) -> Pairs {
    // A capture that is cut off makes it fail at its end; what it has said before counts.
    let output = command(capture).output().expect("tshark");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut connections: BTreeMap<&str, (String, Vec<Request>)> = BTreeMap::new();
    for line in text.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        let [frame, stream, from4, from6, from_port, to4, to6, to_port, methods, targets, codes, asked] =
            columns[..]
        else {
            panic!("{capture}: {line}");
        };
        let address = |v4: &str, v6: &str, port| format!("{}{}:{port}", outer(v4), outer(v6));
        if !methods.is_empty() {
            let connection =
                connections.entry(stream).or_insert_with(|| (address(from4, from6, from_port), Vec::new()));
            let mut targets = targets.split(BETWEEN);
            connection.1.extend(methods.split(BETWEEN).map(|method| Request {
                frame: frame.to_owned(),
                method: method.to_owned(),
                target: targets.next().unwrap_or_default().to_owned(),
                status: None,
            }));
        }
        if !codes.is_empty() {
            let connection =
                connections.entry(stream).or_insert_with(|| (address(to4, to6, to_port), Vec::new()));
            let mut asked = asked.split(BETWEEN).filter(|frame| !frame.is_empty());
            for code in codes.split(BETWEEN) {
                answer(&mut connection.1, asked.next(), code);
            }
        }
    }
    let mut pairs = Pairs::new();
    for (client, requests) in connections.into_values() {
        let shown = requests.iter().map(|request| {
            let Request { method, target, status, .. } = request;
            pair(Some(method.as_str()), Some(target.as_str()), status.as_deref())
        });
        pairs.entry(client).or_default().extend(shown);
    }
    pairs
}

/// Prints the fields of all packets with HTTP, a line each.
fn command(capture: &str) -> Command {
    let mut command = tshark();
    command.arg("-n").arg("-r").arg(testdata().join(capture));
    for port in PORTS {
        command.args(["-d", &format!("tcp.port=={port},http")]);
    }
    let ports = PORTS.map(|port| port.to_string()).join(",");
    command.args(["-Y", &format!("http && tcp.port in {{{ports}}}")]);
    for option in [
        "tcp.desegment_tcp_streams:TRUE",
        "tcp.reassemble_out_of_order:TRUE",
        "http.desegment_headers:TRUE",
        "http.desegment_body:TRUE",
    ] {
        command.args(["-o", option]);
    }
    command.args(["-T", "fields", "-E", "occurrence=a", "-E", &format!("aggregator={BETWEEN}")]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    command
}

/// Of an address that is there twice (in a tunnel, in what an error quotes) the outer one.
fn outer(addresses: &str) -> &str {
    addresses.split(BETWEEN).next().unwrap_or_default()
}

/// Takes a response, to a request of the frame that tshark has named.
fn answer(requests: &mut Vec<Request>, asked: Option<&str>, code: &str) {
    let is_interim = code.starts_with('1') && code != "101";
    let request = asked.and_then(|frame| {
        requests.iter_mut().find(|request| request.frame == frame && request.status.is_none())
    });
    match request {
        _ if is_interim => {}
        Some(request) => request.status = Some(code.to_owned()),
        None => requests.push(Request {
            frame: String::new(),
            method: String::new(),
            target: String::new(),
            status: Some(code.to_owned()),
        }),
    }
}
