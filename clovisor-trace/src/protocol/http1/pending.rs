//! A request and its response while they are under way.

use super::{
    exchange::Exchange,
    head::{RequestHead, ResponseHead},
};
use crate::{
    outcome::{Outcome, Transfer},
    packet::Toward,
    protocol::conversation::{Chunk, Detail, Report},
};

/// An exchange that has begun and not ended.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) exchange: Exchange,
    /// Where its first byte is.
    first: (Toward, u64),
    /// What the client had of the server's stream when it sent the first byte.
    pub(crate) first_acked: u64,
    start_ns: u64,
    end_ns: u64,
    pub(crate) request_end_ns: Option<u64>,
    /// Whether no more bytes of its request will be told apart: it ended, or nobody can say where it does.
    pub(crate) request_over: bool,
    pub(crate) response_start_ns: Option<u64>,
    pub(crate) response_done: bool,
    request: Transfer,
    response: Transfer,
    missing_bytes: u64,
    /// Why it cannot be complete any more, first reason first.
    fault: Option<Outcome>,
    /// Whether requests that nobody could read came before it.
    pub(crate) after_loss: bool,
}

impl Pending {
    /// Begins with the first byte of a request, or of a response without one.
    pub(crate) fn new(chunk: &Chunk<'_>, offset: u64) -> Self {
        let is_request = chunk.toward == Toward::Server;
        Self {
            exchange: Exchange::default(),
            first: (chunk.toward, offset),
            first_acked: if is_request { chunk.acked } else { 0 },
            start_ns: chunk.time_ns,
            end_ns: chunk.time_ns,
            request_end_ns: None,
            request_over: !is_request,
            response_start_ns: None,
            response_done: false,
            request: Transfer::default(),
            response: Transfer::default(),
            missing_bytes: 0,
            fault: (!is_request).then_some(Outcome::RequestUnobserved),
            after_loss: false,
        }
    }

    /// Offset of the first byte in the client's stream.
    pub(crate) fn offset(&self) -> u64 {
        self.first.1
    }

    /// Counts bytes that belong to it.
    pub(crate) fn count(&mut self, chunk: &Chunk<'_>, bytes: usize, first_of_packet: bool) {
        let transfer = match chunk.toward {
            Toward::Server => &mut self.request,
            Toward::Client => &mut self.response,
        };
        transfer.bytes += bytes as u64;
        // A packet that also ends the message before counts for that one, unless it is all this one has.
        transfer.packets += u64::from(first_of_packet || transfer.packets == 0);
        self.end_ns = self.end_ns.max(chunk.time_ns);
    }

    /// Notes that it cannot be complete; the first reason stays.
    pub(crate) fn spoil(&mut self, outcome: Outcome) {
        self.fault.get_or_insert(outcome);
    }

    /// Notes bytes of it that were not captured.
    pub(crate) fn miss(&mut self, bytes: u64) {
        self.missing_bytes += bytes;
    }

    /// The report of its end; `otherwise` is the outcome unless something has spoilt it.
    pub(crate) fn report(self, otherwise: Outcome) -> Report {
        Report {
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            request_end_ns: self.request_end_ns,
            response_start_ns: self.response_start_ns,
            outcome: self.fault.unwrap_or(otherwise),
            request: self.request,
            response: self.response,
            missing_bytes: self.missing_bytes,
            first: self.first,
            first_acked: self.first_acked,
            detail: Detail::Http(Box::new(self.exchange)),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.exchange.request.as_ref().map_or(0, RequestHead::memory)
            + self.exchange.response.as_ref().map_or(0, ResponseHead::memory)
    }
}
