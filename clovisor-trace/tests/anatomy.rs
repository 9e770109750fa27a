//! Where a session's time went and what went wrong on the way: packets at known times, against what the session says.

mod wire;

use std::sync::Arc;

use clovisor_trace::{
    Limits, OtherSide, Packet, Protocol, Resource, Session, Side, Span, SpanBuilder, Toward, Tracer, Trouble,
    Value,
};
use wire::{Frame, Wire, whole};

const C: Toward = Toward::Server;
const S: Toward = Toward::Client;
const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";

/// Sessions of packets that pass at these times.
fn sessions(packets: &[(u64, &Frame)], protocol: Protocol) -> Vec<Session> {
    let mut tracer = Tracer::new(Limits::default());
    for (time_ns, frame) in packets {
        tracer.handle_timeout(*time_ns);
        tracer.handle_packet(&Packet {
            time_ns: *time_ns,
            interface: 1,
            side: Side::Server,
            toward: frame.toward,
            protocol,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
        assert_eq!(tracer.ledger().balance(), Ok(()));
    }
    let last = packets.last().expect("packets").0;
    tracer.handle_timeout(last + 1_000 * MS);
    tracer.finish(last + 2_000 * MS);
    assert_eq!(tracer.ledger().balance(), Ok(()));
    std::iter::from_fn(|| tracer.poll_session()).collect()
}

fn only(packets: &[(u64, &Frame)]) -> Session {
    let mut sessions = sessions(packets, Protocol::Http);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions.remove(0)
}

fn span(session: &Session) -> Span {
    SpanBuilder::default().span(session, 7, &Arc::new(Resource::service("any")), OtherSide::Untraced)
}

/// Troubles of request and response, in the order of [`Trouble::ALL`].
fn troubles(session: &Session) -> [[u32; 4]; 2] {
    [session.request, session.response].map(|transfer| Trouble::ALL.map(|one| transfer.troubles.of(one)))
}

/// A conversation: handshake 0..3, request in two segments 3..5, acknowledgement 5, response in two segments 6..8.
fn talk() -> Vec<Frame> {
    let mut wire = Wire::open(40_000, u32::MAX - 10, 7_000);
    wire.send(C, REQUEST, &mut [10_usize].into_iter().chain(whole()));
    wire.ack(S);
    wire.send(S, RESPONSE, &mut [20_usize].into_iter().chain(whole()));
    wire.ack(C);
    wire.frames
}

fn at<'a>(frames: &'a [Frame], order: &[(u64, usize)]) -> Vec<(u64, &'a Frame)> {
    order.iter().map(|(time, frame)| (*time, &frames[*frame])).collect()
}

#[test]
fn every_phase_has_its_time() {
    let frames = talk();
    let order = [
        (10 * MS, 0),
        (12 * MS, 1),
        (15 * MS, 2),
        (20 * MS, 3),
        (21 * MS, 4),
        (25 * MS, 5),
        (61 * MS, 6),
        (68 * MS, 7),
        (69 * MS, 8),
    ];
    let session = only(&at(&frames, &order));
    let handshake = session.anatomy.handshake.expect("seen");
    assert_eq!((handshake.server_ns, handshake.client_ns, handshake.repeated), (2 * MS, 3 * MS, 0));
    assert_eq!(session.request_transfer_ns(), Some(MS));
    assert_eq!(session.server_ack_ns(), Some(4 * MS));
    assert_eq!(session.think_ns(), Some(40 * MS));
    assert_eq!(session.response_transfer_ns(), Some(7 * MS));
    assert_eq!(session.duration_ns(), 48 * MS);
    assert_eq!(troubles(&session), [[0; 4]; 2]);
    let span = span(&session);
    let number = |key: &str| match span.attribute(key) {
        Some(Value::Int(number)) => *number,
        other => panic!("{key}: {other:?}"),
    };
    let keys = [
        ("clovisor.request.transfer_ns", 1_000_000),
        ("clovisor.server.ack_ns", 4_000_000),
        ("clovisor.server.think_ns", 40_000_000),
        ("clovisor.response.transfer_ns", 7_000_000),
        ("clovisor.handshake.round_trip_ns", 5_000_000),
        ("clovisor.handshake.server_ns", 2_000_000),
        ("clovisor.handshake.client_ns", 3_000_000),
    ];
    assert_eq!(keys.map(|(key, _)| (key, number(key))), keys);
    let events: Vec<_> = span.events.iter().map(|event| (&*event.name, event.time_ns)).collect();
    let expected = [
        ("clovisor.request.end", 21 * MS + 7),
        ("clovisor.request.acked", 25 * MS + 7),
        ("clovisor.response.start", 61 * MS + 7),
    ];
    assert_eq!(events, expected);
}

#[test]
fn what_was_not_seen_has_no_time() {
    let frames = talk();
    // The server says only with its response that it has the request, and that is not whole.
    let session = only(&at(&frames, &[(0, 0), (1, 1), (20 * MS, 3), (21 * MS, 4), (61 * MS, 6)]));
    assert_eq!(session.server_ack_ns(), Some(40 * MS));
    assert_eq!((session.think_ns(), session.response_transfer_ns()), (Some(40 * MS), None));
    // Met behind the SYN, and behind the whole handshake.
    for first in [1, 2, 3] {
        let order: Vec<_> = (first..=7).map(|frame| (frame as u64 * MS, frame)).collect();
        assert_eq!(sessions(&at(&frames, &order), Protocol::Http)[0].anatomy.handshake, None, "{first}");
    }
    // Nothing came back.
    let session = only(&at(&frames, &[(0, 0), (1, 1), (2, 2), (20 * MS, 3), (21 * MS, 4)]));
    assert_eq!(
        (session.server_ack_ns(), session.think_ns(), session.response_transfer_ns()),
        (None, None, None)
    );
    // Not even the end of the request.
    let session = only(&at(&frames, &[(0, 0), (1, 1), (2, 2), (20 * MS, 3)]));
    assert_eq!(session.request_transfer_ns(), None);
}

#[test]
fn repeated_segments_of_the_opening_are_part_of_its_time() {
    let frames = talk();
    let order = [(0, 0), (1_000 * MS, 0), (1_002 * MS, 1), (1_005 * MS, 1), (1_006 * MS, 2), (1_010 * MS, 3)];
    let handshake = only(&at(&frames, &order)).anatomy.handshake.expect("seen");
    assert_eq!((handshake.server_ns, handshake.client_ns, handshake.repeated), (1_002 * MS, 4 * MS, 2));
}

#[test]
fn bytes_that_come_again_are_told_apart() {
    type Case = (&'static str, &'static [(u64, usize)], [[u32; 4]; 2]);
    const CASES: [Case; 6] = [
        (
            "again before it was acknowledged",
            &[(10 * MS, 3), (11 * MS, 3), (20 * MS, 4), (30 * MS, 6), (31 * MS, 7)],
            [[1, 0, 0, 0], [0; 4]],
        ),
        (
            "again after it was acknowledged",
            &[(10 * MS, 3), (20 * MS, 4), (21 * MS, 5), (22 * MS, 4), (30 * MS, 6), (31 * MS, 7)],
            [[0, 0, 1, 0], [0; 4]],
        ),
        (
            "out of order, sooner than a round trip",
            &[(10 * MS, 4), (11 * MS, 3), (30 * MS, 6), (31 * MS, 7)],
            [[0, 1, 0, 0], [0; 4]],
        ),
        (
            "a hole that is filled a round trip later",
            &[(10 * MS, 4), (13 * MS, 3), (30 * MS, 6), (31 * MS, 7)],
            [[1, 0, 0, 0], [0; 4]],
        ),
        (
            "the response, before its end",
            &[(10 * MS, 3), (10 * MS, 4), (30 * MS, 6), (31 * MS, 6), (32 * MS, 6), (33 * MS, 7)],
            [[0; 4], [2, 0, 0, 0]],
        ),
        (
            "the response, out of order",
            &[(10 * MS, 3), (10 * MS, 4), (30 * MS, 7), (31 * MS, 6)],
            [[0; 4], [0, 1, 0, 0]],
        ),
    ];
    let frames = talk();
    let open = [(0, 0), (MS, 1), (2 * MS, 2)];
    for (name, order, expected) in CASES {
        let session = only(&at(&frames, &[&open[..], order].concat()));
        assert_eq!(troubles(&session), expected, "{name}");
        let counted: u32 = expected.iter().flatten().sum();
        assert_eq!(session.anatomy.incidents.len(), counted as usize, "{name}");
        assert_eq!(session.outcome, clovisor_trace::Outcome::Complete, "{name}");
    }
}

#[test]
fn bytes_that_the_client_had_are_duplicates() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, REQUEST, &mut whole());
    wire.send(S, &RESPONSE[..20], &mut whole());
    wire.ack(C);
    wire.send(S, &RESPONSE[20..], &mut whole());
    let order = [(0, 0), (1, 1), (2, 2), (MS, 3), (2 * MS, 4), (3 * MS, 5), (4 * MS, 4), (5 * MS, 6)];
    let session = only(&at(&wire.frames, &order));
    assert_eq!(troubles(&session), [[0; 4], [0, 0, 1, 0]]);
    let span = span(&session);
    assert_eq!(span.attribute("clovisor.response.duplicates"), Some(&Value::Int(1)));
    let event = span.events.iter().find(|event| event.name == "clovisor.duplicate").expect("one");
    assert_eq!((event.time_ns, &event.attributes[0].1), (4 * MS + 7, &"response".into()));
}

