//! The programs alone, by BPF_PROG_TEST_RUN: which verdict for which frame, what is emitted, and that every
//! path lets the chain go on with the packet unchanged.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use aya::programs::{ProgramError, TestRun as _, TestRunOptions};
use clovisor::datapath::kernel::{Kernel, Rules};
use clovisor::datapath::packets::{Packets, SMALLEST_BUFFER};
use clovisor_common::{EventHeader, SessionKey, Verdict, direction, name, protocol, side};

use crate::buffers::{buffers, test};
use crate::frames::{
    CLIENT_PORT, Random, SERVER_PORT, TCP, UDP, ethernet, extension, fragment, garbage, ipv4, ipv6, tagged,
    tcp, tcp_between,
};

/// BPF_PROG_TEST_RUN gives the packet the loopback interface.
pub(crate) const LOOPBACK: u32 = 1;
/// What the kernel reads as -1: go on with the chain.
const GO_ON: u32 = u32::MAX;

/// What was emitted: header and packet.
pub(crate) type Events = Vec<(EventHeader, Vec<u8>)>;

pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    packets: Packets,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let packets = kernel.packets().unwrap();
        let ports = BTreeMap::from([(SERVER_PORT, protocol::HTTP)]);
        kernel.set_rules(LOOPBACK, &Rules { ports, egress: BTreeMap::new() }).unwrap();
        Self { kernel, packets }
    }

    /// Sends a frame through a program; returns its verdict and what was emitted.
    pub(crate) fn run(&mut self, program: &'static str, frame: &[u8]) -> (Verdict, Events) {
        self.try_run(program, frame).expect("the kernel refuses to run a program on this frame")
    }

    /// The same; `None` where the kernel does not run a program on such a frame: BPF_PROG_TEST_RUN refuses
    /// those shorter than the IP header that their EtherType promises. Real traffic has them all the same.
    fn try_run(&mut self, program: &'static str, frame: &[u8]) -> Option<(Verdict, Events)> {
        let before = self.kernel.verdicts().unwrap();
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let result = match self.kernel.program(program).unwrap().test_run(options) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::libc::EINVAL) =>
            {
                return None;
            }
            other => other.unwrap(),
        };
        assert_eq!(result.return_value, GO_ON, "{frame:02x?}");
        assert_eq!(&out[..result.data_size_out as usize], frame, "the packet was changed");

        let after = self.kernel.verdicts().unwrap();
        assert_eq!(after.total(), before.total() + 1, "not counted exactly once: {frame:02x?}");
        let direction = if program == name::INGRESS { direction::FROM_POD } else { direction::TO_POD };
        let changed = |verdict: &Verdict| after.get(*verdict, direction) != before.get(*verdict, direction);
        let verdict = Verdict::ALL.into_iter().find(changed).unwrap();
        let mut emitted = Vec::new();
        self.packets.flush(&mut |header, packet| emitted.push((*header, packet.to_vec())));
        Some((verdict, emitted))
    }
}

