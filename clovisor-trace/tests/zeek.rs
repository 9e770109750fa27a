//! The HTTP captures of Zeek's test suite, against Zeek's own record of each.
//!
//! Every column of `NAME.pcap.http.log` that Clovisor has too must be equal: addresses and ports, the place in
//! the connection, method, host, URI, status. Where Clovisor differs on purpose, [`DIFFERENCES`] has what it
//! says instead, and why; a difference that is no longer one is a failure too. Data and licence: `testdata/zeek`.

use std::{collections::HashMap, fs, path::PathBuf};

use clovisor_trace::{Detail, Exchange, Limits, PortRule, Protocol, Rules, Session, Tracer, capture};

/// What Clovisor says instead of Zeek, line for line, and why.
struct Difference {
    capture: &'static str,
    reason: &'static str,
    /// Zeek's lines, each with Clovisor's in its place; `None` where one of them has nothing.
    lines: &'static [(Option<&'static str>, Option<&'static str>)],
}

const DIFFERENCES: &[Difference] = &[];

/// Columns of the log that Clovisor has too, in the order in which lines show them.
const COLUMNS: [&str; 10] = [
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "trans_depth",
    "method",
    "host",
    "uri",
    "status_code",
    "user_agent",
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/zeek")
}

/// A row: values of the columns that the log has.
type Row = Vec<(&'static str, String)>;

/// The rows of a log. The line behind `#fields`, or else the first without a `#`, names the columns.
fn rows(log: &str) -> Vec<Row> {
    let named = log.lines().find_map(|line| line.strip_prefix("#fields\t"));
    let mut plain = log.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<_> = named.or_else(|| plain.next()).expect("names of columns").split('\t').collect();
    plain
        .map(|line| {
            let values: HashMap<_, _> = names.iter().copied().zip(line.split('\t')).collect();
            COLUMNS.iter().filter_map(|name| Some((*name, (*values.get(name)?).to_owned()))).collect()
        })
        .collect()
}

/// The sessions of a capture, HTTP at these ports.
fn sessions(name: &str, ports: &[u16]) -> Vec<Session> {
    let file = fs::File::open(folder().join(name)).expect("a capture");
    let ports = ports.iter().map(|port| PortRule { port: *port, protocol: Protocol::Http }).collect();
    let rules = Rules { ports, egress: Vec::new() };
    let mut tracer = Tracer::new(Limits::default());
    let mut last_ns = 0;
    capture::read(file, |record| {
        last_ns = last_ns.max(record.time_ns);
        tracer.handle_timeout(last_ns);
        if let Some(packet) = rules.select(record.time_ns, record.interface, record.wire_len, record.data) {
            tracer.handle_packet(&packet);
        }
        std::ops::ControlFlow::Continue(())
    })
    .expect("a whole capture");
    tracer.finish(last_ns);
    let sessions = std::iter::from_fn(|| tracer.poll_session()).collect();
    assert_eq!(tracer.ledger().balance(), Ok(()), "{name}");
    sessions
}

/// The same columns of a session, the `depth`-th of its connection.
fn row(session: &Session, depth: usize) -> Row {
    let Detail::Http(exchange) = &session.detail else { panic!("{session:?} is not HTTP") };
    let Exchange { request, response, .. } = &**exchange;
    let request = request.as_ref();
    let unset = || "-".to_owned();
    let uri = request.map(|head| unescaped(&head.target));
    let values = [
        session.client.ip().to_string(),
        session.client.port().to_string(),
        session.server.ip().to_string(),
        session.server.port().to_string(),
        depth.to_string(),
        request.map_or_else(unset, |head| head.method.clone()),
        request.and_then(|head| head.host.clone()).unwrap_or_else(unset),
        uri.unwrap_or_else(unset),
        response.as_ref().map_or_else(unset, |head| head.status.to_string()),
        request.and_then(|head| head.user_agent.clone()).unwrap_or_else(unset),
    ];
    COLUMNS.into_iter().zip(values).collect()
}

/// Zeek logs URIs with their percent-encoding undone.
fn unescaped(uri: &str) -> String {
    let mut parts = uri.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => text.extend([char::from(byte).to_string().as_str(), &part[2..]]),
            None => text.extend(["%", part]),
        }
    }
    text
}
#[test]
fn probe() {
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".pcap") {
            continue;
        }
        println!("== {name}");
        for r in rows(&fs::read_to_string(folder().join(format!("{name}.http.log"))).unwrap()) {
            println!("Z {}", r.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" "));
        }
        for s in sessions(&name, &[80, 8000, 8080, 8888]) {
            println!(
                "C {} {} {}/{} miss {}",
                row(&s, 0).iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" "),
                s.outcome.name(),
                s.request.bytes,
                s.response.bytes,
                s.missing_bytes
            );
        }
    }
}
