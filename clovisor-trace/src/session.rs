//! A session: one request and its response, or one connection where no parser knows the protocol. The unit
//! in which Clovisor reports, and what the seed calls so.
//!
//! Only what was seen is in it: a field that nobody saw is `None`, and [`Outcome`] says why the session ended.

use std::net::SocketAddr;

use crate::{
    packet::Side,
    protocol::{Protocol, http1::Exchange},
};

/// How a session ended, as observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Request and response were seen to their ends.
    Complete,
    /// The response switched the connection to another protocol (101, or 2xx to CONNECT).
    Upgraded,
    /// The request was seen; tracing ended before its response did.
    ResponseUnobserved,
    /// A response was seen whose request was not.
    RequestUnobserved,
    /// The connection was reset first.
    Reset,
    /// The connection was closed first.
    Closed,
    /// Nothing more was seen for the idle time.
    Timeout,
    /// Bytes that the receiver has were not captured, so the rest cannot be told.
    CaptureGap,
    /// A limit of the tracer was reached.
    Truncated,
    /// The bytes are not of the expected protocol.
    Unparsed,
}

impl Outcome {
    /// All outcomes, in the order in which ledgers show them.
    pub const ALL: [Self; 10] = [
        Self::Complete,
        Self::Upgraded,
        Self::ResponseUnobserved,
        Self::RequestUnobserved,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::CaptureGap,
        Self::Truncated,
        Self::Unparsed,
    ];

    /// Value of `clovisor.outcome`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Upgraded => "upgraded",
            Self::ResponseUnobserved => "response_unobserved",
            Self::RequestUnobserved => "request_unobserved",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::CaptureGap => "capture_gap",
            Self::Truncated => "truncated",
            Self::Unparsed => "unparsed",
        }
    }

    /// Value of `error.type`, where the outcome is a failure that the *traffic* shows. An outcome that is a
    /// limit of the observation says nothing about the request, so it makes no error.
    #[must_use]
    pub const fn error_type(self) -> Option<&'static str> {
        match self {
            Self::Reset => Some("connection_reset"),
            Self::Closed => Some("connection_closed"),
            Self::Timeout => Some("timeout"),
            _ => None,
        }
    }
}

/// What was seen of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Packets that carried it.
    pub packets: u64,
    /// Bytes of TCP payload.
    pub bytes: u64,
}

/// What a session says beyond its addresses and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A whole connection.
    Tcp,
    /// An HTTP/1 request and its response.
    Http(Box<Exchange>),
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Interface at which it was seen.
    pub interface: u32,
    /// Whether the pod there is server or client.
    pub side: Side,
    /// How it was parsed.
    pub protocol: Protocol,
    /// Who asked.
    pub client: SocketAddr,
    /// Who answered.
    pub server: SocketAddr,
    /// When its first byte was seen, in the clock of the packets.
    pub start_ns: u64,
    /// When its last byte was seen.
    pub end_ns: u64,
    /// When the last byte of the request was seen, where it was.
    pub request_end_ns: Option<u64>,
    /// When the first byte of the response was seen, where one was.
    pub response_start_ns: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the client.
    pub request: Transfer,
    /// From the server.
    pub response: Transfer,
    /// Bytes of it that were on the wire but not captured.
    pub missing_bytes: u64,
    /// Sequence number of its first byte (of the response's, if no request was seen): with addresses and
    /// ports it tells the sessions of a host apart.
    pub first_seq: u32,
    /// What the protocol's parser saw.
    pub detail: Detail,
}

impl Session {
    /// From the first byte to the last, in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}