#[test]
fn each_shape_of_packet_gets_its_verdict() {
    use Verdict::{Emitted, Malformed, NotIp, NotSelected, NotTcp};
    let segment = tcp(b"GET / HTTP/1.1\r\n\r\n");
    let v4 = ipv4(TCP, &[], 1, 0, &segment);
    let v6 = ipv6(TCP, &segment);
    let short_tcp_header = [&tcp(b"")[..12], &[0x40], &tcp(b"")[13..]].concat();
    let long_tcp_header = [&tcp(b"")[..12], &[0xf0], &tcp(b"")[13..]].concat();
    let chain = |count: usize| {
        let inner = (0..count).fold(segment.clone(), |payload, depth| {
            extension(if depth == 0 { TCP } else { 60 }, 0, 8, &payload)
        });
        ethernet(0x86dd, &ipv6(60, &inner))
    };
    let cases: Vec<(&str, Vec<u8>, Verdict, u8)> = vec![
        ("IPv4", ethernet(0x0800, &v4), Emitted, 14),
        ("IPv4, 8 bytes of options", ethernet(0x0800, &ipv4(TCP, &[1; 8], 1, 0, &segment)), Emitted, 14),
        ("IPv4, 40 bytes of options", ethernet(0x0800, &ipv4(TCP, &[1; 40], 1, 0, &segment)), Emitted, 14),
        ("IPv4, padded", [ethernet(0x0800, &v4), vec![0; 9]].concat(), Emitted, 14),
        ("IPv4 in 802.1Q", ethernet(0x8100, &tagged(0x0800, &v4)), Emitted, 18),
        ("IPv4 in 802.1ad", ethernet(0x88a8, &tagged(0x0800, &v4)), Emitted, 18),
        ("IPv6 in 802.1Q", ethernet(0x8100, &tagged(0x86dd, &v6)), Emitted, 18),
        ("two tags", ethernet(0x88a8, &tagged(0x8100, &tagged(0x0800, &v4))), NotIp, 0),
        ("IPv6", ethernet(0x86dd, &v6), Emitted, 14),
        ("hop-by-hop", ethernet(0x86dd, &ipv6(0, &extension(TCP, 0, 8, &segment))), Emitted, 14),
        ("routing", ethernet(0x86dd, &ipv6(43, &extension(TCP, 2, 24, &segment))), Emitted, 14),
        ("authentication", ethernet(0x86dd, &ipv6(51, &extension(TCP, 4, 24, &segment))), Emitted, 14),
        ("atomic fragment", ethernet(0x86dd, &ipv6(44, &fragment(TCP, 0, 9, &segment))), Emitted, 14),
        ("7 extension headers", chain(7), Emitted, 14),
        ("9 extension headers", chain(9), Malformed, 0),
        ("ARP", ethernet(0x0806, &[0; 28]), NotIp, 0),
        ("UDP over IPv4", ethernet(0x0800, &ipv4(UDP, &[], 1, 0, &segment)), NotTcp, 0),
        ("UDP over IPv6", ethernet(0x86dd, &ipv6(UDP, &segment)), NotTcp, 0),
        ("ESP over IPv6", ethernet(0x86dd, &ipv6(50, &segment)), NotTcp, 0),
        ("no next header", ethernet(0x86dd, &ipv6(59, &[])), NotTcp, 0),
        ("another port", ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &tcp_between(1, 2, b""))), NotSelected, 0),
        ("version 5", ethernet(0x0800, &[&[0x55][..], &v4[1..]].concat()), Malformed, 0),
        ("header length 16", ethernet(0x0800, &[&[0x44][..], &v4[1..]].concat()), Malformed, 0),
        ("TCP header cut", ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &segment[..19])), Malformed, 0),
        ("TCP header of 16", ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &short_tcp_header)), Malformed, 0),
        ("TCP header beyond", ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &long_tcp_header)), Malformed, 0),
        ("extension cut", ethernet(0x86dd, &ipv6(0, &[TCP])), Malformed, 0),
        ("IPv4 header cut, in a tag", ethernet(0x8100, &tagged(0x0800, &v4[..19])), Malformed, 0),
        ("IPv6 header cut, in a tag", ethernet(0x8100, &tagged(0x86dd, &v6[..39])), Malformed, 0),
        ("a tag and nothing more", ethernet(0x8100, &[0, 5]), Malformed, 0),
    ];
    test("each_shape_of_packet_gets_its_verdict", &[], move |_| async move {
        let mut bench = Bench::new();
        for (what, frame, expected, link_len) in cases {
            let (verdict, emitted) = bench.run(name::EGRESS_PROGRAM, &frame);
            assert_eq!(verdict, expected, "{what}");
            if expected != Emitted {
                assert!(emitted.is_empty(), "{what}");
                continue;
            }
            let [(header, packet)] = emitted.as_slice() else { panic!("{what}: {emitted:?}") };
            assert_eq!(*packet, &frame[usize::from(link_len)..], "{what}");
            let len = u32::try_from(frame.len()).unwrap();
            let expected = EventHeader {
                time_ns: header.time_ns,
                interface: LOOPBACK,
                wire_len: len,
                captured_len: len,
                link_len,
                direction: direction::TO_POD,
                side: side::SERVER,
                protocol: protocol::HTTP,
            };
            assert_eq!(*header, expected, "{what}");
        }
    });
}

