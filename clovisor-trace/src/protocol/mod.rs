//! Protocols: what the ordered bytes of a flow mean. One folder (or file) each, behind [`Conversation`].
//!
//! A new protocol is a new folder with a `Conversation`, a variant of [`Protocol`] with its names, and a
//! line in [`Machine`] and [`Detail`].

mod conversation;
pub(crate) mod http1;
pub(crate) mod name;
mod tcp;

pub use conversation::Detail;
pub(crate) use conversation::{Chunk, Conversation, End, Report, Reports, Run};
pub use name::{Protocol, UnknownProtocol, from_app_protocol, from_port_name};

use crate::{anatomy::Incident, limits::Limits, packet::Toward};

/// The machine of a flow, in the place where the flow is. That of the protocol that most flows have lies in it.
pub(crate) enum Machine {
    /// See [`Protocol::Http`].
    Http(http1::Http1),
    /// See [`Protocol::Tcp`].
    Tcp(Box<tcp::Tcp>),
}

impl Machine {
    /// The one that parses a flow of a protocol.
    pub(crate) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http(http1::Http1::new()),
            Protocol::Tcp => Self::Tcp(Box::new(tcp::Tcp::new())),
        }
    }
}

/// What any machine does is done by the one that is there.
macro_rules! by_the_one {
    ($machine:ident, $one:ident => $call:expr) => {
        match $machine {
            Self::Http($one) => $call,
            Self::Tcp($one) => $call,
        }
    };
}

impl Conversation for Machine {
    #[inline]
    fn packet(&mut self, toward: Toward, time_ns: u64, payload: u64, acked: Option<u64>) {
        by_the_one!(self, one => one.packet(toward, time_ns, payload, acked));
    }

    fn counted(&mut self, toward: Toward, run: &Run) {
        by_the_one!(self, one => one.counted(toward, run));
    }

    fn incident(&mut self, incident: Incident, offset: u64) {
        by_the_one!(self, one => one.incident(incident, offset));
    }

    #[inline]
    fn chunk(&mut self, chunk: &Chunk<'_>, limits: &Limits, out: &mut Reports) {
        by_the_one!(self, one => one.chunk(chunk, limits, out));
    }

    fn gap(&mut self, toward: Toward, len: u64, out: &mut Reports) {
        by_the_one!(self, one => one.gap(toward, len, out));
    }

    fn unneeded(&self, toward: Toward) -> u64 {
        by_the_one!(self, one => one.unneeded(toward))
    }

    fn is_at_rest(&self) -> bool {
        by_the_one!(self, one => one.is_at_rest())
    }

    fn fin(&mut self, toward: Toward, out: &mut Reports) {
        by_the_one!(self, one => one.fin(toward, out));
    }

    fn end(&mut self, end: End, out: &mut Reports) {
        by_the_one!(self, one => one.end(end, out));
    }

    #[inline]
    fn take_begun(&mut self) -> u32 {
        by_the_one!(self, one => one.take_begun())
    }

    #[inline]
    fn open(&self) -> u32 {
        by_the_one!(self, one => one.open())
    }

    #[inline]
    fn memory(&self) -> usize {
        by_the_one!(self, one => one.memory())
    }
}
