//! Well-formed packets, written by etherparse.

use clovisor_trace::Toward;
use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder, TcpHeader};

/// The server's port of every connection.
const SERVER_PORT: u16 = 80;

/// A packet of a connection between two hosts, from its IP header on. `port` is the client's; `set` completes the
/// TCP header, whose ports, sequence number and window are set.
pub(crate) fn packet(
    toward: Toward,
    port: u16,
    ipv6: bool,
    seq: u32,
    payload: &[u8],
    set: impl FnOnce(&mut TcpHeader),
) -> Vec<u8> {
    let (hosts, ports) = match toward {
        Toward::Server => ((1, 2), (port, SERVER_PORT)),
        Toward::Client => ((2, 1), (SERVER_PORT, port)),
    };
    let mut tcp = TcpHeader::new(ports.0, ports.1, seq, 65_535);
    set(&mut tcp);
    let mut data = Vec::with_capacity(payload.len() + 60);
    let written = if ipv6 {
        let host = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        PacketBuilder::ipv6(host(hosts.0), host(hosts.1), 64).tcp_header(tcp).write(&mut data, payload)
    } else {
        let host = |last| [10, 0, 0, last];
        PacketBuilder::ipv4(host(hosts.0), host(hosts.1), 64).tcp_header(tcp).write(&mut data, payload)
    };
    written.expect("payloads of targets are below 64 KiB");
    data
}

/// The fragments of an IPv4 packet, cut behind so many bytes of its payload (rounded to 8, as fragments are);
/// the packet itself if that leaves nothing for one of the two.
pub(crate) fn fragments(packet: Vec<u8>, id: u16, cut: usize) -> Vec<Vec<u8>> {
    let Ok((header, payload)) = Ipv4Header::from_slice(&packet) else { return vec![packet] };
    let cut = cut / 8 * 8;
    if cut == 0 || cut >= payload.len() {
        return vec![packet];
    }
    let write = |offset: usize, more: bool, part: &[u8]| {
        let mut header = header.clone();
        header.identification = id;
        (header.dont_fragment, header.more_fragments) = (false, more);
        let units = u16::try_from(offset / 8).expect("a packet is below 64 KiB");
        header.fragment_offset = IpFragOffset::try_new(units).expect("13 bits hold 64 KiB in units of 8");
        header.set_payload_len(part.len()).expect("a part of a packet");
        let mut data = Vec::with_capacity(part.len() + Ipv4Header::MIN_LEN);
        header.write(&mut data).expect("a Vec takes all");
        data.extend_from_slice(part);
        data
    };
    vec![write(0, true, &payload[..cut]), write(cut, false, &payload[cut..])]
}
