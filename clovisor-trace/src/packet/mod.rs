//! What comes in: one packet from its IP header up, and why it was picked.
//!
//! It refuses to choose packets; that was done in the kernel, or by [`Rules`](crate::Rules) for a capture.

mod decode;
mod fragment;

use std::net::IpAddr;

pub(crate) use decode::{Decoded, decode, segment};
pub(crate) use fragment::{Datagrams, Fragment};

use crate::protocol::name::Protocol;

/// Whether the pod behind the interface is the server or the client of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The pod listens on the port.
    Server,
    /// The pod connects to an egress target.
    Client,
}

/// Which way bytes travel; names one of the two streams of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Toward {
    /// From the client: requests.
    Server,
    /// From the server: responses.
    Client,
}

impl Toward {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::Server, Self::Client];

    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }

    /// Of a packet that goes this way at the pod, where the pod is on this side.
    #[must_use]
    pub const fn of(side: Side, heading: Heading) -> Self {
        match (side, heading) {
            (Side::Server, Heading::ToPod) | (Side::Client, Heading::FromPod) => Self::Server,
            (Side::Server, Heading::FromPod) | (Side::Client, Heading::ToPod) => Self::Client,
        }
    }
}

/// Which way a packet goes at the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Heading {
    /// The pod receives it.
    ToPod,
    /// The pod sends it.
    FromPod,
}

impl Heading {
    /// Of a packet toward one end, where the pod is on this side.
    pub(crate) const fn of(side: Side, toward: Toward) -> Self {
        match (side, toward) {
            (Side::Server, Toward::Server) | (Side::Client, Toward::Client) => Self::ToPod,
            (Side::Server, Toward::Client) | (Side::Client, Toward::Server) => Self::FromPod,
        }
    }
}

/// One packet that was picked.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was seen, in nanoseconds of any monotonic clock; sessions carry the same clock.
    pub time_ns: u64,
    /// Number of the interface; it is handed on to the session and tells flows of interfaces apart.
    pub interface: u32,
    /// Whether the pod is server or client.
    pub side: Side,
    /// Which way it travels.
    pub toward: Toward,
    /// How its flow is to be parsed; the first packet of a flow decides.
    pub protocol: Protocol,
    /// Length on the wire from the IP header on, in bytes; `data` is shorter where the capture cut it.
    pub wire_len: u32,
    /// The packet from its IP header on.
    pub data: &'a [u8],
}

/// An address and a port, in two thirds of what a `SocketAddr` takes.
pub(crate) type Endpoint = (IpAddr, u16);

/// The TCP part of a packet (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
    pub(crate) seq: u32,
    /// Acknowledgement number, where the ACK flag is set.
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// How much more its sender takes, not scaled (RFC 7323 section 2.2): only whether it is zero can be told.
    pub(crate) window: u16,
    pub(crate) payload: &'a [u8],
    /// Length of the payload on the wire; `payload` is shorter where the capture cut it.
    pub(crate) payload_len: u32,
}

impl Segment<'_> {
    /// Whether it came without some of its payload.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.payload.len() < self.payload_len as usize
    }
}
