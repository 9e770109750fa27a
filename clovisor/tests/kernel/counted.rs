//! Packets that say nothing but that a stream goes on are only counted, and what was counted is told before anything else.

use std::net::SocketAddr;

use clovisor::datapath::packets::record;
use clovisor::datapath::spared::Spared;
use clovisor_common::{Verdict, direction, name};
use clovisor_trace::{Counted, Way, Wish};

use crate::buffers::test;
use crate::frames::{TCP, ethernet, ipv4, segment};
use crate::programs::Bench;
use crate::unneeded::{CLIENT, SERVER, connection};

const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// A segment of the client or the server.
#[derive(Clone, Copy)]
struct Sent {
    from_client: bool,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    len: usize,
}

const fn client(seq: u32, ack: u32, len: usize) -> Sent {
    Sent { from_client: true, seq, ack, flags: ACK, window: 100, len }
}

const fn server(seq: u32, ack: u32, len: usize) -> Sent {
    Sent { from_client: false, ..client(seq, ack, len) }
}

/// What nobody needs once both heads have come: all of a body of the server.
const BODY: [(u32, u32); 2] = [(151, 151), (600, 5_000)];

/// A connection of which bytes are spared.
struct Talk {
    bench: Bench,
    spared: Spared,
}

impl Talk {
    /// It is open: the client's next byte is 101, the server's 501.
    fn new() -> Self {
        let mut talk = Self { bench: Bench::new(), spared: Spared::default() };
        talk.open();
        talk
    }

    fn open(&mut self) {
        for sent in [
            Sent { flags: SYN, ..client(100, 0, 0) },
            Sent { flags: SYN_ACK, ..server(500, 101, 0) },
            client(101, 501, 0),
        ] {
            assert_eq!(self.send(sent).0, Verdict::Emitted);
        }
    }

    /// A request, and the beginning of a response of which nobody needs the bytes from 600 up to 5,000.
    fn begin(&mut self) {
        self.heads();
        self.spare(BODY);
        for (sent, verdict) in [
            (client(151, 600, 0), Verdict::Emitted),
            (server(600, 151, 1_000), Verdict::EmittedTrimmed),
            (client(151, 1_600, 0), Verdict::Emitted),
        ] {
            assert_eq!(self.send(sent).0, verdict);
        }
    }

    fn heads(&mut self) {
        for sent in [client(101, 501, 50), server(501, 151, 99)] {
            assert_eq!(self.send(sent).0, Verdict::Emitted);
        }
    }

    /// It is told twice: the first time gives the connection its slot, and no packet is counted before the second.
    fn spare(&mut self, bytes: [(u32, u32); 2]) {
        self.tell(bytes);
        self.tell(bytes);
    }

    fn tell(&mut self, bytes: [(u32, u32); 2]) {
        let wish = connection(Wish::Spare { bytes, counts: true });
        assert_eq!(self.spared.spare(&mut self.bench.kernel, &wish, bytes, true).unwrap(), None);
    }

    /// Sends it; its verdict, and what was told before it.
    fn send(&mut self, sent: Sent) -> (Verdict, Option<Counted>) {
        let mut tcp = segment(sent.from_client, sent.seq, sent.flags, &vec![b'x'; sent.len]);
        tcp[8..12].copy_from_slice(&sent.ack.to_be_bytes());
        tcp[14..16].copy_from_slice(&sent.window.to_be_bytes());
        let mut ip = ipv4(TCP, &[], 1, 0, &tcp);
        if !sent.from_client {
            let (source, destination) = ip[12..20].split_at_mut(4);
            source.swap_with_slice(destination);
        }
        let program = if sent.from_client { name::EGRESS_PROGRAM } else { name::INGRESS };
        let (verdict, mut events) = self.bench.run(program, &ethernet(0x0800, &ip));
        let mut told = None;
        if events.first().is_some_and(|(header, _)| header.direction == direction::COUNTED) {
            told = self.spared.told(&record::tale(&events.remove(0).1).unwrap());
        }
        assert_eq!(events.len(), usize::from(verdict != Verdict::Counted), "{events:?}");
        assert!(events.iter().all(|(header, _)| header.direction != direction::COUNTED));
        (verdict, told)
    }
}

