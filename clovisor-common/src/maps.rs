//! Keys, values and names of the BPF maps. Every key has the number of an interface, so that one loaded
//! pair of programs serves all interfaces of a node. That is its index in the agent's network namespace; for an
//! interface inside a pod's namespace it is [`INSIDE`] and 16 bits that the agent gave out.
//!
//! Ports and interface indices are in host byte order, addresses in network byte order; an IPv4 address is
//! kept as its IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2).

use crate::{assert_size, counting::Reach};

/// Names of maps and programs, as the original Clovisor has them.
pub mod name {
    /// Hash: [`PortKey`](super::PortKey) to [`protocol`](super::protocol); the agent writes, the kernel reads.
    pub const PORTS: &str = "dports2proto";
    /// Hash: [`EgressKey`](super::EgressKey) to [`protocol`](super::protocol); the agent writes, the kernel reads.
    pub const EGRESS: &str = "egress_lookup_table";
    /// Array of one u32: whether there is any egress target; the agent writes, the kernel reads.
    pub const HAS_EGRESS: &str = "has_egress";
    /// LRU hash: [`SessionKey`](super::SessionKey) to [`SessionValue`](super::SessionValue); the kernel makes entries and writes
    /// times, the agent gives out slots.
    pub const SESSIONS: &str = "sessions";
    /// Array of [`SLOTS`](crate::counting::SLOTS) [`Spared`](crate::Spared): what is not needed of a connection; the agent writes.
    pub const UNNEEDED: &str = "unneeded";
    /// Array of [`SLOTS`](crate::counting::SLOTS) [`Counted`](crate::Counted): what was counted of it; the kernel writes.
    pub const COUNTED: &str = "counted";
    /// Ring buffer, or perf event array: [`EventHeader`](crate::EventHeader) and what it says.
    pub const EVENTS: &str = "packets";
    /// Array of one u64: how many bytes may wait in the ring buffer before its reader is woken; the agent writes, the kernel
    /// side takes it away (`u64::MAX`) when it wakes the agent.
    pub const WAKE_AT: &str = "wake_at";
    /// Array of one u64: how many interfaces share the upper half of the ring buffer; the agent writes, the kernel side reads.
    pub const SHARERS: &str = "sharers";
    /// Size of the ring buffer in bytes, a constant of the loaded program; the agent sets it before it loads the program.
    pub const RING_BYTES: &str = "RING_BYTES";
    /// Per-CPU array indexed by [`Verdict::index`](crate::Verdict::index), of packet counts (u64).
    pub const VERDICTS: &str = "verdicts";
    /// Per-CPU hash: number of the interface, or [`ANY_INTERFACE`](super::ANY_INTERFACE), to
    /// [`LossValue`](super::LossValue); the kernel writes, the agent makes and removes entries.
    pub const LOSSES: &str = "losses";
    /// Hash: number of the interface to the share of its connections that is traced, as the lot below which they are
    /// ([`SessionValue::lot`](super::SessionValue::lot)); all are where there is no entry. The agent writes, the kernel reads.
    pub const SHARES: &str = "shares";
    /// Per-CPU hash: number of the interface, or [`ANY_INTERFACE`](super::ANY_INTERFACE), to
    /// [`ShedValue`](super::ShedValue); the kernel writes, the agent makes and removes entries.
    pub const SHED: &str = "shed";
    /// Classifier of what the pod sends.
    pub const INGRESS: &str = "handle_ingress";
    /// Classifier of what the pod receives.
    pub const EGRESS_PROGRAM: &str = "handle_egress";
    /// Classifier of what the pod receives, inside its namespace.
    pub const POD_INGRESS: &str = "pod_ingress";
    /// Classifier of what the pod sends, inside its namespace.
    pub const POD_EGRESS: &str = "pod_egress";
}

/// Protocol numbers, as the original Clovisor has them. Zero is never stored.
pub mod protocol {
    /// HTTP/1.0 and HTTP/1.1.
    pub const HTTP: u8 = 1;
    /// TCP without a parser: one session a connection.
    pub const TCP: u8 = 3;
}

/// Set in the number of an interface inside a pod's namespace. The kernel's indexes are positive `int`s, so none
/// of them has it.
pub const INSIDE: u32 = 1 << 31;

/// The key of packets, lost or left out, of which the interface is not known, because the map had no room for it. The agent makes
/// this entry when it loads the map, so none goes uncounted there. No interface has this number.
pub const ANY_INTERFACE: u32 = 0;

