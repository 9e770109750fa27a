//! Real packets over a real veth: what is captured is what was sent, everything is counted, and what does not
//! fit is cut or lost by count, never silently.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clovisor::datapath::attach::{Attacher, Way};
use clovisor::datapath::clock::monotonic_ns;
use clovisor::datapath::interface::{Interface, InterfaceError, Orientation};
use clovisor::datapath::kernel::{Kernel, Rules};
use clovisor::datapath::packets::{DEFAULT_BUFFER, Packets, SMALLEST_BUFFER, Transport};
use clovisor_common::{EventHeader, MAX_CAPTURE, Verdict, direction, protocol, side};

use crate::buffers::{buffers, test};
use crate::frames::{CLIENT_PORT, Random, SERVER_PORT, TCP, ethernet, garbage, ipv4, tagged, tcp_between};
use crate::listen::listen;
use crate::netns::{Net, POD_V4, POD_V6, skip, thread_in};

/// Everything that one traced interface needs.
pub(crate) struct Traced {
    pub(crate) kernel: Kernel,
    pub(crate) packets: Packets,
    pub(crate) attacher: Attacher,
    pub(crate) interface: Interface,
}

impl Traced {
    /// Loads, with the pod's server port as the rule; not attached yet.
    pub(crate) async fn new(buffer: usize) -> Self {
        let mut kernel = Kernel::load(buffers(buffer), false).unwrap();
        let packets = kernel.packets().unwrap();
        let attacher = Attacher::new().await.unwrap();
        let interface = attacher.interface("veth0").await.unwrap();
        let ports = BTreeMap::from([(SERVER_PORT, protocol::HTTP)]);
        kernel.set_rules(interface.index, &Rules { ports, egress: BTreeMap::new() }).unwrap();
        Self { kernel, packets, attacher, interface }
    }

    pub(crate) async fn attach(&mut self, way: Way) -> clovisor::datapath::attach::Attached {
        self.attacher.attach(&mut self.kernel, &self.interface, way).await.unwrap()
    }

    /// All events up to now.
    pub(crate) fn events(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        let mut events = Vec::new();
        self.packets.flush(&mut |header, packet| events.push((*header, packet.to_vec())));
        events
    }

    /// Does one exchange with the pod, and says whether both directions of it were captured.
    pub(crate) fn sees(&mut self, net: &Arc<Net>) -> bool {
        self.events();
        exchange(net, POD_V4, b"ping", b"pong");
        let events = self.events();
        let has = |text: &[u8]| events.iter().any(|(_, packet)| packet.ends_with(text));
        has(b"ping") && has(b"pong")
    }
}

/// A request to the pod's server port and its response, over one connection that is closed after.
pub(crate) fn exchange(net: &Net, address: &str, request: &'static [u8], response: &'static [u8]) {
    let server = serve(&net.pod, address.parse().unwrap(), request, response);
    ask(address.parse().unwrap(), request, response);
    server.join().unwrap();
}

/// A server in a namespace that answers one request.
pub(crate) fn serve(
    namespace: &str,
    address: IpAddr,
    request: &'static [u8],
    response: &'static [u8],
) -> JoinHandle<()> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = thread_in(namespace, move || {
        let listener = listen(address, SERVER_PORT);
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = vec![0; request.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, request);
        stream.write_all(response).unwrap();
    });
    is_ready.recv_timeout(Duration::from_secs(5)).unwrap();
    server
}

/// A client in the namespace of the calling thread.
pub(crate) fn ask(address: IpAddr, request: &[u8], response: &[u8]) {
    let mut stream =
        TcpStream::connect_timeout(&(address, SERVER_PORT).into(), Duration::from_secs(5)).unwrap();
    stream.write_all(request).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, response);
}

