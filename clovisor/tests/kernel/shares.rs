//! Shares of interfaces in the kernel side: of the buffer, and of connections, which are left out whole.

use std::net::SocketAddr;

use clovisor::datapath::attach::Way;
use clovisor::datapath::packets::{DEFAULT_BUFFER, Transport};
use clovisor::datapath::shares::LeftOut;
use clovisor_common::{ShedValue, Verdict, name, protocol};
use clovisor_trace::{ALL_LOTS, Shed, Side};

use crate::buffers::test;
use crate::frames::{CLIENT_PORT, SERVER_PORT, TCP, ethernet, ipv4, segment};
use crate::losses::{SECOND, second};
use crate::programs::{Bench, LOOPBACK};
use crate::traffic::{Traced, upload};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;
/// As the frames have them.
const CLIENT: ([u8; 4], u16) = ([10, 77, 0, 2], CLIENT_PORT);
const SERVER: ([u8; 4], u16) = ([10, 77, 0, 1], SERVER_PORT);

/// Sends a segment of the client or the server; its verdict.
fn send(bench: &mut Bench, from_client: bool, seq: u32, flags: u8, payload: &[u8]) -> Verdict {
    let ip = ipv4(TCP, &[], 1, 0, &segment(from_client, seq, flags, payload));
    let ip = if from_client { ip } else { turned(ip) };
    let program = if from_client { name::EGRESS_PROGRAM } else { name::INGRESS };
    bench.run(program, &ethernet(0x0800, &ip)).0
}

