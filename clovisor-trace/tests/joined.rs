//! The two observations of one request: at the client's interface, and at the server's behind DNAT and SNAT, by another
//! clock, with other losses. Both give the same trace, the client's span over the server's.

mod wire;

use std::{collections::HashSet, sync::Arc};

use clovisor_trace::{
    Limits, OtherSide, Packet, Protocol, Resource, Side, Span, SpanBuilder, Toward, Tracer,
};
use proptest::prelude::*;
use wire::{Frame, Wire, whole};

const C: Toward = Toward::Server;
const S: Toward = Toward::Client;

/// As the server's side sees it: the client behind SNAT, the service behind DNAT.
fn translated(frames: &[Frame]) -> Vec<Frame> {
    let rewrite = |frame: &Frame| {
        let mut frame = frame.clone();
        let (client, server) = if frame.toward == C { (0, 1) } else { (1, 0) };
        // IPv4 addresses are at 12 and 16, ports after the header of 20 bytes.
        frame.data[12 + 4 * client..][..4].copy_from_slice(&[198, 51, 100, 2]);
        frame.data[12 + 4 * server..][..4].copy_from_slice(&[10, 244, 0, 7]);
        frame.data[20 + 2 * client..][..2].copy_from_slice(&61_234_u16.to_be_bytes());
        frame.data[20 + 2 * server..][..2].copy_from_slice(&9090_u16.to_be_bytes());
        frame
    };
    frames.iter().map(rewrite).collect()
}

/// The spans of one side, which sees the packets from `start_ns` on.
fn spans(frames: &[Frame], side: Side, protocol: Protocol, start_ns: u64, other: OtherSide) -> Vec<Span> {
    let mut tracer = Tracer::new(Limits::default());
    let (builder, resource) = (SpanBuilder::default(), Arc::new(Resource::service("any")));
    let (mut now, mut sessions) = (start_ns, Vec::new());
    for frame in frames {
        now += 10_000;
        tracer.handle_timeout(now);
        tracer.handle_packet(&Packet {
            time_ns: now,
            interface: if side == Side::Client { 7 } else { 9 },
            side,
            toward: frame.toward,
            protocol,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
        sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    }
    tracer.finish(now + 1_000_000_000);
    sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    sessions.iter().map(|session| builder.span(session, 0, &resource, other)).collect()
}

fn both(client: &[Frame], server: &[Frame], protocol: Protocol) -> (Vec<Span>, Vec<Span>) {
    let server = translated(server);
    (
        spans(client, Side::Client, protocol, 1_000_000_000, OtherSide::Untraced),
        spans(&server, Side::Server, protocol, 77_000_000_000, OtherSide::Traced),
    )
}

/// One trace for each request, the client's span over the server's, and no id twice.
fn check(client: &[Span], server: &[Span]) {
    assert_eq!(client.len(), server.len());
    let mut seen = HashSet::new();
    for (client, server) in client.iter().zip(server) {
        assert_eq!(client.trace_id, server.trace_id, "{client:?}\n{server:?}");
        assert_eq!((client.parent_span_id, server.parent_span_id), (None, Some(client.span_id)));
        assert!(seen.insert(client.span_id) && seen.insert(server.span_id), "an id is there twice");
    }
    let traces: HashSet<_> = client.iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), client.len());
}

/// Keep-alive: so many times the same request.
fn conversation(client_seq: u32, server_seq: u32, requests: usize) -> Wire {
    let mut wire = Wire::open(40_000, client_seq, server_seq);
    for _ in 0..requests {
        wire.send(C, b"GET /same HTTP/1.1\r\nHost: h\r\n\r\n", &mut whole());
        wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", &mut whole());
    }
    wire
}

#[test]
fn through_dnat_and_snat_by_other_clocks() {
    let mut wire = conversation(1_000, 5_000, 50);
    wire.fin(S);
    wire.fin(C);
    let (client, server) = both(&wire.frames, &wire.frames, Protocol::Http);
    assert_eq!(client.len(), 50);
    check(&client, &server);
}

#[test]
fn a_request_without_a_response_too() {
    let mut wire = conversation(1_000, 5_000, 3);
    wire.send(C, b"GET /last HTTP/1.1\r\n\r\n", &mut whole());
    wire.reset(S);
    let (client, server) = both(&wire.frames, &wire.frames, Protocol::Http);
    assert_eq!(client.len(), 4);
    check(&client, &server);
}

#[test]
fn what_is_lost_between_the_two_and_repeated() {
    let wire = conversation(1_000, 5_000, 3);
    // The second request: the handshake takes three packets, a request and its response one each.
    let (lost, end) = (5, wire.frames.len());
    let mut at_client = wire.frames.clone();
    at_client.insert(lost + 1, wire.frames[lost].clone());
    let (client, server) = both(&at_client, &wire.frames[..end], Protocol::Http);
    check(&client, &server);
}

#[test]
fn pipelined_requests_and_connections_without_a_parser() {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    for path in 0..5 {
        wire.send(C, format!("GET /{path} HTTP/1.1\r\n\r\n").as_bytes(), &mut whole());
    }
    for _ in 0..5 {
        wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut whole());
    }
    wire.fin(S);
    wire.fin(C);
    let (client, server) = both(&wire.frames, &wire.frames, Protocol::Http);
    assert_eq!(client.len(), 5);
    check(&client, &server);
    let (client, server) = both(&wire.frames, &wire.frames, Protocol::Tcp);
    assert_eq!(client.len(), 1);
    check(&client, &server);
}

#[test]
fn tracing_that_starts_in_the_middle_joins_what_both_see() {
    let mut wire = conversation(1_000, 5_000, 10);
    wire.fin(S);
    wire.fin(C);
    // After the second response.
    let (all, later) = both(&wire.frames, &wire.frames[7..], Protocol::Http);
    assert_eq!((all.len(), later.len()), (10, 8));
    check(&all[2..], &later);
}

#[test]
fn a_header_wins() {
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    let request = format!("GET / HTTP/1.1\r\ntraceparent: 00-{trace}-{parent}-01\r\n\r\n");
    wire.send(C, request.as_bytes(), &mut whole());
    wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut whole());
    let (client, server) = both(&wire.frames, &wire.frames, Protocol::Http);
    for span in [&client[0], &server[0]] {
        assert_eq!(span.trace_id.to_string(), trace);
        assert_eq!(span.parent_span_id.map(|id| id.to_string()).as_deref(), Some(parent));
    }
    assert_ne!(client[0].span_id, server[0].span_id);
}

#[test]
fn nobody_is_the_parent_where_nobody_traces_clients() {
    let frames = translated(&conversation(1_000, 5_000, 1).frames);
    let spans = spans(&frames, Side::Server, Protocol::Http, 0, OtherSide::Untraced);
    assert_eq!(spans[0].parent_span_id, None);
}

proptest! {
    /// Whatever the ends start at, and however requests are cut.
    #[test]
    fn any_positions_and_cuts(
        client_seq: u32,
        server_seq: u32,
        sizes in proptest::collection::vec(1..60_usize, 1..20),
        requests in 1..8_usize,
    ) {
        let mut wire = Wire::open(40_000, client_seq, server_seq);
        let mut cuts = sizes.into_iter().cycle();
        for _ in 0..requests {
            wire.send(C, b"POST /same HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", &mut cuts);
            wire.send(S, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", &mut cuts);
        }
        wire.fin(S);
        wire.fin(C);
        let (client, server) = both(&wire.frames, &wire.frames, Protocol::Http);
        prop_assert_eq!(client.len(), requests);
        check(&client, &server);
    }
}
