//! Bytes to a TCP segment. Total: any bytes give a segment, a fragment, or a named reason why not.
//!
//! It refuses to check checksums: a veth carries packets whose checksum the kernel has yet to fill in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, Ipv6ExtensionSlice, LaxIpSlice, TcpSlice};

use super::{Fragment, Packet, Segment};

/// What a packet turned out to be.
pub(crate) enum Decoded<'a> {
    Segment(Segment<'a>),
    Fragment(Fragment<'a>),
    NotTcp,
    Malformed,
}

/// Takes a packet from its IP header on apart.
pub(crate) fn decode<'a>(packet: &Packet<'a>) -> Decoded<'a> {
    if let Some((source, destination, bytes)) = plain(packet.data) {
        let decoded = segment(source, destination, bytes, bytes.len());
        return decoded.map_or(Decoded::Malformed, Decoded::Segment);
    }
    let Ok((ip, _stop)) = LaxIpSlice::from_slice(packet.data) else {
        return Decoded::Malformed;
    };
    let payload = ip.payload();
    if payload.ip_number != IpNumber::TCP {
        return Decoded::NotTcp;
    }
    if payload.fragmented {
        return fragment(&ip, packet).map_or(Decoded::Malformed, Decoded::Fragment);
    }
    // Where the payload starts; both slices lie in the same packet.
    let offset = payload.payload.as_ptr().addr().saturating_sub(packet.data.as_ptr().addr());
    let ip_payload_len =
        declared_len(&ip, offset).unwrap_or(packet.wire_len as usize - offset.min(packet.wire_len as usize));
    segment(ip.source_addr(), ip.destination_addr(), payload.payload, ip_payload_len)
        .map_or(Decoded::Malformed, Decoded::Segment)
}

/// Addresses and TCP part of a packet as most are: whole, and with nothing between the IP header and TCP's. It says nothing of
/// any other.
#[inline]
fn plain(data: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    /// IPv4 without options (RFC 791 section 3.1).
    const VERSION_4: u8 = 0x45;
    /// More fragments, or not the first (the same section).
    const FRAGMENT: u16 = 0x3fff;
    match *data {
        [VERSION_4, _, a, b, _, _, c, d, _, protocol, ..] => {
            let header = data.first_chunk::<{ etherparse::Ipv4Header::MIN_LEN }>()?;
            let is_fragment = u16::from_be_bytes([c, d]) & FRAGMENT != 0;
            if is_fragment || protocol != IpNumber::TCP.0 {
                return None;
            }
            let bytes = data.get(header.len()..usize::from(u16::from_be_bytes([a, b])))?;
            let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?).into());
            Some((address(12)?, address(16)?, bytes))
        }
        // RFC 8200 section 3.
        [version, _, _, _, a, b, next, ..] if version >> 4 == 6 => {
            let header = data.first_chunk::<{ etherparse::Ipv6Header::LEN }>()?;
            let len = usize::from(u16::from_be_bytes([a, b]));
            if len == 0 || next != IpNumber::TCP.0 {
                return None;
            }
            let bytes = data.get(header.len()..header.len() + len)?;
            let address = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?).into());
            Some((address(8)?, address(24)?, bytes))
        }
        _ => None,
    }
}

/// Takes the TCP part of a packet, or of a datagram put together from fragments, apart.
///
/// `ip_payload_len` is the length of the TCP part on the wire, of which `bytes` may be a cut.
pub(crate) fn segment(
    source: IpAddr,
    destination: IpAddr,
    bytes: &[u8],
    ip_payload_len: usize,
) -> Option<Segment<'_>> {
    let tcp = TcpSlice::from_slice(bytes).ok()?;
    let payload = tcp.payload();
    let header_len = bytes.len() - payload.len();
    // Link padding can follow the packet, so what lies beyond the declared length is not payload.
    let payload_len = ip_payload_len.checked_sub(header_len)?;
    // The payload starts behind the header in `bytes`, whose lifetime the slice's accessor would shorten.
    let payload = bytes.get(header_len..)?;
    Some(Segment {
        source: (source, tcp.source_port()),
        destination: (destination, tcp.destination_port()),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        window: tcp.window_size(),
        payload: &payload[..payload.len().min(payload_len)],
        payload_len: u32::try_from(payload_len).ok()?,
    })
}

/// Length of the IP payload by the header's own length field; `None` where the field says nothing, as in
/// packets beyond 64 KiB (RFC 2675 section 3, and Linux's big TCP, which leaves zero in both versions).
fn declared_len(ip: &LaxIpSlice<'_>, payload_offset: usize) -> Option<usize> {
    let total = match ip {
        LaxIpSlice::Ipv4(v4) => usize::from(v4.header().total_len()),
        LaxIpSlice::Ipv6(v6) => match v6.header().payload_length() {
            0 => 0,
            length => usize::from(length) + etherparse::Ipv6Header::LEN,
        },
    };
    total.checked_sub(payload_offset)
}

/// The fragment that a packet carries.
fn fragment<'a>(ip: &LaxIpSlice<'a>, packet: &Packet<'a>) -> Option<Fragment<'a>> {
    let (id, offset, more) = match ip {
        LaxIpSlice::Ipv4(v4) => {
            let header = v4.header();
            (u32::from(header.identification()), header.fragments_offset(), header.more_fragments())
        }
        LaxIpSlice::Ipv6(v6) => {
            v6.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(f) => {
                    Some((f.identification(), f.fragment_offset(), f.more_fragments()))
                }
                _ => None,
            })?
        }
    };
    // A fragment that the capture cut leaves a hole that nothing would fill.
    (!ip.payload().incomplete).then(|| Fragment {
        source: ip.source_addr(),
        destination: ip.destination_addr(),
        id,
        offset,
        more,
        interface: packet.interface,
        toward: packet.toward,
        payload: ip.payload().payload,
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// A packet, and all others that differ from it in one byte.
    fn changed(packet: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let places = (0..packet.len()).flat_map(|place| (0..=u8::MAX).map(move |byte| (place, byte)));
        places.map(|(place, byte)| {
            let mut packet = packet.to_vec();
            packet[place] = byte;
            packet
        })
    }

    #[test]
    fn plain_packets_are_read_as_all_others_are() {
        let (v4, v6) =
            (PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 64), PacketBuilder::ipv6([1; 16], [2; 16], 64));
        let mut plain_ones = 0;
        for builder in [v4, v6] {
            let mut packet = Vec::new();
            builder.tcp(1, 2, 3, 4).write(&mut packet, b"payload").expect("it fits");
            packet.extend_from_slice(b"link padding");
            for data in changed(&packet) {
                let Some((source, destination, bytes)) = plain(&data) else { continue };
                plain_ones += 1;
                let (ip, _) = LaxIpSlice::from_slice(&data).expect("a packet");
                let payload = ip.payload();
                assert_eq!((payload.ip_number, payload.fragmented), (IpNumber::TCP, false), "{data:?}");
                assert_eq!((ip.source_addr(), ip.destination_addr()), (source, destination), "{data:?}");
                let offset = payload.payload.as_ptr().addr() - data.as_ptr().addr();
                assert_eq!(payload.payload, bytes, "{data:?}");
                assert_eq!(declared_len(&ip, offset), Some(bytes.len()), "{data:?}");
            }
        }
        assert!(plain_ones > 20_000, "{plain_ones}");
    }
}