#[test]
fn a_receiver_without_room_is_counted_each_time() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, REQUEST, &mut whole());
    wire.send(S, &RESPONSE[..20], &mut whole());
    for window in [0, 0, 500, 0, 500] {
        wire.window(C, window);
    }
    wire.send(S, &RESPONSE[20..], &mut whole());
    let packets: Vec<_> = wire.frames.iter().enumerate().map(|(n, frame)| (n as u64 * US, frame)).collect();
    assert_eq!(troubles(&only(&packets)), [[0; 4], [0, 0, 0, 2]]);
}

#[test]
fn interim_responses_are_no_answer() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", &mut whole());
    wire.send(S, b"HTTP/1.1 100 Continue\r\n\r\n", &mut whole());
    wire.send(C, b"abc", &mut whole());
    wire.send(S, RESPONSE, &mut whole());
    let packets: Vec<_> = wire.frames.iter().enumerate().map(|(n, frame)| (n as u64 * MS, frame)).collect();
    let session = only(&packets);
    assert_eq!(session.request_transfer_ns(), Some(2 * MS));
    assert_eq!(session.think_ns(), Some(MS));
}

#[test]
fn an_early_answer_has_no_time_to_think() {
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(C, b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n", &mut whole());
    wire.send(S, RESPONSE, &mut whole());
    wire.send(C, b"abc", &mut whole());
    let packets: Vec<_> = wire.frames.iter().enumerate().map(|(n, frame)| (n as u64 * MS, frame)).collect();
    let session = only(&packets);
    assert_eq!((session.think_ns(), session.request_transfer_ns()), (None, Some(2 * MS)));
}

#[test]
fn a_connection_without_a_parser_has_counts_and_no_phases() {
    let frames = talk();
    let order = [(0, 0), (MS, 1), (2 * MS, 2), (10 * MS, 3), (11 * MS, 3), (20 * MS, 4), (30 * MS, 6)];
    let sessions = sessions(&at(&frames, &order), Protocol::Tcp);
    assert_eq!(troubles(&sessions[0]), [[1, 0, 0, 0], [0; 4]]);
    let span = span(&sessions[0]);
    assert_eq!(span.attribute("clovisor.request.transfer_ns"), None);
    assert_eq!(span.events.len(), 1, "{:?}", span.events);
}

#[test]
fn moments_are_bounded_and_counts_are_not() {
    let frames = talk();
    let mut order = vec![(0, 0), (1, 1), (2, 2), (MS, 3), (MS, 4), (2 * MS, 6)];
    order.extend((0..1_000).map(|n| (3 * MS + n, 6)));
    order.push((5 * MS, 7));
    let session = only(&at(&frames, &order));
    assert_eq!(session.response.troubles.of(Trouble::Retransmission), 1_000);
    assert_eq!((session.anatomy.incidents.len(), session.anatomy.more_incidents), (16, 984));
    assert_eq!(span(&session).events_dropped, 984);
}
