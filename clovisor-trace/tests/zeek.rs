//! The HTTP captures of Zeek's test suite, against Zeek's own record of each.
//!
//! Every column of `NAME.pcap.http.log` that Clovisor has too must be equal: addresses and ports, the place in
//! the connection, method, host, URI, status. Where Clovisor differs on purpose, [`DIFFERENCES`] has what it
//! says instead, and why; a difference that is no longer one is a failure too. Data and licence: `testdata/zeek`.

mod offline;

use std::{collections::HashMap, fs, path::PathBuf};

use clovisor_trace::{Detail, Exchange, Session};
use offline::{sessions, unescaped};

/// What Clovisor says instead of Zeek, line for line, and why.
struct Difference {
    capture: &'static str,
    reason: &'static str,
    /// Lines that only Zeek has.
    zeek: &'static [&'static str],
    /// Lines that only Clovisor has, each with its outcome.
    clovisor: &'static [&'static str],
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        capture: "methods.pcap",
        reason: "`METHOD /HTTP/1.1` has no version: Zeek takes it as HTTP/0.9, and the response with a status \
            line as one without; Clovisor shows the status that the server sent.",
        zeek: &[
            "128.2.6.136 46568 173.194.75.103 80 1 GET www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46578 173.194.75.103 80 1 CCM_POST www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46583 173.194.75.103 80 1 CONNECT www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46588 173.194.75.103 80 1 TRACE www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46593 173.194.75.103 80 1 DELETE www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46598 173.194.75.103 80 1 PUT www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46603 173.194.75.103 80 1 POST www.google.com /HTTP/1.1 0 -",
            "128.2.6.136 46608 173.194.75.103 80 1 HEAD www.google.com /HTTP/1.1 0 -",
        ],
        clovisor: &[
            "128.2.6.136 46568 173.194.75.103 80 1 GET - /HTTP/1.1 403 - unparsed",
            "128.2.6.136 46578 173.194.75.103 80 1 CCM_POST - /HTTP/1.1 400 - unparsed",
            "128.2.6.136 46583 173.194.75.103 80 1 CONNECT - /HTTP/1.1 400 - unparsed",
            "128.2.6.136 46588 173.194.75.103 80 1 TRACE - /HTTP/1.1 400 - unparsed",
            "128.2.6.136 46593 173.194.75.103 80 1 DELETE - /HTTP/1.1 400 - unparsed",
            "128.2.6.136 46598 173.194.75.103 80 1 PUT - /HTTP/1.1 411 - unparsed",
            "128.2.6.136 46603 173.194.75.103 80 1 POST - /HTTP/1.1 411 - unparsed",
            "128.2.6.136 46608 173.194.75.103 80 1 HEAD - /HTTP/1.1 400 - unparsed",
        ],
    },
    Difference {
        capture: "http-11-request-then-cruft.pcap",
        reason: "The server answered the cruft `T / HTTP` with 400: a session that Zeek leaves out.",
        zeek: &[],
        clovisor: &["192.168.12.5 51792 192.0.78.212 80 2 T - / HTTP 400 - unparsed"],
    },
    Difference {
        capture: "variant-02-cl_uint64max.pcap",
        reason: "2^64 - 1 is a length like any other (RFC 9112 section 6.2), so what follows is body, not a \
            second request.",
        zeek: &["2 GET target /smuggled-cl-uint64max"],
        clovisor: &[],
    },
    Difference {
        capture: "variant-10-multi_value_te.pcap",
        reason: "`chunked, identity` does not end with chunked, so nobody can tell where the request ends \
            (RFC 9112 section 6.3, rule 4); Clovisor does not guess that a second one follows.",
        zeek: &["2 GET target /smuggled-multi-te"],
        clovisor: &[],
    },
    Difference {
        capture: "wstunnel-http.pcap",
        reason: "The server answered 101; Zeek looks into the tunnel and shows the request and the status \
            within, Clovisor reports the session that switched and leaves the other protocol alone.",
        zeek: &["localhost:8888 /v1/events 301 -", "zeek.org / - curl/7.81.0"],
        clovisor: &["localhost:8888 /v1/events 101 - upgraded"],
    },
];

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

