//! Frames built byte by byte, from the RFCs and not from the parser under test.

/// Ports that the tests select by.
pub(crate) const SERVER_PORT: u16 = 8080;
pub(crate) const CLIENT_PORT: u16 = 40_000;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Ethernet header before a payload.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype.to_be_bytes(), payload].concat()
}

/// A VLAN tag and what is tagged, to be put behind EtherType 0x8100 or 0x88a8.
pub(crate) fn tagged(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0, 5][..], &ethertype.to_be_bytes(), payload].concat()
}

/// A TCP segment to the server port.
pub(crate) fn tcp(payload: &[u8]) -> Vec<u8> {
    tcp_between(CLIENT_PORT, SERVER_PORT, payload)
}

/// A TCP segment.
pub(crate) fn tcp_between(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &rest, payload].concat()
}

/// A TCP segment of the connection of [`tcp`], of the client or to it, with this sequence number and these flags.
pub(crate) fn segment(to_server: bool, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) =
        if to_server { (CLIENT_PORT, SERVER_PORT) } else { (SERVER_PORT, CLIENT_PORT) };
    let mut segment = tcp_between(source, destination, payload);
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[13] = flags;
    segment
}

/// An IPv4 packet; `fragment` is the whole field with its flags.
pub(crate) fn ipv4(protocol: u8, options: &[u8], id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    let header_len = 20 + options.len();
    let total = u16::try_from(header_len + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    for last in [2, 1] {
        packet.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of `units` further units of 8 bytes (4 for AH), before a payload.
pub(crate) fn extension(next: u8, units: u8, len: usize, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; len];
    (header[0], header[1]) = (next, units);
    header.extend(payload);
    header
}

/// An IPv6 fragment header; `field` is offset and flags.
pub(crate) fn fragment(next: u8, field: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    [&[next, 0][..], &field.to_be_bytes(), &id.to_be_bytes(), payload].concat()
}

/// A generator of numbers that look random and are the same in each run (xorshift, Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// Frames that are random, or valid with a few bytes changed or the end cut off.
pub(crate) fn garbage(random: &mut Random) -> Vec<u8> {
    let len = 20 + random.below(300);
    let mut frame = match random.below(4) {
        0 => random.bytes(len),
        1 => ethernet(0x0800, &ipv4(TCP, &[], 7, 0, &tcp(b"GET / HTTP/1.1\r\n\r\n"))),
        2 => ethernet(0x86dd, &ipv6(0, &extension(60, 0, 8, &extension(TCP, 1, 16, &tcp(b"x"))))),
        _ => ethernet(0x8100, &tagged(0x0800, &ipv4(TCP, &[1; 8], 7, 0x2000, &tcp(b"y")))),
    };
    for _ in 0..random.below(4) {
        let at = random.below(frame.len() as u64);
        frame[at] = random.next().to_le_bytes()[0];
    }
    let cut = random.below(frame.len() as u64 * 3);
    // A frame that ends within two bytes of its VLAN tag is dropped by the kernel before any classifier
    // (skb_vlan_untag), and not counted by one.
    frame.truncate(cut.max(20));
    frame
}