/// Packets with and without payload of the client and the server, and the server's bytes.
type Said = ([(u32, u32); 2], (u32, u32));

/// What was told.
fn said(told: Option<Counted>) -> Option<Said> {
    told.map(|told| {
        assert_eq!((told.client, told.server), (SocketAddr::from(CLIENT), SocketAddr::from(SERVER)));
        (told.ways.map(|Way { full, empty, .. }| (full, empty)), told.ways[1].bytes)
    })
}

#[test]
fn packets_in_the_middle_of_a_body_are_only_counted() {
    test("packets_in_the_middle_of_a_body_are_only_counted", &[], |_| async {
        let mut talk = Talk::new();
        talk.begin();
        for sent in [
            server(1_600, 151, 1_000),
            client(151, 2_600, 0),
            Sent { flags: PSH_ACK, ..server(2_600, 151, 500) },
            client(151, 3_100, 0),
            client(151, 3_100, 0),
        ] {
            let (verdict, told) = talk.send(sent);
            assert_eq!((verdict, told), (Verdict::Counted, None));
        }
        // With the last byte something ends.
        assert_eq!(talk.send(server(3_100, 151, 1_000)).0, Verdict::Counted);
        let (verdict, told) = talk.send(server(4_100, 151, 900));
        assert_eq!(verdict, Verdict::EmittedTrimmed);
        assert_eq!(said(told), Some(([(0, 3), (3, 0)], (1_600, 4_100))));
        assert_eq!(talk.send(client(151, 4_100, 0)).0, Verdict::Counted);
        let (verdict, told) = talk.send(client(151, 5_000, 0));
        assert_eq!((verdict, said(told)), (Verdict::Emitted, Some(([(0, 1), (0, 0)], (5_000, 5_000)))));
        assert_eq!(talk.send(server(5_000, 151, 10)), (Verdict::Emitted, None));
    });
}

#[test]
fn none_is_counted_while_how_far_the_connection_had_come_may_be_forgotten() {
    test("none_is_counted_while_how_far_the_connection_had_come_may_be_forgotten", &[], |_| async {
        let mut talk = Talk::new();
        talk.heads();
        talk.tell(BODY);
        for seq in [600, 1_600] {
            assert_eq!(talk.send(server(seq, 151, 1_000)).0, Verdict::EmittedTrimmed);
            assert_eq!(talk.send(client(151, seq + 1_000, 0)).0, Verdict::Emitted);
        }
        talk.tell(BODY);
        assert_eq!(talk.send(server(2_600, 151, 1_000)).0, Verdict::Counted);
    });
}

#[test]
fn packets_that_say_more_are_handed_on() {
    test("packets_that_say_more_are_handed_on", &[], |_| async {
        let next = server(1_700, 151, 100);
        let more = [
            // Again, late, or ahead of what has come.
            server(1_600, 151, 100),
            server(600, 151, 100),
            server(1_701, 151, 100),
            server(1_700, 151, 3_301),
            // Flags that matter, and an end without room.
            Sent { flags: FIN_ACK, ..next },
            Sent { flags: RST, ..next },
            Sent { flags: SYN_ACK, ..next },
            Sent { flags: 0, ..next },
            Sent { window: 0, ..next },
            // It acknowledges something new of bytes that matter.
            server(1_700, 152, 100),
            // So does the client, or what has not come; and it asks.
            client(151, 5_000, 0),
            client(151, 1_701, 0),
            client(151, 1_700, 1),
            client(150, 1_700, 0),
            Sent { window: 0, ..client(151, 1_700, 0) },
        ];
        let mut talk = Talk { bench: Bench::new(), spared: Spared::default() };
        for sent in more {
            talk.open();
            talk.begin();
            assert_eq!(talk.send(server(1_600, 151, 100)).0, Verdict::Counted);
            let (verdict, told) = talk.send(sent);
            assert_ne!(verdict, Verdict::Counted, "{} {} {}", sent.seq, sent.ack, sent.flags);
            assert_eq!(said(told), Some(([(0, 0), (1, 0)], (1_600, 1_700))), "{} {}", sent.seq, sent.ack);
            talk.spared.forget(&mut talk.bench.kernel, &connection(Wish::Forget)).unwrap();
        }
    });
}

