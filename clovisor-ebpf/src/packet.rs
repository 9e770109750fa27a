//! Where the headers of a packet are: Ethernet, at most one VLAN tag, IPv4 or IPv6, TCP.
//!
//! Every byte is read by `bpf_skb_load_bytes`, never through the packet's direct pointers: those end at the
//! linear part of the buffer, and headers may lie in its fragments (GSO, loopback). Reads beyond the packet
//! fail, and a failed read is [`Verdict::Malformed`].
//!
//! It refuses everything but TCP, with the verdict that says why.

use aya_ebpf::programs::TcContext;
use clovisor_common::Verdict;

/// Ethernet header: two addresses and the EtherType.
const ETHERNET_LEN: usize = 14;
/// Where the EtherType is.
const ETHERTYPE_AT: usize = 12;
/// An 802.1Q tag: its EtherType comes before, two bytes of tag and the next EtherType follow.
const TAG_LEN: usize = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_8021AD: u16 = 0x88a8;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN: usize = 20;
/// Version 4 and a header of five words: IPv4 without options.
const PLAIN_IPV4: u8 = 0x45;
/// All headers of a packet without tags and options, as nearly all are: they are read at once, since each read is a call.
const PLAIN_LEN: usize = ETHERNET_LEN + IPV4_LEN + TCP_LEN;
/// The flags that end a connection, in the 14th byte of the header (RFC 9293 section 3.1).
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
/// The flag that begins one.
const SYN: u8 = 0x02;
/// The flag that acknowledges, which only the first packet of a connection has not.
const ACK: u8 = 0x10;

/// "More fragments" and the offset in the IPv4 fragment field (RFC 791 section 3.1).
const IPV4_MORE: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;
/// The same in the IPv6 fragment header (RFC 8200 section 4.5).
const IPV6_MORE: u16 = 0x0001;
const IPV6_OFFSET: u16 = 0xfff8;

/// Protocol numbers (IANA).
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// IPv6 extension headers that are walked. RFC 8200 section 4.1 recommends each at most once (destination
/// options twice), which makes 7; a longer chain is Malformed.
const MAX_EXTENSIONS: usize = 8;

/// Which part of its datagram the packet is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment, which has no ports.
    Later,
}

/// What selection and emission need to know of a packet.
#[derive(Default)]
pub(crate) struct Headers {
    /// Source address; IPv4 as IPv4-mapped.
    pub(crate) source: [u8; 16],
    /// Destination address.
    pub(crate) destination: [u8; 16],
    /// Source port; 0 in a later fragment.
    pub(crate) source_port: u16,
    /// Destination port; 0 in a later fragment.
    pub(crate) destination_port: u16,
    /// Bytes before the IP header.
    pub(crate) link_len: u8,
    /// Which part of the datagram it is.
    pub(crate) part: Part,
    /// Identification of the datagram where it is a fragment.
    pub(crate) id: u32,
    /// Bytes before the TCP payload; 0 in a later fragment.
    pub(crate) payload_at: u32,
    /// Bytes of TCP payload, as far as the IP header knows.
    pub(crate) payload_len: u32,
    /// Sequence number.
    pub(crate) seq: u32,
    /// Acknowledgement number.
    pub(crate) ack: u32,
    /// Whether its receiver gets on with it: it acknowledges, has room for more, and neither begins nor ends anything.
    pub(crate) plain: bool,
    /// Whether it ends its connection, or its own direction.
    pub(crate) ends: bool,
    /// Whether it begins a connection, or its other direction.
    pub(crate) syn: bool,
    /// Whether it is the first of its connection.
    pub(crate) opens: bool,
}

/// Finds the headers.
#[inline(always)]
pub(crate) fn parse(ctx: &TcContext, headers: &mut Headers) -> Result<(), Verdict> {
    if let Ok(plain) = ctx.load::<Plain>(0)
        && u16::from_be_bytes(plain.ethertype) == ETHERTYPE_IPV4
        && plain.ip[0] == PLAIN_IPV4
    {
        headers.link_len = ETHERNET_LEN as u8;
        let Some(end) = ipv4(ctx, ETHERNET_LEN, &plain.ip, headers)? else { return Ok(()) };
        return tcp(ETHERNET_LEN + IPV4_LEN, end, &plain.tcp, headers);
    }
    let mut ethertype = u16::from_be_bytes(load(ctx, ETHERTYPE_AT)?);
    let mut at = ETHERNET_LEN;
    if ethertype == ETHERTYPE_8021Q || ethertype == ETHERTYPE_8021AD {
        ethertype = u16::from_be_bytes(load(ctx, at + 2)?);
        at += TAG_LEN;
    }
    headers.link_len = at as u8;
    match ethertype {
        ETHERTYPE_IPV4 => {
            let ip: [u8; IPV4_LEN] = load(ctx, at)?;
            let header_len = usize::from(ip[0] & 0x0f) * 4;
            if ip[0] >> 4 != 4 || header_len < IPV4_LEN {
                return Err(Verdict::Malformed);
            }
            let Some(end) = ipv4(ctx, at, &ip, headers)? else { return Ok(()) };
            tcp(at + header_len, end, &load(ctx, at + header_len)?, headers)
        }
        ETHERTYPE_IPV6 => ipv6(ctx, at, headers),
        _ => Err(Verdict::NotIp),
    }
}