/// Sends `bytes` bytes to the pod's server port, which reads them all.
pub(crate) fn upload(net: &Net, address: &str, bytes: usize) {
    let address: IpAddr = address.parse().unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = net.pod_thread(move || {
        let listener = listen(address, SERVER_PORT);
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    is_ready.recv_timeout(Duration::from_secs(5)).unwrap();
    let mut stream = TcpStream::connect((address, SERVER_PORT)).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..bytes.div_ceil(chunk.len()) {
        stream.write_all(&chunk).unwrap();
    }
    drop(stream);
    assert!(server.join().unwrap() >= bytes as u64);
}

#[test]
fn a_request_and_its_response_come_in_order() {
    test("a_request_and_its_response_come_in_order", &[], |net| async move {
        for way in [Way::Clsact, Way::Tcx] {
            let mut traced = Traced::new(DEFAULT_BUFFER).await;
            assert_eq!(traced.interface.orientation, Orientation::Host);
            traced.attach(way).await;
            for address in [POD_V4, POD_V6] {
                exchange(&net, address, b"request", b"response");
                let events = traced.events();
                let place =
                    |text: &[u8]| events.iter().position(|(_, packet)| packet.ends_with(text)).unwrap();
                let (request, response) = (place(b"request"), place(b"response"));
                assert!(request < response, "{way:?} {address}");
                assert_eq!(events[request].0.direction, direction::TO_POD);
                assert_eq!(events[response].0.direction, direction::FROM_POD);
                assert!(events.iter().all(|(header, _)| header.side == side::SERVER));
                assert!(events.is_sorted_by_key(|(header, _)| header.time_ns));
                let version = if address == POD_V4 { 4 } else { 6 };
                // Of these two, for the last acknowledgements of an exchange before may come late.
                assert!([request, response].iter().all(|&at| events[at].1[0] >> 4 == version));
            }
            assert_eq!(traced.kernel.session_count().unwrap(), 2);
            traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
            // The last acknowledgements of the exchange above may have come since.
            traced.events();
            exchange(&net, POD_V4, b"request", b"response");
            assert!(traced.events().is_empty(), "still captured after detaching by {way:?}");
        }
    });
}

#[test]
fn the_client_side_is_seen_by_an_egress_rule_and_from_within_the_pod() {
    test("the_client_side_is_seen_by_an_egress_rule_and_from_within_the_pod", &[], |net| async move {
        // From where we are (`host`), veth0 as a pod's own interface: what it sends is what the pod sends.
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.interface.orientation = Orientation::Pod;
        let target = (Some(POD_V6.parse().unwrap()), SERVER_PORT);
        let rules = Rules { ports: BTreeMap::new(), egress: BTreeMap::from([(target, protocol::HTTP)]) };
        traced.kernel.set_rules(traced.interface.index, &rules).unwrap();
        traced.attach(Way::Auto).await;
        exchange(&net, POD_V4, b"not", b"wanted");
        exchange(&net, POD_V6, b"request", b"response");
        let events = traced.events();
        assert!(events.iter().all(|(header, _)| header.side == side::CLIENT));
        let of =
            |text: &[u8]| events.iter().find(|(_, packet)| packet.ends_with(text)).map(|(h, _)| h.direction);
        assert_eq!(of(b"request"), Some(direction::FROM_POD));
        assert_eq!(of(b"response"), Some(direction::TO_POD));
        assert_eq!(of(b"wanted"), None);
    });
}

#[test]
fn every_packet_of_the_interface_is_counted_once() {
    test("every_packet_of_the_interface_is_counted_once", &["python3"], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        let counter = |name: &str| -> u64 {
            let file = format!("/sys/class/net/veth0/statistics/{name}");
            net.in_host(&["cat", &file]).trim().parse().unwrap()
        };
        traced.attach(Way::Auto).await;
        // The kernel sends neighbour and router messages of its own at any time, so both are read at a moment
        // when none came in between.
        let snapshot = |kernel: &Kernel| {
            let counters = || (counter("rx_packets"), counter("tx_packets"));
            let still = |_| {
                let (before, verdicts, after) = (counters(), kernel.verdicts().unwrap(), counters());
                (before == after).then_some((before.0, before.1, verdicts))
            };
            (0..50).find_map(still).expect("the interface is quiet at some moment")
        };
        let before = snapshot(&traced.kernel);
        let mut random = Random(0xfeed);
        let frames: Vec<_> = (0..2_000).map(|_| garbage(&mut random)).collect();
        send(Net::in_pod, &net, "eth0", &frames);
        exchange(&net, POD_V6, b"request", b"response");
        upload(&net, POD_V4, 1 << 20);
        // Let what is still on its way arrive: delayed acknowledgements take 40 ms.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (received, sent, verdicts) = snapshot(&traced.kernel);
        let seen = |dir| verdicts.seen(dir) - before.2.seen(dir);
        assert_eq!(seen(direction::FROM_POD), received - before.0);
        assert_eq!(seen(direction::TO_POD), sent - before.1);
        assert!(seen(direction::FROM_POD) > 2_000);
        let captured = verdicts.of(Verdict::Emitted) + verdicts.of(Verdict::EmittedCut);
        assert_eq!(u64::try_from(traced.events().len()).unwrap(), captured);
    });
}

/// Sends frames as they are over one end of the veth, and nowhere else.
fn send(side: fn(&Net, &[&str]) -> String, net: &Net, device: &str, frames: &[Vec<u8>]) {
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let path = std::env::temp_dir().join(format!(
        "clovisor-frames-{}-{device}-{}",
        std::process::id(),
        monotonic_ns()
    ));
    std::fs::write(&path, frames.iter().map(hex).collect::<String>()).unwrap();
    let sender = "import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind((sys.argv[2],0))\n\
                  for l in open(sys.argv[1]): s.send(bytes.fromhex(l))";
    side(net, &["python3", "-c", sender, path.to_str().unwrap(), device]);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn packets_beyond_64_kb_are_cut_and_counted() {
    test("packets_beyond_64_kb_are_cut_and_counted", &[], |net| async move {
        let big = |namespace: fn(&Net, &[&str]) -> String, device: &str| {
            namespace(
                &net,
                &["ip", "link", "set", device, "gso_max_size", "200000", "gro_max_size", "200000"],
            );
        };
        big(Net::in_host, "veth0");
        big(Net::in_pod, "eth0");
        let mut traced = Traced::new(8 * DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        upload(&net, POD_V6, 16 << 20);
        let verdicts = traced.kernel.verdicts().unwrap();
        let cut = verdicts.of(Verdict::EmittedCut);
        if cut == 0 {
            skip("packets_beyond_64_kb_are_cut_and_counted", "this kernel sends no packets beyond 64 KB");
            return;
        }
        let events = traced.events();
        let cut_events: Vec<_> =
            events.iter().filter(|(header, _)| header.captured_len < header.wire_len).collect();
        assert_eq!(cut_events.len() as u64, cut);
        for (header, packet) in cut_events {
            assert_eq!(header.captured_len, MAX_CAPTURE);
            assert_eq!(packet.len(), (MAX_CAPTURE - u32::from(header.link_len)) as usize);
        }
    });
}

#[test]
fn what_finds_no_room_or_no_reader_is_counted() {
    test("what_finds_no_room_or_no_reader_is_counted", &[], |net| async move {
        let mut traced = Traced::new(SMALLEST_BUFFER).await;
        traced.attach(Way::Auto).await;
        upload(&net, POD_V4, 8 << 20);
        let lost = traced.kernel.verdicts().unwrap().of(Verdict::LostNoRoom);
        assert!(lost > 0);
        let events = traced.events().len() as u64;
        assert_eq!(traced.kernel.verdicts().unwrap().of(Verdict::Emitted), events);
        // Noted of the interface, too.
        let noted = |kernel: &Kernel| {
            kernel.losses().unwrap().get(&Some(traced.interface.id)).map_or(0, |noted| noted.packets)
        };
        assert_eq!(noted(&traced.kernel), traced.kernel.lost().unwrap());
        // The kernel reports losses in the buffer itself with the next record that fits.
        exchange(&net, POD_V4, b"a", b"b");
        traced.events();
        assert!(traced.packets.counters().lost <= lost);
        assert_eq!(traced.kernel.lost_by_cpu().unwrap().iter().sum::<u64>(), traced.kernel.lost().unwrap());
        traced.attacher.detach_all(&mut traced.kernel).await.unwrap();
        // A ring buffer takes packets whether or not anybody reads.
        if traced.packets.transport() == Transport::Ring {
            return;
        }

        let mut kernel = Kernel::load(buffers(SMALLEST_BUFFER), false).unwrap();
        let ports = BTreeMap::from([(SERVER_PORT, protocol::TCP)]);
        kernel.set_rules(traced.interface.index, &Rules { ports, egress: BTreeMap::new() }).unwrap();
        traced.attacher.attach(&mut kernel, &traced.interface, Way::Auto).await.unwrap();
        exchange(&net, POD_V4, b"a", b"b");
        let lost = kernel.verdicts().unwrap().of(Verdict::LostNoReader);
        assert!(lost >= 7);
        assert!(kernel.losses().unwrap()[&Some(traced.interface.id)].packets >= lost);
        traced.attacher.detach_all(&mut kernel).await.unwrap();
    });
}

#[test]
fn a_vlan_tag_is_seen_through() {
    test("a_vlan_tag_is_seen_through", &["python3"], |net| async move {
        let mut traced = Traced::new(DEFAULT_BUFFER).await;
        traced.attach(Way::Auto).await;
        let frame = |source, destination| {
            let segment = tcp_between(source, destination, b"in a tag");
            ethernet(0x8100, &tagged(0x0800, &ipv4(TCP, &[], 1, 0, &segment)))
        };
        // A tagged frame that is received has its tag moved to the packet's metadata before any classifier.
        send(Net::in_pod, &net, "eth0", &[frame(SERVER_PORT, CLIENT_PORT)]);
        // One that is sent by a raw socket keeps it among the data.
        send(Net::in_host, &net, "veth0", &[frame(CLIENT_PORT, SERVER_PORT)]);
        let events = traced.events();
        let found: Vec<_> = events.iter().map(|(header, _)| (header.direction, header.link_len)).collect();
        assert_eq!(found, [(direction::FROM_POD, 14), (direction::TO_POD, 18)]);
        assert!(events.iter().all(|(_, packet)| packet[0] == 0x45 && packet.ends_with(b"in a tag")));
    });
}

#[test]
fn interfaces_that_cannot_be_traced_are_named() {
    test("interfaces_that_cannot_be_traced_are_named", &[], |net| async move {
        net.in_host(&["ip", "tuntap", "add", "tun7", "mode", "tun"]);
        let attacher = Attacher::new().await.unwrap();
        let error = attacher.interface("nope0").await.unwrap_err();
        assert!(matches!(error, InterfaceError::Unknown(_)), "{error}");
        let error = attacher.interface("tun7").await.unwrap_err();
        assert!(matches!(error, InterfaceError::LinkType { .. }), "{error}");
        let loopback = attacher.interface("lo").await.unwrap();
        assert_eq!((loopback.index, loopback.orientation), (1, Orientation::Pod));
        net.in_host(&["ip", "route", "add", "default", "via", POD_V4]);
        let veth = attacher.interface("veth0").await.unwrap();
        assert_eq!(veth.orientation, Orientation::Pod, "it carries the default route");
    });
}