/// Where servers listen in these captures.
const PORTS: [u16; 4] = [80, 8000, 8080, 8888];

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

/// The same columns of a session, the `depth`-th of its connection.
fn row(session: &Session, depth: usize) -> Row {
    let Detail::Http(exchange) = &session.detail else { panic!("{session:?} is not HTTP") };
    let Exchange { request, response, .. } = &**exchange;
    let request = request.as_ref();
    let unset = || "-".to_owned();
    let uri = request.map(|head| unescaped(&head.target));
    // As Zeek's log writes what is there and empty.
    let uri = uri.map(|uri| if uri.is_empty() { "(empty)".to_owned() } else { uri });
    let values = [
        session.client.ip().to_string(),
        session.client.port().to_string(),
        session.server.ip().to_string(),
        session.server.port().to_string(),
        depth.to_string(),
        request.map_or_else(unset, |head| head.method.to_string()),
        request.and_then(|head| head.host.as_ref()).map(ToString::to_string).unwrap_or_else(unset),
        uri.unwrap_or_else(unset),
        response.as_ref().map_or_else(unset, |head| head.status.to_string()),
        request.and_then(|head| head.user_agent.as_ref()).map(ToString::to_string).unwrap_or_else(unset),
    ];
    COLUMNS.into_iter().zip(values).collect()
}

fn text(row: &Row) -> String {
    row.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
}

/// Clovisor's lines of a capture in the columns that the log has; those of the table with their outcome.
fn lines(name: &str, columns: &[&str]) -> Vec<String> {
    let mut depths = HashMap::new();
    let (mut sessions, read) = sessions(&folder().join(name), &PORTS);
    read.expect("a whole capture");
    sessions.sort_by_key(|session| session.start_ns);
    sessions
        .iter()
        .map(|session| {
            let depth: &mut usize = depths.entry((session.client, session.server)).or_default();
            *depth += 1;
            let mut row = row(session, *depth);
            row.retain(|(column, _)| columns.contains(column));
            let (line, outcome) = (text(&row), session.outcome.name());
            let with_outcome = format!("{line} {outcome}");
            let differs = |difference: &&Difference| difference.clovisor.contains(&&*with_outcome);
            if differences(name).any(|difference| differs(&difference)) { with_outcome } else { line }
        })
        .collect()
}

fn differences(name: &str) -> impl Iterator<Item = &'static Difference> {
    DIFFERENCES.iter().filter(move |difference| difference.capture == name)
}

#[test]
fn sessions_are_those_of_zeek() {
    let mut captures = 0;
    for entry in fs::read_dir(folder()).expect("the folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        if !name.ends_with(".pcap") {
            continue;
        }
        captures += 1;
        let log = fs::read_to_string(folder().join(format!("{name}.http.log"))).expect("a log");
        let rows = rows(&log);
        let columns: Vec<_> = rows[0].iter().map(|(column, _)| *column).collect();
        let mut expected: Vec<_> = rows.iter().map(text).collect();
        let mut reasons = String::new();
        for difference in differences(&name) {
            reasons += &format!("\n{}", difference.reason);
            for line in difference.zeek {
                let place = expected.iter().position(|other| other == line);
                expected.remove(place.unwrap_or_else(|| panic!("{name}: Zeek does not say: {line}")));
            }
            expected.extend(difference.clovisor.iter().map(|line| (*line).to_owned()));
        }
        let mut found = lines(&name, &columns);
        // Zeek logs what ends first; addresses, ports and `trans_depth` are in the lines.
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}; known differences:{reasons}");
    }
    assert_eq!(captures, 21);
}
