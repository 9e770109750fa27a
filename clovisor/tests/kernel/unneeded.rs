//! Bytes that nobody looks at are not copied, and all others are: each place that a packet can have to the window.

use std::net::SocketAddr;

use clovisor::datapath::spared::Spared;
use clovisor_common::{Verdict, name};
use clovisor_trace::{Side, Toward, Unneeded, Wish};

use crate::buffers::test;
use crate::frames::{CLIENT_PORT, SERVER_PORT, TCP, ethernet, ipv4, segment};
use crate::programs::{Bench, LOOPBACK};

const PSH_ACK: u8 = 0x18;
const SYN: u8 = 0x02;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 14 + 20 + 20;

/// What the client sends, whose address is the source in [`ipv4`].
pub(crate) const CLIENT: ([u8; 4], u16) = ([10, 77, 0, 2], CLIENT_PORT);
pub(crate) const SERVER: ([u8; 4], u16) = ([10, 77, 0, 1], SERVER_PORT);

/// The connection of the frames.
pub(crate) fn connection(wish: Wish) -> Unneeded {
    let (client, server) = (SocketAddr::from(CLIENT), SocketAddr::from(SERVER));
    Unneeded { interface: LOOPBACK, side: Side::Server, client, server, wish }
}

/// Tells that bytes of one direction are not needed.
fn spare(bench: &mut Bench, spared: &mut Spared, toward: Toward, from: u32, until: u32) {
    let mut bytes = [(0, 0); 2];
    bytes[toward as usize] = (from, until);
    let counted = spared
        .spare(&mut bench.kernel, &connection(Wish::Spare { bytes, counts: true }), bytes, true)
        .unwrap();
    assert!(counted.is_none_or(|counted| counted.packets() == 0));
}

/// Sends a segment of the client; how much of its payload was copied, if not all.
fn trimmed(bench: &mut Bench, seq: u32, flags: u8, len: usize) -> Option<usize> {
    let frame = ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &segment(true, seq, flags, &vec![b'x'; len])));
    let (verdict, events) = bench.run(name::EGRESS_PROGRAM, &frame);
    let [(header, packet)] = events.as_slice() else { panic!("{verdict:?} {events:?}") };
    assert_eq!(header.wire_len as usize, frame.len());
    assert_eq!(header.is_trimmed(), verdict == Verdict::EmittedTrimmed);
    assert_eq!(packet[..], frame[14..14 + packet.len()]);
    match verdict {
        Verdict::Emitted => assert_eq!(header.captured_len, header.wire_len),
        Verdict::EmittedTrimmed => return Some(header.captured_len as usize - HEADERS),
        other => panic!("{other:?}"),
    }
    None
}

#[test]
fn packets_within_the_window_come_without_payload() {
    test("packets_within_the_window_come_without_payload", &[], |_| async {
        let (mut bench, mut spared) = (Bench::new(), Spared::default());
        // Not at the end of the sequence numbers, and over it.
        for from in [1_000, u32::MAX - 5_000] {
            let at = |offset: i32| from.wrapping_add_signed(offset);
            assert_eq!(trimmed(&mut bench, at(-1_000), SYN, 0), None);
            spare(&mut bench, &mut spared, Toward::Server, from, at(1_000));
            for (offset, flags, len, expected) in [
                (0, PSH_ACK, 1_000, Some(0)),
                (900, PSH_ACK, 100, Some(0)),
                (400, FIN_ACK, 10, Some(0)),
                (400, RST, 10, Some(0)),
                // Half before it, half behind it, on both sides of it.
                (-1, PSH_ACK, 100, None),
                (999, PSH_ACK, 2, None),
                (-1, PSH_ACK, 1_002, None),
                // A repetition of what came before it leaves it as it is.
                (-500, PSH_ACK, 500, None),
                // Nothing to leave out.
                (500, PSH_ACK, 0, None),
                (2_000, PSH_ACK, 0, None),
                (0, PSH_ACK, 1, Some(0)),
            ] {
                assert_eq!(trimmed(&mut bench, at(offset), flags, len), expected, "{offset} {len}");
            }
        }
    });
}

#[test]
fn a_window_ends_with_what_comes_behind_it() {
    test("a_window_ends_with_what_comes_behind_it", &[], |_| async {
        let (mut bench, mut spared) = (Bench::new(), Spared::default());
        for ends in [(10_000, PSH_ACK, 1), (2_000_000_000, PSH_ACK, 1), (77, SYN, 0)] {
            let (seq, flags, len) = ends;
            assert_eq!(trimmed(&mut bench, 0, SYN, 0), None);
            spare(&mut bench, &mut spared, Toward::Server, 1, 10_000);
            assert_eq!(trimmed(&mut bench, 1, PSH_ACK, 100), Some(0));
            assert_eq!(trimmed(&mut bench, seq, flags, len), None, "{ends:?}");
            assert_eq!(trimmed(&mut bench, 1, PSH_ACK, 100), None, "{ends:?}");
        }
        spare(&mut bench, &mut spared, Toward::Server, 1, 10_000);
        spare(&mut bench, &mut spared, Toward::Server, 5, 5);
        assert_eq!(trimmed(&mut bench, 5, PSH_ACK, 100), None, "taken back");
        spare(&mut bench, &mut spared, Toward::Server, 1, 10_000);
        spared.forget(&mut bench.kernel, &connection(Wish::Forget)).unwrap();
        assert_eq!(trimmed(&mut bench, 5, PSH_ACK, 100), None, "forgotten");
    });
}

#[test]
fn a_window_is_of_one_direction_of_one_connection() {
    test("a_window_is_of_one_direction_of_one_connection", &[], |_| async {
        let (mut bench, mut spared) = (Bench::new(), Spared::default());
        // No packet has come yet, so nobody knows the connection.
        spare(&mut bench, &mut spared, Toward::Server, 1, 10_000);
        assert_eq!(trimmed(&mut bench, 0, SYN, 0), None);
        spare(&mut bench, &mut spared, Toward::Client, 1, 10_000);
        assert_eq!(trimmed(&mut bench, 1, PSH_ACK, 100), None, "told of the server");
        spare(&mut bench, &mut spared, Toward::Server, 1, 10_000);
        assert_eq!(trimmed(&mut bench, 1, PSH_ACK, 100), Some(0));
        // The first fragment says nothing of how much follows.
        let part = segment(true, 1, PSH_ACK, &[b'x'; 44]);
        let frame = ethernet(0x0800, &ipv4(TCP, &[], 2, 0x2000, &part));
        assert_eq!(bench.run(name::EGRESS_PROGRAM, &frame).0, Verdict::Emitted);
    });
}
