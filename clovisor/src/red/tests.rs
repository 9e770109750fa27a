//! Sessions in, lines of metrics out.

use clovisor_trace::{Anatomy, Detail, Exchange, Framing, RequestHead, ResponseHead, Transfer};
use prometheus_client::{encoding::text, registry::Registry};

use super::*;

/// Of 20 ms.
fn session(side: Side, protocol: Protocol, outcome: Outcome) -> Session {
    Session {
        interface: 1,
        side,
        protocol,
        client: "10.244.0.9:40000".parse().unwrap(),
        server: "10.96.0.9:80".parse().unwrap(),
        start_ns: 1_000_000_000,
        end_ns: 1_020_000_000,
        request_end_ns: None,
        pairing: None,
        response_start_ns: None,
        outcome,
        request: Transfer::default(),
        response: Transfer::default(),
        anatomy: Anatomy::default(),
        missing_bytes: 0,
        overlaps_loss: false,
        first_seq: 0,
        opposite_seq: 0,
        detail: Detail::Tcp,
    }
}

fn http(side: Side, outcome: Outcome, method: &str, status: Option<u16>) -> Session {
    let request = RequestHead {
        method: method.into(),
        target: "/secret?token=1".into(),
        minor_version: Some(1),
        host: None,
        user_agent: None,
        request_id: None,
        envoy_decorator: None,
        trace_headers: Vec::new(),
        captured: Vec::new(),
        framing: Framing::Unsaid,
        wants_tunnel: false,
    };
    let response = status.map(|status| ResponseHead {
        status,
        reason: "".into(),
        minor_version: Some(1),
        captured: Vec::new(),
        framing: Framing::Unsaid,
    });
    let exchange = Exchange { request: Some(request), response, ..Exchange::default() };
    Session { detail: Detail::Http(Box::new(exchange)), ..session(side, Protocol::Http, outcome) }
}

fn resource(service: &str) -> Resource {
    let mut resource = Resource::service(service.to_owned());
    resource.attributes.push(("service.namespace".into(), "shop".into()));
    resource
}

fn peer() -> Peer {
    Peer::new("front", "web")
}

fn text(red: &Red) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(red.clone()));
    let mut out = String::new();
    text::encode(&mut out, &registry).unwrap();
    out
}