/// The headers of a packet without tags and options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Plain {
    addresses: [u8; ETHERTYPE_AT],
    ethertype: [u8; 2],
    ip: [u8; IPV4_LEN],
    tcp: [u8; TCP_LEN],
}

const _: () = assert!(size_of::<Plain>() == PLAIN_LEN);

/// An IPv4 header, which is at `at`. Where the datagram ends; `None` in a later fragment, which has no ports.
#[inline(always)]
fn ipv4(
    ctx: &TcContext,
    at: usize,
    ip: &[u8; IPV4_LEN],
    headers: &mut Headers,
) -> Result<Option<usize>, Verdict> {
    if ip[9] != TCP {
        return Err(Verdict::NotTcp);
    }
    headers.source = mapped([ip[12], ip[13], ip[14], ip[15]]);
    headers.destination = mapped([ip[16], ip[17], ip[18], ip[19]]);
    headers.id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    if fragment & IPV4_OFFSET != 0 {
        headers.part = Part::Later;
        return Ok(None);
    }
    if fragment & IPV4_MORE != 0 {
        headers.part = Part::First;
    }
    // Big TCP over IPv4 (kernel 6.3) writes 0 into the 16-bit length of packets beyond 64 KB.
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    Ok(Some(if total == 0 { ctx.len() as usize } else { at + total }))
}

#[inline(always)]
fn ipv6(ctx: &TcContext, at: usize, headers: &mut Headers) -> Result<(), Verdict> {
    let ip: [u8; IPV6_LEN] = load(ctx, at)?;
    if ip[0] >> 4 != 6 {
        return Err(Verdict::Malformed);
    }
    headers.source.copy_from_slice(&ip[8..24]);
    headers.destination.copy_from_slice(&ip[24..40]);
    let payload = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    // 0 is a jumbogram (RFC 2675), which is how big TCP over IPv6 (kernel 5.19) looks.
    let end = if payload == 0 { ctx.len() as usize } else { at + IPV6_LEN + payload };
    let mut next = ip[6];
    let mut at = at + IPV6_LEN;
    for _ in 0..MAX_EXTENSIONS {
        let units = match next {
            TCP => return tcp(at, end, &load(ctx, at)?, headers),
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => load::<2>(ctx, at)?,
            _ => return Err(Verdict::NotTcp),
        };
        let len = match next {
            FRAGMENT => {
                fragment(ctx, at, headers)?;
                8
            }
            // RFC 4302 section 2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => (usize::from(units[1]) + 2) * 4,
            // RFC 8200 section 4.3: in units of 8 bytes, minus 1.
            _ => (usize::from(units[1]) + 1) * 8,
        };
        next = units[0];
        at += len;
        if headers.part == Part::Later {
            return later(next);
        }
    }
    Err(Verdict::Malformed)
}

/// The IPv6 fragment header.
#[inline(always)]
fn fragment(ctx: &TcContext, at: usize, headers: &mut Headers) -> Result<(), Verdict> {
    let header: [u8; 8] = load(ctx, at)?;
    headers.id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let field = u16::from_be_bytes([header[2], header[3]]);
    // Offset 0 with no more to come is an "atomic fragment" (RFC 6946), which is whole.
    if field & IPV6_OFFSET != 0 {
        headers.part = Part::Later;
    } else if field & IPV6_MORE != 0 {
        headers.part = Part::First;
    }
    Ok(())
}

/// A later IPv6 fragment names the first header of the datagram's fragmented part. Where that is an extension
/// header, what follows it stood in the first fragment only.
#[inline(always)]
fn later(next: u8) -> Result<(), Verdict> {
    match next {
        TCP | HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION => Ok(()),
        _ => Err(Verdict::NotTcp),
    }
}

#[inline(always)]
fn tcp(at: usize, end: usize, tcp: &[u8; TCP_LEN], headers: &mut Headers) -> Result<(), Verdict> {
    let header_len = usize::from(tcp[12] >> 4) * 4;
    if header_len < TCP_LEN || at + header_len > end {
        return Err(Verdict::Malformed);
    }
    headers.source_port = u16::from_be_bytes([tcp[0], tcp[1]]);
    headers.destination_port = u16::from_be_bytes([tcp[2], tcp[3]]);
    headers.payload_at = anything((at + header_len) as u32);
    headers.payload_len = anything((end - at - header_len) as u32);
    headers.seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    headers.ack = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
    headers.plain = tcp[13] & (SYN | ACK | FIN | RST) == ACK && (tcp[14] | tcp[15]) != 0;
    headers.ends = tcp[13] & (FIN | RST) != 0;
    headers.syn = tcp[13] & SYN != 0;
    headers.opens = tcp[13] & (SYN | ACK) == SYN;
    Ok(())
}

/// The same number, of which the verifier knows nothing. It follows each way through the headers, and where what is known of a number
/// differs, it goes on to follow each of them through all that comes then. A number that was written in two halves is none that it knows.
#[inline(always)]
fn anything(number: u32) -> u32 {
    #[repr(C, align(8))]
    struct Halves([u32; 2]);
    let halves = Halves([number, 0]);
    // SAFETY: eight bytes that are aligned; any of them are a number.
    unsafe { (&raw const halves).cast::<u64>().read_volatile() as u32 }
}

/// RFC 4291 section 2.5.5.2.
#[inline(always)]
fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn load<const N: usize>(ctx: &TcContext, at: usize) -> Result<[u8; N], Verdict> {
    ctx.load(at).map_err(|_| Verdict::Malformed)
}