#[test]
fn nothing_is_counted_behind_what_is_missing_until_all_has_come() {
    test("nothing_is_counted_behind_what_is_missing_until_all_has_come", &[], |_| async {
        let mut talk = Talk::new();
        talk.begin();
        assert_eq!(talk.send(server(1_700, 151, 100)).0, Verdict::EmittedTrimmed);
        assert_eq!(talk.send(server(1_800, 151, 100)).0, Verdict::EmittedTrimmed);
        assert_eq!(talk.send(client(151, 1_600, 0)).0, Verdict::Emitted);
        assert_eq!(talk.send(server(1_600, 151, 100)).0, Verdict::EmittedTrimmed);
        assert_eq!(talk.send(server(1_900, 151, 100)).0, Verdict::EmittedTrimmed);
        talk.spare([(151, 151), (2_000, 5_000)]);
        assert_eq!(talk.send(server(2_000, 151, 100)).0, Verdict::Counted);
    });
}

#[test]
fn both_directions_are_counted_where_nobody_needs_either() {
    test("both_directions_are_counted_where_nobody_needs_either", &[], |_| async {
        let mut talk = Talk::new();
        for sent in [client(101, 501, 50), server(501, 151, 99)] {
            assert_eq!(talk.send(sent).0, Verdict::Emitted);
        }
        talk.spare([(151, 1 << 30), (600, 1 << 30)]);
        // The first of each direction shows where it stands.
        for sent in [client(151, 600, 50), server(600, 201, 100), client(201, 700, 50)] {
            assert_eq!(talk.send(sent).0, Verdict::EmittedTrimmed);
        }
        for at in 0..10 {
            assert_eq!(talk.send(server(700 + at, 251 + at, 1)).0, Verdict::Counted);
            assert_eq!(talk.send(client(251 + at, 701 + at, 1)).0, Verdict::Counted);
        }
        let rest = talk.spared.rest(&talk.bench.kernel, None).unwrap();
        assert_eq!(said(rest.first().copied()), Some(([(10, 0), (10, 0)], (700, 710))));
        assert_eq!(talk.spared.rest(&talk.bench.kernel, None).unwrap()[0].packets(), 0);
    });
}

#[test]
fn a_slot_that_another_has_now_is_not_taken_for_its_own() {
    test("a_slot_that_another_has_now_is_not_taken_for_its_own", &[], |_| async {
        let mut talk = Talk::new();
        talk.begin();
        assert_eq!(talk.send(server(1_600, 151, 100)).0, Verdict::Counted);
        assert_eq!(talk.spared.untold(&talk.bench.kernel).unwrap(), 1);
        // Another connection on the same ports.
        talk.open();
        assert_eq!(talk.send(server(501, 101, 99)).0, Verdict::Emitted);
        let counted = talk.spared.forget(&mut talk.bench.kernel, &connection(Wish::Forget)).unwrap();
        // The SYN told it.
        assert!(counted.is_none_or(|counted| counted.packets() == 0));
        talk.open();
        talk.begin();
        assert_eq!(talk.send(server(1_600, 151, 100)).0, Verdict::Counted);
        assert_eq!(talk.spared.untold(&talk.bench.kernel).unwrap(), 1);
    });
}
