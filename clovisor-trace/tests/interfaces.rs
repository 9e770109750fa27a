//! Tracing of one interface ends while others go on.

mod wire;

use clovisor_trace::{Limits, Outcome, Packet, Protocol, Side, Toward, Tracer};
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