#[test]
fn later_fragments_follow_the_choice_of_the_first() {
    test("later_fragments_follow_the_choice_of_the_first", &[], |_| async {
        let mut bench = Bench::new();
        let segment = tcp(&[b'x'; 44]);
        let other = tcp_between(1, 2, &[b'x'; 44]);
        let v4 = |id, field, part: &[u8]| ethernet(0x0800, &ipv4(TCP, &[], id, field, part));
        let v6 = |id, field, part: &[u8]| ethernet(0x86dd, &ipv6(44, &fragment(TCP, field, id, part)));
        let udp = ethernet(0x86dd, &ipv6(44, &fragment(UDP, 64, 5, &segment[..8])));
        let cases = [
            ("IPv4 later, first not seen", v4(1, 0x2004, &segment[32..]), Verdict::FragmentNotSelected),
            ("IPv4 first", v4(2, 0x2000, &segment[..32]), Verdict::Emitted),
            ("IPv4 middle", v4(2, 0x2004, &segment[32..48]), Verdict::Emitted),
            ("IPv4 last", v4(2, 0x0006, &segment[48..]), Verdict::Emitted),
            ("IPv4 first, not selected", v4(3, 0x2000, &other[..32]), Verdict::NotSelected),
            ("IPv4 last of that", v4(3, 0x0004, &other[32..]), Verdict::FragmentNotSelected),
            ("IPv6 first", v6(0x0001_0002, 1, &segment[..32]), Verdict::Emitted),
            ("IPv6 last, same low half of the id", v6(2, 32, &segment[32..]), Verdict::FragmentNotSelected),
            ("IPv6 last", v6(0x0001_0002, 32, &segment[32..]), Verdict::Emitted),
            ("IPv6 later UDP", udp, Verdict::NotTcp),
        ];
        for (what, frame, expected) in cases {
            let (verdict, emitted) = bench.run(name::EGRESS_PROGRAM, &frame);
            assert_eq!(verdict, expected, "{what}");
            assert_eq!(emitted.len(), usize::from(expected == Verdict::Emitted), "{what}");
        }
    });
}

#[test]
fn ports_and_egress_targets_select() {
    test("ports_and_egress_targets_select", &[], |_| async {
        let mut bench = Bench::new();
        let host = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
        let pod = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
        let rules = Rules {
            ports: BTreeMap::from([(SERVER_PORT, protocol::HTTP)]),
            egress: BTreeMap::from([
                ((Some(host), 9000), protocol::HTTP),
                ((None, 9001), protocol::TCP),
                ((Some(pod), 9002), protocol::HTTP),
            ]),
        };
        bench.kernel.set_rules(LOOPBACK, &rules).unwrap();
        // The frames go from 10.77.0.2 to 10.77.0.1.
        let cases = [
            (name::EGRESS_PROGRAM, CLIENT_PORT, SERVER_PORT, Some((side::SERVER, protocol::HTTP))),
            (name::INGRESS, SERVER_PORT, CLIENT_PORT, Some((side::SERVER, protocol::HTTP))),
            (name::INGRESS, CLIENT_PORT, SERVER_PORT, None),
            (name::INGRESS, CLIENT_PORT, 9000, Some((side::CLIENT, protocol::HTTP))),
            (name::EGRESS_PROGRAM, CLIENT_PORT, 9000, None),
            (name::EGRESS_PROGRAM, 9000, CLIENT_PORT, None),
            (name::EGRESS_PROGRAM, 9002, CLIENT_PORT, Some((side::CLIENT, protocol::HTTP))),
            (name::INGRESS, CLIENT_PORT, 9001, Some((side::CLIENT, protocol::TCP))),
            (name::EGRESS_PROGRAM, 9001, CLIENT_PORT, Some((side::CLIENT, protocol::TCP))),
            (name::INGRESS, SERVER_PORT, 9000, Some((side::SERVER, protocol::HTTP))),
        ];
        for (program, source, destination, expected) in cases {
            let frame = ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &tcp_between(source, destination, b"x")));
            let (_, emitted) = bench.run(program, &frame);
            let found = emitted.first().map(|(header, _)| (header.side, header.protocol));
            assert_eq!(found, expected, "{program} {source} to {destination}");
        }
        bench.kernel.clear_rules(LOOPBACK).unwrap();
        let frame = ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &tcp(b"x")));
        assert_eq!(bench.run(name::EGRESS_PROGRAM, &frame).0, Verdict::NotSelected);
    });
}

