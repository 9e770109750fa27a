//! Sessions depend on packets alone: however often the tracer is told the time between them, and whether its clock counts
//! from the machine's start or from the Unix epoch, they are the same and come in the same order. So what was
//! traced live comes back from a capture.

mod wire;

use std::sync::Arc;

use clovisor_trace::{
    Ledger, Limits, Loss, OtherSide, Packet, Protocol, Resource, Session, Side, Span, SpanBuilder, Toward,
    Tracer,
};
use proptest::prelude::*;
use wire::{Frame, Wire};

const SECOND: u64 = 1_000_000_000;

/// Frames of several connections with times, some lost, some met in the middle, some late, with long silences: all timers fire.
fn network() -> impl Strategy<Value = Vec<(u64, u32, Frame)>> {
    let connection = (any::<u32>(), any::<u32>(), any::<bool>(), 1_usize..5, 0_usize..4, 20_usize..900);
    let gap = prop_oneof![
        6 => 0_u64..2_000_000,
        3 => 5_000_000_u64..40_000_000,
        2 => 90_000_000_u64..130_000_000,
        1 => 20 * SECOND..150 * SECOND,
        // Exactly at the limits.
        1 => Just(20_000_000), 1 => Just(100_000_000), 1 => Just(120 * SECOND), 1 => Just(30 * SECOND),
    ];
    let fate = prop_oneof![8 => Just(0_u8), 2 => Just(1), 1 => Just(2), 1 => Just(3)];
    let connections = prop::collection::vec(connection, 1..5);
    (connections, prop::collection::vec((gap, fate, any::<prop::sample::Index>()), 120)).prop_map(
        |(connections, steps)| {
            let mut queues: Vec<Vec<Frame>> = (40_000..)
                .zip(&connections)
                .map(|(port, connection)| talk(port, *connection))
                .map(|mut frames| {
                    frames.reverse();
                    frames
                })
                .collect();
            let (mut now, mut out) = (10 * SECOND, Vec::new());
            for (gap, fate, which) in steps {
                now += gap;
                let at = which.index(queues.len());
                let Some(frame) = queues[at].pop() else { continue };
                let interface = u32::try_from(at % 2).expect("small");
                match fate {
                    1 => {}
                    // Repeated, and a step back in time.
                    2 => out.extend([(now, interface, frame.clone()), (now - 1_000, interface, frame)]),
                    // After the next one.
                    3 => match queues[at].pop() {
                        Some(next) => out.extend([(now, interface, next), (now + 1, interface, frame)]),
                        None => out.push((now, interface, frame)),
                    },
                    _ => out.push((now, interface, frame)),
                }
            }
            out
        },
    )
}

fn talk(port: u16, connection: (u32, u32, bool, usize, usize, usize)) -> Vec<Frame> {
    let (client, server, from_start, exchanges, ends, size) = connection;
    let mut wire =
        if from_start { Wire::open(port, client, server) } else { Wire::in_the_middle(port, client, server) };
    let mut sizes = std::iter::repeat(size);
    for exchange in 0..exchanges {
        let request = format!("GET /{port}/{exchange} HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(300));
        wire.send(Toward::Server, request.as_bytes(), &mut sizes);
        wire.ack(Toward::Client);
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "b".repeat(1_000));
        wire.send(Toward::Client, response.as_bytes(), &mut sizes);
        wire.ack(Toward::Server);
    }
    match ends {
        0 => wire.reset(Toward::Server),
        1 => {
            wire.fin(Toward::Client);
            wire.fin(Toward::Server);
            wire.ack(Toward::Client);
        }
        2 => wire.send(Toward::Server, b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n", &mut sizes),
        _ => {}
    }
    wire.frames
}

/// Traces, told the time at `ticks` (nanoseconds apart from each other) as well, with a clock that is so far ahead.
fn trace(network: &[(u64, u32, Frame)], ticks: u64, ahead: u64, limits: &Limits) -> (Vec<Session>, Ledger) {
    let mut tracer = Tracer::new(limits.clone());
    let (mut sessions, mut clock, mut last) = (Vec::new(), 0, 0);
    for (at, (time_ns, interface, frame)) in network.iter().enumerate() {
        if at % 10 == 5 {
            // Live, losses are learned of before the packets that came meanwhile.
            let (from_ns, until_ns) = (last + ahead + 10_000_000, last + ahead + 50_000_000);
            tracer.handle_loss(&Loss { interface: Some(*interface), from_ns, until_ns, packets: 1 });
        }
        // As live: never past a packet that is still to come.
        while ticks > 0 && clock + ticks <= *time_ns {
            // Over a long silence a few looks do.
            clock = if time_ns - clock > 1_000 * ticks { *time_ns - 1_000 * ticks } else { clock + ticks };
            tracer.handle_timeout(clock + ahead);
        }
        last = last.max(*time_ns);
        tracer.handle_packet(&Packet {
            time_ns: time_ns + ahead,
            interface: *interface,
            side: Side::Server,
            toward: frame.toward,
            protocol: Protocol::Http,
            wire_len: frame.wire_len,
            data: &frame.data,
        });
        sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    }
    tracer.finish(last + ahead);
    sessions.extend(std::iter::from_fn(|| tracer.poll_session()));
    assert_eq!(tracer.ledger().balance(), Ok(()));
    (sessions, tracer.ledger().clone())
}

/// The same as spans, with times since the Unix epoch: live the clock counts from the machine's start, in a file
/// from the epoch.
fn spans(network: &[(u64, u32, Frame)], ticks: u64, in_file: bool, limits: &Limits) -> (Vec<Span>, Ledger) {
    const EPOCH: u64 = 1_700_000_000 * SECOND;
    let (ahead, epoch_ns) = if in_file { (EPOCH, 0) } else { (0, EPOCH) };
    let (sessions, ledger) = trace(network, ticks, ahead, limits);
    let resource = Arc::new(Resource::service("any"));
    let span = |session| SpanBuilder::default().span(session, epoch_ns, &resource, OtherSide::Traced);
    (sessions.iter().map(span).collect(), ledger)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looking_at_the_clock_changes_nothing(network in network(), ticks in 1_000_000_u64..60_000_000) {
        // Few flows and little memory, too, so that what makes room depends on what has ended.
        for limits in [Limits::default(), Limits { flows: 2, memory: 8_000, stream: 2_000, ..Limits::default() }] {
            let expected = spans(&network, 0, true, &limits);
            prop_assert_eq!(&spans(&network, ticks, false, &limits), &expected);
            prop_assert_eq!(&spans(&network, 5_000_000, true, &limits), &expected);
        }
    }
}

/// A silent flow is given up at its own time, however late somebody looks.
#[test]
fn a_timer_between_two_packets_fires_before_the_second() {
    let mut wire = Wire::open(40_000, 1, 2);
    wire.send(Toward::Server, b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n", &mut wire::whole());
    let asked = wire.frames.len();
    wire.send(Toward::Client, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &mut wire::whole());
    let times = |at: usize| if at < asked { SECOND } else { 122 * SECOND };
    let network: Vec<_> = (0..).zip(wire.frames).map(|(at, frame)| (times(at), 0, frame)).collect();
    let (sessions, ledger) = trace(&network, 0, 0, &Limits::default());
    assert_eq!(wire::lines(&sessions)[0], "GET /slow -> ? timeout 31/0");
    assert_eq!(ledger.flows_idle, 1);
}