/// The counts and counters, without buckets and help, in order.
fn counts(red: &Red) -> Vec<String> {
    let text = text(red);
    let wanted =
        |line: &&str| !line.starts_with('#') && !line.contains("_bucket{") && !line.contains("_sum{");
    let mut lines: Vec<_> = text.lines().filter(wanted).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn duration(side: &str, method: &str, status: &str, error: &str, count: u64) -> String {
    format!(
        "http_{side}_request_duration_seconds_count{{service_name=\"cart\",service_namespace=\"shop\",\
         http_request_method=\"{method}\",http_response_status_code=\"{status}\",error_type=\"{error}\",\
         url_scheme=\"http\"}} {count}"
    )
}

fn edge(what: &str, client: (&str, &str), server: (&str, &str), count: u64) -> String {
    format!(
        "traces_service_graph_{what}{{client=\"{}\",server=\"{}\",client_service_namespace=\"{}\",\
         server_service_namespace=\"{}\"}} {count}",
        client.0, server.0, client.1, server.1
    )
}

const CART: (&str, &str) = ("cart", "shop");
const FRONT: (&str, &str) = ("front", "web");
const NOBODY: (&str, &str) = ("unknown", "");

#[test]
fn what_each_session_counts_for() {
    use Outcome::{
        CaptureGap, Closed, Complete, Reset, ResponseUnobserved, Timeout, Truncated, Unparsed, Upgraded,
    };
    use Side::{Client, Server};
    let answered = |method, status, error| duration("server", method, status, error, 1);
    let sent = |method, status, error| duration("client", method, status, error, 1);
    let graph = |client, server, failed| {
        vec![edge("request_total", client, server, 1), edge("request_failed_total", client, server, failed)]
    };
    let served = |client, failed| {
        [graph(client, CART, failed), vec![edge("request_server_seconds_count", client, CART, 1)]].concat()
    };
    let asked = |server| edge("request_client_seconds_count", CART, server, 1);
    let rows: Vec<(Session, Option<Peer>, Vec<String>)> = vec![
        (
            http(Server, Complete, "GET", Some(200)),
            Some(peer()),
            [served(FRONT, 0), vec![answered("GET", "200", "")]].concat(),
        ),
        (
            http(Server, Complete, "BREW", Some(404)),
            None,
            [served(NOBODY, 0), vec![answered("_OTHER", "404", "")]].concat(),
        ),
        (
            http(Server, Complete, "POST", Some(503)),
            None,
            [served(NOBODY, 1), vec![answered("POST", "503", "503")]].concat(),
        ),
        (
            http(Server, Upgraded, "GET", Some(101)),
            None,
            [served(NOBODY, 0), vec![answered("GET", "101", "")]].concat(),
        ),
        (
            http(Server, Reset, "GET", None),
            None,
            [served(NOBODY, 1), vec![answered("GET", "", "connection_reset")]].concat(),
        ),
        (
            http(Server, Closed, "GET", Some(200)),
            None,
            [served(NOBODY, 1), vec![answered("GET", "200", "connection_closed")]].concat(),
        ),
        (
            http(Server, Timeout, "GET", None),
            None,
            [served(NOBODY, 1), vec![answered("GET", "", "timeout")]].concat(),
        ),
        // What was not observed counts for nothing.
        (http(Server, ResponseUnobserved, "GET", None), None, vec![]),
        (http(Server, CaptureGap, "GET", Some(500)), None, vec![]),
        (http(Server, Truncated, "GET", Some(200)), None, vec![]),
        (http(Server, Unparsed, "GET", None), None, vec![]),
        // The server's side counts, if it may be traced.
        (
            http(Client, Complete, "GET", Some(404)),
            Some(peer()),
            vec![asked(FRONT), sent("GET", "404", "404")],
        ),
        (
            http(Client, Complete, "GET", Some(404)),
            None,
            [graph(CART, NOBODY, 1), vec![asked(NOBODY), sent("GET", "404", "404")]].concat(),
        ),
        // A connection has no answer's time.
        (session(Server, Protocol::Tcp, Complete), Some(peer()), graph(FRONT, CART, 0)),
        (session(Client, Protocol::Tcp, Reset), None, graph(CART, NOBODY, 1)),
    ];
    for (session, peer, mut expected) in rows {
        let mut red = Red::default();
        red.record(&session, &resource("cart"), peer.as_ref());
        expected.sort();
        assert_eq!(counts(&red), expected, "{:?} {:?} {peer:?}", session.side, session.outcome);
    }
}

#[test]
fn durations_are_in_seconds_and_nothing_of_the_request_is_a_label() {
    let mut red = Red::default();
    for _ in 0..3 {
        red.record(&http(Side::Server, Outcome::Complete, "GET", Some(200)), &resource("cart"), None);
    }
    let text = text(&red);
    for (name, label, count) in [
        ("sum", "service_name=\"cart\"", "0.06"),
        ("bucket", "le=\"0.01\"", "0"),
        ("bucket", "le=\"0.025\"", "3"),
        ("bucket", "le=\"+Inf\"", "3"),
    ] {
        let start = format!("http_server_request_duration_seconds_{name}{{");
        let end = format!("}} {count}");
        let is_it = |line: &str| line.starts_with(&start) && line.contains(label) && line.ends_with(&end);
        assert!(text.lines().any(is_it), "{name} {label} {count} is not in\n{text}");
    }
    for hidden in ["secret", "token", "10.244", "10.96"] {
        assert!(!text.contains(hidden), "{hidden} is in\n{text}");
    }
}

#[test]
fn what_finds_no_room_is_counted_as_other() {
    let mut red = Red::default();
    let sessions = SERIES + 5;
    for number in 0..sessions {
        let session = http(Side::Server, Outcome::Complete, "GET", Some(200));
        red.record(&session, &resource(&format!("service-{number}")), None);
    }
    let counts = counts(&red);
    let of = |start: &str| counts.iter().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    let (requests, total) = (of("http_server_request"), of("traces_service_graph_request_total"));
    assert_eq!((requests.len(), total.len()), (SERIES + 1, SERIES + 1));
    let other = |lines: &[&String]| {
        lines.iter().filter(|line| line.contains("\"other\"") && line.ends_with(" 5")).count()
    };
    assert_eq!((other(&requests), other(&total)), (1, 1), "{requests:?}");
    let sum: usize = requests.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(sum, sessions);
}
