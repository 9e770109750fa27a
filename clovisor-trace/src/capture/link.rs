//! Where the IP header is behind each kind of link header (numbers of the tcpdump.org LINKTYPE registry).

use super::CaptureError;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, and 802.1ad around it.
const ETHERTYPE_VLAN: [u16; 2] = [0x8100, 0x88a8];

/// A kind of link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Address family in four bytes, of the capturing machine's order: BSD loopback.
    Null,
    Ethernet,
    /// None: the packet starts with its IP header.
    Raw,
    /// `tcpdump -i any` on Linux, first and second version.
    Cooked,
    Cooked2,
}

impl Link {
    pub(super) fn new(number: i32) -> Result<Self, CaptureError> {
        match number {
            0 | 108 => Ok(Self::Null),
            1 => Ok(Self::Ethernet),
            // 12 and 14 are DLT_RAW of systems that wrote it into files.
            12 | 14 | 101 | 228 | 229 => Ok(Self::Raw),
            113 => Ok(Self::Cooked),
            276 => Ok(Self::Cooked2),
            other => Err(CaptureError::LinkType(other)),
        }
    }

    /// Offset of the IP header; `None` if there is none.
    pub(super) fn ip_offset(self, data: &[u8]) -> Option<usize> {
        match self {
            Self::Raw => Some(0),
            // Families differ between systems; the version in the IP header does not.
            Self::Null => data.get(4).filter(|byte| matches!(*byte >> 4, 4 | 6)).map(|_| 4),
            Self::Ethernet => behind_tags(data, 12),
            Self::Cooked => behind_tags(data, 14),
            Self::Cooked2 => is_ip(ethertype(data, 0)?).then_some(20),
        }
    }
}

/// Offset behind an Ethernet type at `at` and the tags that it may announce, if IP follows.
fn behind_tags(data: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..2 {
        if ETHERTYPE_VLAN.contains(&ethertype(data, at)?) {
            at += 4;
        }
    }
    is_ip(ethertype(data, at)?).then_some(at + 2)
}

fn ethertype(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
}
