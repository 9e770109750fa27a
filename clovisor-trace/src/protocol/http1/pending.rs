//! A request and its response while they are under way.

use super::{
    exchange::Exchange,
    head::{RequestHead, ResponseHead},
};
use crate::{
    outcome::{Outcome, Pairing, Transfer},
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
    /// Offset behind its last byte, once it is known.
    pub(crate) request_end: Option<u64>,
    /// Whether no more bytes of its request will be told apart: it ended, or nobody can say where it does.
    pub(crate) request_over: bool,
    pub(crate) response_start_ns: Option<u64>,
    pub(crate) response_done: bool,
    request: Transfer,
    response: Transfer,
    /// Bytes that were not captured, of the request and of the response.
    missing: [u64; 2],
    /// When the latest byte of the request was seen.
    request_seen_ns: u64,
    /// Why it cannot be complete any more, first reason first.
    fault: Option<Outcome>,
    /// Whether requests that nobody could read came before it.
    pub(crate) after_loss: bool,
    /// Whether its client, if it is one that waits, had the responses to all requests before.
    pub(crate) waited: bool,
    /// Whether only what comes next can show that the response is its own.
    pub(crate) unconfirmed: bool,
    /// How the response was found to be its own.
    pub(crate) pairing: Option<Pairing>,
    /// Where the response begins, and what the server had of the client's stream when it sent it.
    response_first: Option<(u64, u64)>,
}

impl Pending {
    /// Begins with the first byte of a request, or of a response without one.
    pub(crate) fn new(chunk: &Chunk<'_>, offset: u64) -> Self {
        let is_request = chunk.toward == Toward::Server;
        Self {
            exchange: Exchange::default(),
            first: (chunk.toward, offset),
            first_acked: chunk.acked,
            start_ns: chunk.time_ns,
            end_ns: chunk.time_ns,
            request_end_ns: None,
            request_end: None,
            request_over: !is_request,
            response_start_ns: None,
            response_done: false,
            request: Transfer::default(),
            response: Transfer::default(),
            missing: [0; 2],
            request_seen_ns: chunk.time_ns,
            fault: (!is_request).then_some(Outcome::RequestUnobserved),
            after_loss: false,
            waited: false,
            unconfirmed: false,
            pairing: None,
            response_first: None,
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
        if chunk.toward == Toward::Server {
            self.request_seen_ns = self.end_ns;
        }
    }

    /// Notes that it cannot be complete; the first reason stays.
    pub(crate) fn spoil(&mut self, outcome: Outcome) {
        self.fault.get_or_insert(outcome);
    }

    /// Notes bytes of it that were not captured.
    pub(crate) fn miss(&mut self, toward: Toward, bytes: u64) {
        self.missing[toward as usize] += bytes;
    }

    /// A response begins, or goes on with another message.
    pub(crate) fn begin_response(&mut self, chunk: &Chunk<'_>, offset: u64) {
        self.response_start_ns.get_or_insert(chunk.time_ns);
        self.response_first.get_or_insert((offset, chunk.acked));
    }

    /// Takes away a response that turned out not to be its own: as one whose request was not seen.
    pub(crate) fn split(&mut self) -> Option<Self> {
        let (first, first_acked) = self.response_first.take()?;
        let start_ns = self.response_start_ns.take()?;
        let end_ns = std::mem::replace(&mut self.end_ns, self.request_seen_ns);
        self.pairing = None;
        self.unconfirmed = false;
        Some(Self {
            exchange: Exchange {
                request: None,
                response: self.exchange.response.take(),
                interim: std::mem::take(&mut self.exchange.interim),
            },
            first: (Toward::Client, first),
            first_acked,
            start_ns,
            end_ns,
            request_end_ns: None,
            request_seen_ns: start_ns,
            request_end: None,
            request_over: true,
            response_start_ns: Some(start_ns),
            response_done: std::mem::take(&mut self.response_done),
            request: Transfer::default(),
            response: std::mem::take(&mut self.response),
            missing: [0, std::mem::take(&mut self.missing[1])],
            fault: Some(Outcome::RequestUnobserved),
            after_loss: false,
            waited: false,
            unconfirmed: false,
            pairing: None,
            response_first: None,
        })
    }

    /// The report of its end; `otherwise` is the outcome unless something has spoilt it.
    pub(crate) fn report(self, otherwise: Outcome) -> Report {
        Report {
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            request_end_ns: self.request_end_ns,
            response_start_ns: self.response_start_ns,
            pairing: self.pairing,
            outcome: self.fault.unwrap_or(otherwise),
            request: self.request,
            response: self.response,
            missing_bytes: self.missing.iter().sum(),
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
