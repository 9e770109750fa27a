//! The header that the kernel writes in front of each captured packet.

use crate::{Counted, SessionKey, assert_size};

/// Most bytes of one packet that are captured, link header included.
///
/// A perf record's length is a 16-bit field (`struct perf_event_header`, `include/uapi/linux/perf_event.h`),
/// so a record cannot hold a packet beyond 64 KiB, and big TCP (kernel 5.19) makes GSO packets up to 512 KiB.
/// What lies beyond is cut and counted as [`Verdict::EmittedCut`](crate::Verdict::EmittedCut). 256 bytes are
/// left for the record's own header, [`EventHeader`] and alignment.
pub const MAX_CAPTURE: u32 = 0xffff - 0xff;

/// In front of each record in a buffer. A captured packet follows, from its link header on; or a [`Tale`], where the direction is
/// [`direction::COUNTED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// When the classifier ran that wrote it: `bpf_ktime_get_ns`, CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Number of the interface: its index (`ifindex`), or [`INSIDE`](crate::INSIDE) and what the agent gave out.
    pub interface: u32,
    /// Length of the packet on the wire from its link header on, in bytes.
    pub wire_len: u32,
    /// How many of those bytes follow this header; at most [`MAX_CAPTURE`].
    pub captured_len: u32,
    /// Bytes of link header (and 802.1Q tag) before the IP header.
    pub link_len: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`side`].
    pub side: u8,
    /// One of [`protocol`](crate::protocol).
    pub protocol: u8,
}
assert_size!(EventHeader, 24);

impl EventHeader {
    /// Whether the packet came without its payload because nobody looks at that ([`Window`](crate::Window)): it is shorter
    /// than on the wire, and not for want of room.
    #[must_use]
    pub const fn is_trimmed(&self) -> bool {
        self.captured_len < self.wire_len && self.captured_len < MAX_CAPTURE
    }
}

/// Which way a packet goes, seen from the pod.
pub mod direction {
    /// The pod sent it: the host side of its veth receives it, `handle_ingress`; or its own interface sends it,
    /// `pod_egress`.
    pub const FROM_POD: u8 = 0;
    /// It is on its way to the pod: the host side of its veth sends it, `handle_egress`; or its own interface
    /// receives it, `pod_ingress`.
    pub const TO_POD: u8 = 1;
    /// No packet, but what was counted of a connection.
    pub const COUNTED: u8 = 2;
}

/// What was counted of a connection, told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tale {
    /// The connection.
    pub connection: SessionKey,
    /// Its slot's content.
    pub counted: Counted,
}
assert_size!(Tale, 40 + 112);

/// Why a packet was picked.
pub mod side {
    /// Its port at the pod is a listening port: the pod is the server.
    pub const SERVER: u8 = 0;
    /// Its remote address and port are an egress target: the pod is the client.
    pub const CLIENT: u8 = 1;
}
