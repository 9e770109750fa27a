//! Hostile amounts: memory stays within its limit, and everything is counted.

mod wire;

use clovisor_trace::{Limits, Outcome, Packet, Protocol, Side, Toward, Tracer};
use etherparse::PacketBuilder;
use wire::Wire;

fn give(tracer: &mut Tracer, now: u64, toward: Toward, data: &[u8]) {
    let wire_len = u32::try_from(data.len()).expect("small");
    let protocol = Protocol::Http;
    tracer.handle_packet(&Packet {
        time_ns: now,
        interface: 1,
        side: Side::Server,
        toward,
        protocol,
        wire_len,
        data,
    });
}

#[test]
fn a_million_half_open_connections() {
    let mut tracer = Tracer::new(Limits { flows: 10_000, ..Limits::default() });
    let mut most = 0;
    for n in 0..1_000_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let mut data = Vec::with_capacity(40);
        let syn = PacketBuilder::ipv4([10, a, b, c], [10, 0, 0, 1], 64).tcp(1000, 80, n, 100).syn();
        syn.write(&mut data, b"").expect("fits");
        give(&mut tracer, u64::from(n) * 1_000, Toward::Server, &data);
        most = most.max(tracer.memory());
    }
    let ledger = tracer.ledger();
    assert_eq!((ledger.flows_begun, ledger.flows_open, ledger.flows_evicted), (1_000_000, 10_000, 990_000));
    assert_eq!(ledger.balance(), Ok(()));
    assert!(most < 20_000_000, "{most} bytes");
}

#[test]
fn a_head_without_end() {
    let mut tracer = Tracer::new(Limits::default());
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(Toward::Server, b"GET / HTTP/1.1\r\nX: ", &mut wire::whole());
    for frame in &wire.frames {
        give(&mut tracer, 1_000, frame.toward, &frame.data);
    }
    // A gigabyte in segments of 64 KiB, as GSO makes them.
    let payload = vec![b'x'; 65_000];
    let (mut seq, mut most) = (2 + 19_u32, 0);
    for n in 0..16_500_u64 {
        let mut data = Vec::with_capacity(payload.len() + 40);
        let segment =
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40_000, wire::SERVER_PORT, seq, 100);
        segment.ack(2).write(&mut data, &payload).expect("fits");
        give(&mut tracer, 2_000 + n, Toward::Server, &data);
        seq = seq.wrapping_add(65_000);
        most = most.max(tracer.memory());
    }
    assert!(most < 200_000, "{most} bytes");
    tracer.finish(1_000_000);
    let session = tracer.poll_session().expect("the request began");
    assert_eq!((session.outcome, tracer.poll_session()), (Outcome::Truncated, None));
    assert_eq!(tracer.ledger().balance(), Ok(()));
}

/// As it was met behind a path that loses packets: one segment is late, and all others of the window come before it.
#[test]
fn a_full_receive_window_waits_for_one_segment() {
    let window = 6 << 20;
    let mut wire = Wire::open(40_000, 1, 1);
    wire.send(Toward::Server, b"GET / HTTP/1.1\r\n\r\n", &mut wire::whole());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {window}\r\n\r\n");
    wire.send(Toward::Client, head.as_bytes(), &mut wire::whole());
    let late = wire.frames.len();
    wire.send(Toward::Client, &vec![b'x'; window], &mut std::iter::repeat(524));
    let frame = wire.frames.remove(late);
    wire.frames.push(frame);
    let mut tracer = Tracer::new(Limits::default());
    for frame in &wire.frames {
        give(&mut tracer, 1_000, frame.toward, &frame.data);
    }
    let session = tracer.poll_session().expect("the response ended");
    assert_eq!((session.outcome, session.missing_bytes), (Outcome::Complete, 0));
    assert_eq!(session.response.bytes, (head.len() + window) as u64);
}

#[test]
fn flows_that_hold_much_make_room() {
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let mut tracer = Tracer::new(limits);
    for port in 0..2_000 {
        let mut wire = Wire::open(10_000 + port, 1, 1);
        let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(5_000));
        wire.send(Toward::Server, head.as_bytes(), &mut wire::whole());
        for frame in &wire.frames {
            give(&mut tracer, u64::from(port) * 1_000, frame.toward, &frame.data);
            assert!(tracer.memory() <= (1 << 20) + 100_000, "{} bytes", tracer.memory());
            while let Some(session) = tracer.poll_session() {
                assert_eq!(session.outcome, Outcome::Truncated);
            }
        }
    }
    assert!(tracer.ledger().flows_evicted > 1_000);
    tracer.finish(10_000_000);
    assert_eq!(tracer.ledger().balance(), Ok(()));
}

/// Connections that were opened and asked once, and then closed if so wished.
fn asked_once(tracer: &mut Tracer, flows: u16, closes: bool) {
    for port in 0..flows {
        let mut wire = Wire::open(10_000 + port, 1, 1);
        wire.send(Toward::Server, b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n", &mut wire::whole());
        wire.send(Toward::Client, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut wire::whole());
        if closes {
            Toward::BOTH.into_iter().for_each(|toward| wire.fin(toward));
        }
        for frame in &wire.frames {
            give(tracer, u64::from(port) * 1_000, frame.toward, &frame.data);
            while let Some(session) = tracer.poll_session() {
                assert_eq!(session.outcome, Outcome::Complete);
            }
        }
    }
}

#[test]
fn a_flow_at_rest_holds_a_kilobyte_at_most() {
    let mut tracer = Tracer::new(Limits::default());
    asked_once(&mut tracer, 1_000, false);
    assert_eq!(tracer.ledger().flows_open, 1_000);
    assert!(tracer.memory() <= 1_000 * 1_024, "{} bytes", tracer.memory());
}

#[test]
fn ends_that_are_remembered_are_within_the_bound() {
    let mut tracer = Tracer::new(Limits { memory: 64 << 10, ..Limits::default() });
    asked_once(&mut tracer, 5_000, true);
    let ledger = tracer.ledger();
    assert_eq!((ledger.flows_ended, ledger.flows_evicted), (5_000, 0));
    assert!(tracer.memory() <= (64 << 10) + 1_024, "{} bytes", tracer.memory());
}