/// The same with its addresses changed over; nothing here looks at the checksum.
fn turned(mut ip: Vec<u8>) -> Vec<u8> {
    let (source, destination) = ip[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    ip
}

/// A request and its response; their verdicts.
fn exchange(bench: &mut Bench) -> [Verdict; 4] {
    [
        send(bench, true, 101, PSH_ACK, b"GET"),
        send(bench, false, 501, ACK, b""),
        send(bench, false, 501, PSH_ACK, b"200"),
        send(bench, true, 104, ACK, b""),
    ]
}

fn noted(bench: &Bench) -> ShedValue {
    bench.kernel.shed().unwrap().get(&Some(LOOPBACK)).copied().unwrap_or_default()
}

#[test]
fn a_new_connection_is_left_out_from_its_first_packet_on() {
    test("a_new_connection_is_left_out_from_its_first_packet_on", &[], |_| async {
        let mut bench = Bench::new();
        bench.kernel.set_share(LOOPBACK, Some(0)).unwrap();
        assert_eq!(send(&mut bench, true, 100, SYN, b""), Verdict::Shed);
        assert_eq!(send(&mut bench, false, 500, SYN_ACK, b""), Verdict::Shed);
        assert_eq!(exchange(&mut bench), [Verdict::Shed; 4]);
        assert_eq!(noted(&bench), ShedValue { packets: 6, sessions: 1 });
        // Its share is back in the middle of a session: the rest of that stays out.
        assert_eq!(send(&mut bench, true, 104, PSH_ACK, b"GET"), Verdict::Shed);
        bench.kernel.set_share(LOOPBACK, None).unwrap();
        assert_eq!(send(&mut bench, true, 107, PSH_ACK, b"more of it"), Verdict::Shed);
        assert_eq!(send(&mut bench, false, 504, PSH_ACK, b"200"), Verdict::Shed);
        assert_eq!(noted(&bench), ShedValue { packets: 9, sessions: 2 });
        assert_eq!(exchange(&mut bench), [Verdict::Emitted; 4]);
        assert_eq!(noted(&bench).packets, 9);
    });
}

#[test]
fn a_connection_that_is_traced_stays_so_until_the_agent_leaves_it_out() {
    test("a_connection_that_is_traced_stays_so_until_the_agent_leaves_it_out", &[], |_| async {
        let mut bench = Bench::new();
        assert_eq!(send(&mut bench, true, 100, SYN, b""), Verdict::Emitted);
        bench.kernel.set_share(LOOPBACK, Some(0)).unwrap();
        // A repetition, and not another connection.
        assert_eq!(send(&mut bench, true, 100, SYN, b""), Verdict::Emitted);
        assert_eq!(send(&mut bench, false, 500, SYN_ACK, b""), Verdict::Emitted);
        assert_eq!(exchange(&mut bench), [Verdict::Emitted; 4]);
        let [client, server] = [CLIENT, SERVER].map(SocketAddr::from);
        let shed = |lot| Shed { interface: LOOPBACK, side: Side::Server, client, server, lot };
        bench.kernel.leave_out(&shed(1_000)).unwrap();
        assert_eq!(exchange(&mut bench), [Verdict::Shed; 4]);
        // A share up to its lot is not above it.
        bench.kernel.set_share(LOOPBACK, Some(1_000)).unwrap();
        assert_eq!(exchange(&mut bench), [Verdict::Shed; 4]);
        bench.kernel.set_share(LOOPBACK, Some(1_001)).unwrap();
        assert_eq!(exchange(&mut bench), [Verdict::Emitted; 4]);
        // One that the kernel side has never seen.
        let other = Shed { client: SocketAddr::from((CLIENT.0, 1)), ..shed(ALL_LOTS - 1) };
        bench.kernel.leave_out(&other).unwrap();
        assert_eq!(bench.kernel.session_count().unwrap(), 2);
        // Another connection on the same ports.
        bench.kernel.set_share(LOOPBACK, Some(0)).unwrap();
        assert_eq!(send(&mut bench, true, 7_000, SYN, b""), Verdict::Shed);
    });
}

#[test]
fn connections_are_left_out_by_lot() {
    test("connections_are_left_out_by_lot", &[], |_| async {
        let mut bench = Bench::new();
        bench.kernel.set_share(LOOPBACK, Some(ALL_LOTS / 4)).unwrap();
        // The tracer draws the same lots.
        let mut traced = 0;
        for port in 1..=2_000_u16 {
            let mut segment = segment(true, 100, SYN, b"");
            segment[..2].copy_from_slice(&port.to_be_bytes());
            let packet = ipv4(TCP, &[], 1, 0, &segment);
            let (verdict, events) = bench.run(name::EGRESS_PROGRAM, &ethernet(0x0800, &packet));
            let client = SocketAddr::from((CLIENT.0, port));
            let is_within = Shed::lot_of(client) < ALL_LOTS / 4;
            assert_eq!(verdict, if is_within { Verdict::Emitted } else { Verdict::Shed }, "{port}");
            assert_eq!(events.len(), usize::from(is_within));
            traced += usize::from(is_within);
        }
        // 500 are expected, and seven times the deviation of 19.4 is never seen.
        assert!((364..=636).contains(&traced), "{traced}");
    });
}

#[test]
fn a_connection_without_a_parser_stays_out() {
    test("a_connection_without_a_parser_stays_out", &[], |_| async {
        let mut bench = Bench::new();
        let ports = [(SERVER_PORT, protocol::TCP)].into();
        let rules = clovisor::datapath::kernel::Rules { ports, ..Default::default() };
        bench.kernel.set_rules(LOOPBACK, &rules).unwrap();
        bench.kernel.set_share(LOOPBACK, Some(0)).unwrap();
        assert_eq!(send(&mut bench, true, 100, SYN, b""), Verdict::Shed);
        assert_eq!(send(&mut bench, true, 100, SYN, b""), Verdict::Shed);
        bench.kernel.set_share(LOOPBACK, None).unwrap();
        assert_eq!(exchange(&mut bench), [Verdict::Shed; 4]);
        assert_eq!(noted(&bench), ShedValue { packets: 6, sessions: 1 });
    });
}

#[test]
fn what_is_left_out_is_told_by_interface_and_forgotten_with_it() {
    test("what_is_left_out_is_told_by_interface_and_forgotten_with_it", &[], |_| async {
        let mut bench = Bench::new();
        let mut left_out = LeftOut::default();
        assert_eq!(left_out.look(&bench.kernel).unwrap(), []);
        bench.kernel.set_share(LOOPBACK, Some(0)).unwrap();
        for (round, packets) in [(1, 4), (2, 4)] {
            if round == 1 {
                send(&mut bench, true, 100, SYN, b"");
                left_out.look(&bench.kernel).unwrap();
            }
            exchange(&mut bench);
            assert_eq!(left_out.look(&bench.kernel).unwrap(), [(Some(LOOPBACK), packets)]);
        }
        left_out.forget(&mut bench.kernel, LOOPBACK).unwrap();
        assert_eq!(left_out.past(), ShedValue { packets: 9, sessions: 2 });
        assert_eq!(noted(&bench), ShedValue::default());
        // Its share is forgotten, too.
        assert_eq!(send(&mut bench, true, 9_000, SYN, b""), Verdict::Emitted);
    });
}

#[test]
fn an_interface_that_floods_leaves_room_for_the_others() {
    test("an_interface_that_floods_leaves_room_for_the_others", &[], |net| async move {
        let mut traced = Traced::new(4 * DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        let quiet = second(&net, &mut traced).await;
        // Perf buffers have no such rule.
        if traced.packets.transport() == Transport::Perf {
            return;
        }
        let lost_at = |traced: &Traced, id| {
            traced.kernel.losses().unwrap().get(&Some(id)).map_or(0, |lost| lost.packets)
        };
        for (sharers, expected) in [(2, true), (1, false)] {
            traced.kernel.set_sharers(sharers).unwrap();
            let [flooding, before] = [traced.interface.id, quiet.id].map(|id| lost_at(&traced, id));
            // Nobody reads meanwhile.
            upload(&net, crate::netns::POD_V4, 64 << 20);
            upload(&net, SECOND, 1 << 20);
            assert!(lost_at(&traced, traced.interface.id) > flooding);
            assert_eq!(lost_at(&traced, quiet.id) == before, expected, "{sharers}");
            // What was read has made room for all.
            traced.events();
        }
    });
}
