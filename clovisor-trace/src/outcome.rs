//! How sessions end, and what was seen of each direction. Plain facts that everything else may use.

use crate::anatomy::Troubles;

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

/// How a response was found to answer its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Proved by acknowledgements: when the server sent it, it had all of the request and nothing of a later one, and all
    /// earlier ones had been answered. All messages before on its connection were seen.
    Acked,
    /// By order (RFC 9112 section 9.3.2): the server had several requests, or did not say what it had, or messages before
    /// were not seen, and the client is taken for one that has all responses when it sends into quiet.
    Ordered,
    /// By order, and the server began to answer before it had acknowledged all of the request.
    Early,
}

impl Pairing {
    /// Value of `clovisor.pairing`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Ordered => "ordered",
            Self::Early => "early",
        }
    }
}

/// What was seen of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Packets that carried it; of a whole connection all packets, those without payload too.
    pub packets: u64,
    /// Bytes of TCP payload.
    pub bytes: u64,
    /// What went wrong with it.
    pub troubles: Troubles,
}
