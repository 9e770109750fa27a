//! What a flow and the machine of its protocol say to each other.

use std::collections::VecDeque;

use super::http1::exchange::Exchange;
use crate::{
    anatomy::{Incident, Trouble},
    limits::Limits,
    packet::Toward,
    session::Session,
};

/// What a session says beyond its addresses and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A whole connection.
    Tcp,
    /// An HTTP/1 request and its response.
    Http(Box<Exchange>),
}

/// Bytes of one stream, in order and without repetition, from one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    pub(crate) toward: Toward,
    pub(crate) time_ns: u64,
    /// Position of the first byte in its stream.
    pub(crate) offset: u64,
    /// How far into the opposite stream the sender had acknowledged when it sent this; everything before
    /// has been delivered, or declared a gap.
    pub(crate) acked: u64,
    /// Whether it may have acknowledged less, since only a repetition was seen.
    pub(crate) is_bound: bool,
    pub(crate) bytes: &'a [u8],
    /// Packets of which these are the first bytes that are delivered: one, or none; more where they were counted together.
    pub(crate) packets: u32,
    /// What is wrong with how they came.
    pub(crate) trouble: Option<Trouble>,
}

impl Chunk<'_> {
    /// What is before an offset within it, and what is behind, as if a packet began there.
    pub(crate) fn split_at(&self, offset: u64) -> (Self, Self) {
        let len = usize::try_from(offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let (before, behind) = self.bytes.split_at(len.min(self.bytes.len()));
        let behind = Self { bytes: behind, offset, packets: 1, trouble: None, ..*self };
        (Self { bytes: before, ..*self }, behind)
    }
}

/// Packets of one direction that were counted together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Those with payload.
    pub(crate) full: u32,
    /// Those without.
    pub(crate) empty: u32,
    /// When the last with payload was seen.
    pub(crate) full_ns: u64,
    /// When the last was seen.
    pub(crate) last_ns: u64,
}

/// How a stream, or the tracing of it, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN: the sender has nothing more to say.
    Fin,
    /// RST: neither side has.
    Reset,
    /// Silent for the idle time.
    Idle,
    /// Given up because a limit was reached.
    Limit,
    /// Tracing ended.
    Capture,
}

/// What a conversation reports. It is written once, where it then waits to be fetched; [`Flow`](crate::flow::Flow) signs it there.
#[derive(Debug)]
pub(crate) struct Report {
    /// Without what only the flow knows: addresses and sequence numbers ([`Session::unsigned`]).
    pub(crate) session: Session,
    /// Where its first byte is.
    pub(crate) first: (Toward, u64),
    /// How far into the opposite stream the sender of that byte had acknowledged.
    pub(crate) first_acked: u64,
    /// When it was made, which the flow adds, too.
    pub(crate) ended_ns: u64,
}

/// What was reported and not fetched, in the order of ends.
pub(crate) type Reports = VecDeque<Report>;

/// The protocol machine of one flow. Total: no bytes make it fail; what it cannot parse it reports as such.
///
/// What it is told keeps causal order: a chunk comes after everything that its sender had acknowledged.
pub(crate) trait Conversation {
    /// A packet with or without payload was seen, in the order of arrival; for counting and times only. `acked`: how far
    /// its sender has got the opposite stream, if it says so.
    fn packet(&mut self, _toward: Toward, _time_ns: u64, _payload: u64, _acked: Option<u64>) {}

    /// Packets were seen that say nothing but that their streams go on, for counting and times only.
    fn counted(&mut self, _toward: Toward, _run: &Run) {}

    /// Something went wrong that no new bytes came with, at this offset of the stream that it hit.
    fn incident(&mut self, incident: Incident, offset: u64);

    /// The next bytes of a stream.
    fn chunk(&mut self, chunk: &Chunk<'_>, limits: &Limits, out: &mut Reports);

    /// The next `len` bytes of a stream were on the wire but not captured; zero if the stream was met in its
    /// middle, so that nobody knows how many came before.
    fn gap(&mut self, toward: Toward, len: u64, out: &mut Reports);

    /// How many of the next bytes of a stream make no difference but by their number: whatever they are, sessions are the
    /// same. `u64::MAX` if that is all that will come.
    fn unneeded(&self, toward: Toward) -> u64;

    /// Whether it stands between two sessions. A connection without a parser never does.
    fn is_at_rest(&self) -> bool;

    /// A stream has ended with [`End::Fin`].
    fn fin(&mut self, toward: Toward, out: &mut Reports);

    /// The flow is over: everything still open is reported.
    fn end(&mut self, end: End, out: &mut Reports);

    /// Sessions that have begun since the last call.
    fn take_begun(&mut self) -> u32;

    /// Sessions that have begun and were not yet reported.
    fn open(&self) -> u32;

    /// Bytes of memory held beside the flow.
    fn memory(&self) -> usize;
}
