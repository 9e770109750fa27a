//! A session: one request and its response, or one connection where no parser knows the protocol. The unit
//! in which Clovisor reports, and what the seed calls so.
//!
//! Only what was seen is in it: a field that nobody saw is `None`, and [`Outcome`] says why the session ended.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    anatomy::Anatomy,
    outcome::{Outcome, Pairing, Transfer},
    packet::Side,
    protocol::{Detail, Protocol},
};

/// Value of `http.request.method` for a method that is not known.
const OTHER_METHOD: &str = "_OTHER";

/// Stands where the flow has not yet said who.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

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
    /// How the response was found to answer the request; `None` unless both were seen.
    pub pairing: Option<Pairing>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the client.
    pub request: Transfer,
    /// From the server.
    pub response: Transfer,
    /// Where its time went.
    pub anatomy: Anatomy,
    /// Bytes of it that were on the wire but not captured.
    pub missing_bytes: u64,
    /// Whether packets of its interface were lost ([`Loss`](crate::Loss)) while it was under way. Of what was not seen to its
    /// end, the rest may be among them.
    pub overlaps_loss: bool,
    /// Sequence number of its first byte (of the response's, if no request was seen): with addresses and
    /// ports it tells the sessions of a host apart.
    pub first_seq: u32,
    /// Sequence number in the opposite direction up to which the sender of that byte had acknowledged when it sent it. Both
    /// come from random starts (RFC 6528), and are the same wherever on its way the connection is seen.
    pub opposite_seq: u32,
    /// What the protocol's parser saw.
    pub detail: Detail,
}

impl Session {
    /// One of which nothing is known but this. The flow that it is of has yet to say where it was and who it was between.
    #[inline]
    pub(crate) fn unsigned(protocol: Protocol, outcome: Outcome, detail: Detail) -> Self {
        Self {
            interface: 0,
            side: Side::Server,
            protocol,
            client: NOBODY,
            server: NOBODY,
            start_ns: 0,
            end_ns: 0,
            request_end_ns: None,
            response_start_ns: None,
            pairing: None,
            outcome,
            request: Transfer::default(),
            response: Transfer::default(),
            anatomy: Anatomy::default(),
            missing_bytes: 0,
            overlaps_loss: false,
            first_seq: 0,
            opposite_seq: 0,
            detail,
        }
    }

    /// `http.request.method`: the request's, if it was seen, and `_OTHER` for one that is not known.
    #[must_use]
    pub fn method(&self) -> Option<&'static str> {
        match &self.detail {
            Detail::Http(exchange) => {
                exchange.request.as_ref().map(|request| request.known_method().unwrap_or(OTHER_METHOD))
            }
            Detail::Tcp => None,
        }
    }

    /// `http.response.status_code`, if it was seen.
    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        match &self.detail {
            Detail::Http(exchange) => exchange.response.as_ref().map(|response| response.status),
            Detail::Tcp => None,
        }
    }

    /// `error.type`: the status code where one says that it failed, else what cut the session off.
    #[must_use]
    pub fn error_type(&self) -> Option<Cow<'static, str>> {
        // 4xx is the caller's fault, so it is an error only of the caller's span.
        let least = if self.side == Side::Client { 400 } else { 500 };
        match self.status_code() {
            Some(code) if code >= least => Some(code.to_string().into()),
            _ => self.outcome.error_type().map(Cow::Borrowed),
        }
    }

    /// From the first byte to the last, in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}
