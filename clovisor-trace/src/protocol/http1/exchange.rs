//! A request and its response, as a session tells of them.

use super::head::{RequestHead, ResponseHead};

/// The heads of a request and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Head of the request; `None` if it was not seen, not whole, or not HTTP.
    pub request: Option<RequestHead>,
    /// Head of the final response.
    pub response: Option<ResponseHead>,
    /// Status codes of interim responses (RFC 9110 section 15.2), in order; at most [`MOST_INTERIM`].
    pub interim: Vec<u16>,
}

/// Interim responses that are kept of one exchange: a server may send any number.
pub const MOST_INTERIM: usize = 16;
