//! Tracing of one interface ends while others go on.

mod wire;

use clovisor_trace::{Heading, Limits, Outcome, Packet, Protocol, Side, Toward, Tracer};
use wire::{Wire, whole};

fn give(tracer: &mut Tracer, interface: u32, frames: &[wire::Frame]) {
    for frame in frames {
        tracer.handle_packet(&Packet {
            time_ns: 1_000,
            interface,
            side: Side::Server,
            toward: frame.toward,
            protocol: Protocol::Http,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
    }
}

#[test]
fn its_open_sessions_end_as_what_was_seen_and_no_others() {
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    wire.send(Toward::Server, b"GET /a HTTP/1.1\r\n\r\n", &mut whole());
    let asked = wire.frames.len();
    wire.send(Toward::Client, b"HTTP/1.1 204 No Content\r\n\r\n", &mut whole());
    wire.fin(Toward::Client);
    wire.fin(Toward::Server);

    let mut tracer = Tracer::new(Limits::default());
    for interface in [1, 2] {
        give(&mut tracer, interface, &wire.frames[..asked]);
    }
    // Nothing was open here.
    tracer.finish_interface(3, 2_000);
    assert!(tracer.poll_session().is_none());

    tracer.finish_interface(1, 2_000);
    let ended = tracer.poll_session().expect("the open session");
    assert_eq!((ended.interface, ended.outcome), (1, Outcome::ResponseUnobserved));
    assert!(tracer.poll_session().is_none());

    give(&mut tracer, 2, &wire.frames[asked..]);
    let complete = tracer.poll_session().expect("the session of the interface that stays");
    assert_eq!((complete.interface, complete.outcome), (2, Outcome::Complete));
    assert_eq!(tracer.ledger().balance(), Ok(()));

    // The kernel gives the index to another interface, where the same ports mean another connection.
    tracer.finish_interface(2, 3_000);
    give(&mut tracer, 2, &wire.frames);
    assert_eq!(tracer.poll_session().map(|session| session.outcome), Some(Outcome::Complete));
    assert_eq!(tracer.ledger().balance(), Ok(()));
}

/// A connection with so many requests, of which the pod's end is the server.
fn conversation(port: u16, requests: usize) -> Vec<wire::Frame> {
    let mut wire = Wire::open(port, 1_000, 5_000);
    for _ in 0..requests {
        wire.send(Toward::Server, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
        wire.send(Toward::Client, b"HTTP/1.1 204 No Content\r\n\r\n", &mut whole());
        wire.ack(Toward::Server);
    }
    wire.fin(Toward::Client);
    wire.fin(Toward::Server);
    wire.ack(Toward::Client);
    wire.frames
}

/// Gives what `is_seen` of a connection to a tracer, 100 ms apart.
fn show(
    tracer: &mut Tracer,
    side: Side,
    now: &mut u64,
    frames: &[wire::Frame],
    is_seen: impl Fn(usize, &wire::Frame) -> bool,
) {
    for (_, frame) in frames.iter().enumerate().filter(|(at, frame)| is_seen(*at, frame)) {
        *now += 100_000_000;
        tracer.handle_packet(&Packet {
            time_ns: *now,
            interface: 5,
            side,
            toward: frame.toward,
            protocol: Protocol::Http,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
    }
}

#[test]
fn one_direction_alone_is_noticed_among_connections_that_show_both() {
    let cases = [
        (Side::Server, Toward::Client, Heading::ToPod),
        (Side::Client, Toward::Client, Heading::FromPod),
        (Side::Server, Toward::Server, Heading::FromPod),
        (Side::Client, Toward::Server, Heading::ToPod),
    ];
    for (side, seen, missing) in cases {
        let (mut tracer, mut now) = (Tracer::new(Limits::default()), 0);
        for port in 1_000..1_010 {
            show(&mut tracer, side, &mut now, &conversation(port, 3), |_, _| true);
            assert_eq!(tracer.unseen().count(), 0, "both directions were shown");
        }
        for port in 2_000..2_010 {
            show(&mut tracer, side, &mut now, &conversation(port, 1), |_, frame| frame.toward == seen);
            show(&mut tracer, side, &mut now, &conversation(port + 1_000, 1), |_, _| true);
        }
        assert_eq!(tracer.unseen().collect::<Vec<_>>(), [(5, missing)], "{side:?} {seen:?}");
        // A connection alone suffices, too.
        tracer.finish_interface(5, now);
        assert_eq!(tracer.unseen().count(), 0);
        show(&mut tracer, side, &mut now, &conversation(4_000, 20), |_, frame| frame.toward == seen);
        assert_eq!(tracer.unseen().collect::<Vec<_>>(), [(5, missing)], "{side:?} {seen:?}");
    }
}

#[test]
fn a_side_that_nobody_answers_and_a_capture_that_begins_prove_nothing() {
    let (mut tracer, mut now) = (Tracer::new(Limits::default()), 0);
    // SYNs into nowhere, again and again.
    for port in 1_000..1_100 {
        let frames = conversation(port, 1);
        for _ in 0..5 {
            show(&mut tracer, Side::Client, &mut now, &frames[..1], |_, _| true);
        }
    }
    assert_eq!(tracer.unseen().count(), 0);
    // An upload of which the other side is seen late.
    let frames = conversation(2_000, 40);
    show(&mut tracer, Side::Server, &mut now, &frames, |at, frame| {
        frame.toward == Toward::Client || at > 100
    });
    assert_eq!(tracer.unseen().count(), 0, "it was seen in the end");
    // Resets, which may acknowledge anything.
    for port in 3_000..3_100 {
        let mut wire = Wire::open(port, 1_000, 5_000);
        wire.send(Toward::Server, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
        wire.reset(Toward::Client);
        show(&mut tracer, Side::Server, &mut now, &wire.frames, |_, frame| frame.toward == Toward::Client);
    }
    assert_eq!(tracer.unseen().count(), 0);
}

/// A damaged capture may claim any time.
#[test]
fn packets_at_the_end_of_time_end_like_others() {
    let mut tracer = Tracer::new(Limits::default());
    for frame in &conversation(40_000, 2) {
        tracer.handle_packet(&Packet {
            time_ns: u64::MAX - 1_000,
            interface: 1,
            side: Side::Server,
            toward: frame.toward,
            protocol: Protocol::Http,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
        tracer.handle_timeout(u64::MAX - 1_000);
    }
    tracer.handle_timeout(u64::MAX);
    let outcomes: Vec<_> =
        std::iter::from_fn(|| tracer.poll_session()).map(|session| session.outcome).collect();
    assert_eq!(outcomes, [Outcome::Complete; 2]);
    assert_eq!(tracer.ledger().balance(), Ok(()));
}