/// The address of an [`EgressKey`] that matches any address.
pub const ANY_ADDRESS: [u8; 16] = [0; 16];

/// A listening port of the pod behind an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Number of the interface.
    pub interface: u32,
    /// TCP port.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}
assert_size!(PortKey, 8);

/// An outbound target of the pod behind an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EgressKey {
    /// Number of the interface.
    pub interface: u32,
    /// Remote TCP port.
    pub port: u16,
    /// Zero.
    pub pad: u16,
    /// Remote address, or [`ANY_ADDRESS`].
    pub address: [u8; 16],
}
assert_size!(EgressKey, 24);

/// One TCP connection as seen at one interface, from the client's point of view.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Address of the client.
    pub client: [u8; 16],
    /// Address of the server.
    pub server: [u8; 16],
    /// Port of the client.
    pub client_port: u16,
    /// Port of the server.
    pub server_port: u16,
    /// Number of the interface.
    pub interface: u32,
}
assert_size!(SessionKey, 40);

/// What is known of a connection: the newest packet with payload of each direction and how far it was sent, by the kernel, and by the
/// agent where it says what need not be copied. Either may leave it out: the kernel a new one, at the SYN that opens it; the agent one
/// in which nothing is under way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionValue {
    /// Kernel time of the newest packet of the client, nanoseconds; 0 if none was seen.
    pub request_ns: u64,
    /// Kernel time of the newest packet of the server, nanoseconds; 0 if none was seen.
    pub response_ns: u64,
    /// How far the client's stream has come, then the server's.
    pub reach: [Reach; 2],
    /// Its slot ([`counting::slot`](crate::counting::slot)); 0 if it has none.
    pub slot: u32,
    /// Sequence number of the SYN that opened it, which tells another connection on the same ports from a repetition; 0 if none was seen.
    pub opened: u32,
    /// A hash of the client's address and port: it is left out where its interface's share ([`name::SHARES`]) is not above it. 31
    /// bits, and [`LEFT_OUT`] while it is.
    pub lot: u32,
    /// Zero.
    pub pad: u32,
}
assert_size!(SessionValue, 48);

/// Set in the lot of a connection that is left out.
pub const LEFT_OUT: u32 = 1 << 31;

/// Bytes of one direction that nobody looks at, by their sequence numbers (RFC 9293 section 3.4): a packet with no others is
/// captured without its payload, or only counted ([`counting`](crate::counting)). The agent writes it; a packet behind it, or a SYN, shows the kernel side that it is over.
/// It is shorter than 2^31, so that what is in it and what is behind it can be told apart. Empty where both are equal. When it was told,
/// all before it had come, or had been given up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Sequence number of its first byte.
    pub from: u32,
    /// Sequence number behind its last byte.
    pub until: u32,
}
assert_size!(Window, 8);

/// Packets of one interface that were selected and lost ([`Verdict::LOST`](crate::Verdict::LOST)), on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossValue {
    /// How many.
    pub packets: u64,
    /// Kernel time of the last of them, nanoseconds.
    pub last_ns: u64,
}
assert_size!(LossValue, 16);

/// Packets of one interface that were selected and left out ([`Verdict::Shed`](crate::Verdict::Shed)), on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShedValue {
    /// How many.
    pub packets: u64,
    /// How many sessions they began: with a parser, each time that the client speaks after the server has; without, connections.
    pub sessions: u64,
}
assert_size!(ShedValue, 16);

/// A fragmented IP datagram. Only its first fragment has the ports, so the choice is kept for the others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Identification (16 bits of IPv4, 32 bits of IPv6).
    pub id: u32,
    /// Number of the interface.
    pub interface: u32,
}
assert_size!(FragmentKey, 40);

/// The choice made on a datagram's first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentValue {
    /// One of [`side`](crate::side).
    pub side: u8,
    /// One of [`protocol`].
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 2],
}
assert_size!(FragmentValue, 4);

#[cfg(feature = "user")]
mod pod {
    //! aya copies these to and from the kernel byte by byte.
    // SAFETY: repr(C), integers only, no padding (the sizes above are the sums of the fields), any bit
    // pattern is valid.
    unsafe impl aya::Pod for super::PortKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::EgressKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SessionKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::SessionValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Spared {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Counted {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::LossValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ShedValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FragmentKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FragmentValue {}
}