#[test]
fn sessions_keep_the_time_of_the_newest_payload() {
    test("sessions_keep_the_time_of_the_newest_payload", &[], |_| async {
        let mut bench = Bench::new();
        let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, last];
        let key = SessionKey {
            client: mapped(2),
            server: mapped(1),
            client_port: CLIENT_PORT,
            server_port: SERVER_PORT,
            interface: LOOPBACK,
        };
        assert_eq!(bench.kernel.session(&key).unwrap(), None);
        let frame = |payload: &[u8]| ethernet(0x0800, &ipv4(TCP, &[], 1, 0, &tcp(payload)));
        bench.run(name::EGRESS_PROGRAM, &frame(b""));
        let value = bench.kernel.session(&key).unwrap().unwrap();
        assert_eq!((value.request_ns, value.response_ns), (0, 0));
        assert_eq!(value.reach[0].sent, 1, "of an empty segment whose sequence number is 1");
        let (_, emitted) = bench.run(name::EGRESS_PROGRAM, &frame(b"GET"));
        let value = bench.kernel.session(&key).unwrap().unwrap();
        assert_eq!((value.request_ns, value.response_ns), (emitted[0].0.time_ns, 0));
        assert_eq!(value.reach[0].sent, 4);
        bench.run(name::EGRESS_PROGRAM, &frame(b""));
        // Its sequence number is one that had come.
        assert_eq!(bench.kernel.session(&key).unwrap().unwrap(), value);
        assert_eq!(bench.kernel.session_count().unwrap(), 1);
    });
}

#[test]
fn garbage_is_counted_once_and_left_alone() {
    test("garbage_is_counted_once_and_left_alone", &[], |_| async {
        let mut bench = Bench::new();
        let mut random = Random(0x5eed);
        let mut ran = 0;
        for round in 0..10_000 {
            let program = if round % 2 == 0 { name::INGRESS } else { name::EGRESS_PROGRAM };
            ran += usize::from(bench.try_run(program, &garbage(&mut random)).is_some());
        }
        assert!(ran > 5_000, "the kernel ran only {ran}");
        assert_eq!(bench.packets.counters().invalid, 0);
    });
}

#[test]
fn a_debugging_object_loads_and_runs() {
    test("a_debugging_object_loads_and_runs", &[], |_| async {
        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), true).unwrap();
        let frame = ethernet(0x0800, &[0x55; 20]);
        let options = TestRunOptions { data_in: Some(&frame), ..Default::default() };
        let result = kernel.program(name::INGRESS).unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, GO_ON);
        assert_eq!(kernel.verdicts().unwrap().of(Verdict::Malformed), 1);
        kernel.flush_log();
    });
}

/// The kernel gives up at a million instructions, looked at once for each way that leads to them (`BPF_COMPLEXITY_LIMIT_INSNS`), and other
/// kernels look at more of them than this one. A change of a few lines can multiply them, and what loading takes.
#[test]
fn programs_stay_far_from_what_the_verifier_gives_up_at() {
    test("programs_stay_far_from_what_the_verifier_gives_up_at", &[], |_| async {
        let mut bench = Bench::new();
        for program in [name::INGRESS, name::EGRESS_PROGRAM] {
            let looked_at =
                bench.kernel.program(program).unwrap().info().unwrap().verified_instruction_count();
            assert!(looked_at.is_some_and(|count| count < 200_000), "{program}: {looked_at:?}");
        }
    });
}
