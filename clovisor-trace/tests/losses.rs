//! Packets that were lost on their way to the tracer: which sessions are marked.

mod wire;

use clovisor_trace::{Limits, Loss, Outcome, Packet, Protocol, Session, Side, Toward, Tracer};
use proptest::prelude::*;
use wire::{Frame, Wire, whole};

const MS: u64 = 1_000_000;

/// One exchange over a connection of its own: the frames up to the request, those of the response, those of the end.
struct Exchange {
    asked: Vec<Frame>,
    answered: Vec<Frame>,
    closed: Vec<Frame>,
}

fn exchange(port: u16) -> Exchange {
    let mut wire = Wire::open(port, 1_000, 5_000);
    wire.send(Toward::Server, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
    let asked = std::mem::take(&mut wire.frames);
    wire.send(Toward::Client, b"HTTP/1.1 204 No Content\r\n\r\n", &mut whole());
    let answered = std::mem::take(&mut wire.frames);
    wire.fin(Toward::Client);
    wire.fin(Toward::Server);
    Exchange { asked, answered, closed: wire.frames }
}

struct World {
    tracer: Tracer,
    protocol: Protocol,
    sessions: Vec<Session>,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        Self { tracer: Tracer::new(Limits::default()), protocol, sessions: Vec::new() }
    }

    /// Hands in frames, all of one moment.
    fn give(&mut self, interface: u32, time_ns: u64, frames: &[Frame]) {
        for frame in frames {
            self.tracer.handle_packet(&Packet {
                time_ns,
                interface,
                side: Side::Server,
                toward: frame.toward,
                protocol: self.protocol,
                wire_len: frame.wire_len,
                data: &frame.data,
            });
            self.check();
        }
    }

    fn lose(&mut self, interface: Option<u32>, from_ns: u64, until_ns: u64) {
        self.tracer.handle_loss(&Loss { interface, from_ns, until_ns, packets: 3 });
        self.check();
    }

    fn timeout(&mut self, now_ns: u64) {
        self.tracer.handle_timeout(now_ns);
        self.check();
    }

    fn check(&mut self) {
        self.sessions.extend(std::iter::from_fn(|| self.tracer.poll_session()));
        let ledger = self.tracer.ledger();
        assert_eq!(ledger.balance(), Ok(()));
        let marked = self.sessions.iter().filter(|session| session.overlaps_loss).count();
        assert_eq!(ledger.sessions_overlapping_loss, marked as u64);
    }

    /// Whether the only session so far is marked, and how it ended.
    fn only(&self) -> (bool, Outcome) {
        let [session] = &self.sessions[..] else { panic!("not one session: {:?}", self.sessions) };
        (session.overlaps_loss, session.outcome)
    }
}

/// A request at 100 ms and its response at 200 ms, with a loss that is told before anything after it.
fn around(interface: Option<u32>, from_ms: u64, until_ms: u64) -> bool {
    let Exchange { asked, answered, closed } = exchange(40_000);
    let mut world = World::new(Protocol::Http);
    let steps: [(u64, &[Frame]); 3] = [(100, &asked), (200, &answered), (300, &closed)];
    let mut told = false;
    for (at_ms, frames) in steps {
        if !told && until_ms < at_ms {
            world.lose(interface, from_ms * MS, until_ms * MS);
            told = true;
        }
        world.give(7, at_ms * MS, frames);
    }
    if !told {
        world.lose(interface, from_ms * MS, until_ms * MS);
    }
    let (marked, outcome) = world.only();
    assert_eq!(outcome, Outcome::Complete);
    marked
}

#[test]
fn a_session_seen_whole_is_marked_if_a_loss_overlaps_it() {
    for (interface, from_ms, until_ms, marked) in [
        (Some(7), 50, 99, false),
        (Some(7), 50, 100, true),
        (Some(7), 120, 130, true),
        (Some(7), 50, 400, false),
        (Some(7), 50, 199, true),
        (Some(7), 201, 250, false),
        (Some(8), 120, 130, false),
        (None, 120, 130, true),
        (None, 50, 99, false),
    ] {
        // Until 400: told when the session had ended and was fetched, which is too late by the contract.
        assert_eq!(around(interface, from_ms, until_ms), marked, "{interface:?} {from_ms} to {until_ms}");
    }
}

#[test]
fn only_sessions_of_that_time_are_marked() {
    let mut world = World::new(Protocol::Http);
    let mut wire = Wire::open(40_000, 1_000, 5_000);
    for number in 0..5 {
        wire.send(Toward::Server, b"GET / HTTP/1.1\r\n\r\n", &mut whole());
        wire.send(Toward::Client, b"HTTP/1.1 204 No Content\r\n\r\n", &mut whole());
        world.give(7, (100 + number) * MS, &std::mem::take(&mut wire.frames));
        if number == 1 {
            // As live: it is known before anything younger is handed in.
            world.lose(Some(7), 101 * MS + 500_000, 102 * MS);
        }
    }
    let marked: Vec<_> = world.sessions.iter().map(|session| session.overlaps_loss).collect();
    assert_eq!(marked, [false, false, true, false, false]);
}

#[test]
fn what_was_not_seen_to_its_end_may_have_lost_the_rest() {
    // The response was lost: that came after the last byte that was seen.
    for (loss_ms, by_timeout, marked) in
        [(150, true, true), (150, false, true), (99, true, false), (90_000, true, true)]
    {
        let Exchange { asked, closed, .. } = exchange(40_000);
        let mut world = World::new(Protocol::Http);
        if loss_ms < 100 {
            world.lose(Some(7), loss_ms * MS, loss_ms * MS);
        }
        world.give(7, 100 * MS, &asked);
        if loss_ms >= 100 {
            world.lose(Some(7), loss_ms * MS, loss_ms * MS);
        }
        let outcome = if by_timeout {
            world.timeout(120_200 * MS);
            Outcome::Timeout
        } else {
            world.give(7, 300 * MS, &closed);
            world.tracer.finish(400 * MS);
            world.check();
            world.sessions[0].outcome
        };
        assert_eq!(world.sessions.len(), 1);
        assert_eq!(world.only(), (marked, outcome), "lost at {loss_ms} ms");
        assert_ne!(outcome, Outcome::Complete);
    }
}

#[test]
fn what_ends_because_tracing_ends_is_marked_and_the_number_starts_anew() {
    let Exchange { asked, answered, closed } = exchange(40_000);
    let mut world = World::new(Protocol::Http);
    for interface in [7, 8] {
        world.give(interface, 100 * MS, &asked);
    }
    world.lose(Some(7), 120 * MS, 130 * MS);
    world.tracer.finish_interface(7, 200 * MS);
    world.check();
    assert_eq!(world.only(), (true, Outcome::ResponseUnobserved));
    world.tracer.finish(200 * MS);
    world.check();
    assert_eq!(world.sessions.iter().filter(|session| session.overlaps_loss).count(), 1);
    // Another interface gets the number; its packets carry times that overlap, as in no real life.
    world.sessions.clear();
    let mut again = World { tracer: world.tracer, protocol: Protocol::Http, sessions: Vec::new() };
    for (at_ms, frames) in [(110, &asked), (140, &answered), (150, &closed)] {
        for frame in frames {
            again.tracer.handle_packet(&Packet {
                time_ns: at_ms * MS,
                interface: 7,
                side: Side::Server,
                toward: frame.toward,
                protocol: Protocol::Http,
                wire_len: frame.wire_len,
                data: &frame.data,
            });
        }
    }
    let session = again.tracer.poll_session().expect("a session");
    assert_eq!((session.outcome, session.overlaps_loss), (Outcome::Complete, false));
}

#[test]
fn a_response_whose_request_was_lost_is_marked() {
    for (loss_ms, marked) in [(150, true), (130_000, true), (5, false)] {
        let Exchange { answered, closed, .. } = exchange(40_000);
        let mut world = World::new(Protocol::Http);
        world.lose(Some(7), loss_ms * MS, loss_ms * MS);
        // Two minutes are what a connection is waited for.
        let at_ms = if loss_ms == 130_000 { 130_100 } else { 120_100 };
        world.give(7, at_ms * MS, &answered);
        world.give(7, (at_ms + 100) * MS, &closed);
        world.tracer.finish((at_ms + 200) * MS);
        world.check();
        assert_eq!(world.only(), (marked, Outcome::RequestUnobserved), "lost at {loss_ms} ms");
    }
}

#[test]
fn a_connection_longer_than_anything_is_remembered_is_marked() {
    let Exchange { asked, answered, closed } = exchange(40_000);
    let (early, late) = (exchange(40_001), exchange(40_002));
    let mut world = World::new(Protocol::Tcp);
    world.give(7, 100 * MS, &asked);
    world.give(7, 105 * MS, &[early.asked, early.answered, early.closed].concat());
    // Bursts a second apart, more than are told apart, while the connection goes on.
    for second in 1..=1_000 {
        world.lose(Some(7), second * 1_000 * MS, second * 1_000 * MS + 10 * MS);
        world.give(7, (second * 1_000 + 500) * MS, &answered);
    }
    world.give(7, 1_001_000 * MS, &closed);
    // Between the last two bursts' end and the end of it all.
    world.give(7, 1_001_001 * MS, &[late.asked, late.answered, late.closed].concat());
    let marked: Vec<_> = world.sessions.iter().map(|session| session.overlaps_loss).collect();
    assert_eq!(marked, [false, true, false]);
}

proptest! {
    /// Whatever part of an exchange is lost: all that is told of its connection is marked, and nothing of another interface.
    #[test]
    fn no_session_hides_that_bytes_of_it_were_lost(
        sizes in prop::collection::vec(1_usize..40, 1..8),
        lost in prop::collection::vec(any::<bool>(), 40),
        silent in any::<bool>(),
    ) {
        let mut wire = Wire::open(40_000, 1_000, 5_000);
        let mut pieces = sizes.into_iter().cycle();
        wire.send(Toward::Server, b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", &mut pieces);
        wire.ack(Toward::Client);
        wire.send(Toward::Client, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld", &mut pieces);
        wire.ack(Toward::Server);
        if !silent {
            wire.fin(Toward::Client);
            wire.fin(Toward::Server);
        }
        let empty = 20 + 20;
        let mut world = World::new(Protocol::Http);
        let mut lost = lost.into_iter().cycle();
        let mut any_lost = false;
        for (frame, at) in wire.frames.iter().zip(1_000..) {
            world.give(8, at * MS, std::slice::from_ref(frame));
            if frame.data.len() > empty && lost.next() == Some(true) {
                any_lost = true;
                world.lose(Some(7), at * MS, at * MS);
            } else {
                world.give(7, at * MS, std::slice::from_ref(frame));
            }
        }
        world.timeout(3_000 * MS);
        world.timeout(200_000 * MS);
        world.tracer.finish(200_000 * MS);
        world.check();
        for session in &world.sessions {
            prop_assert_eq!(session.overlaps_loss, any_lost && session.interface == 7, "{:?}", session);
        }
    }
}
