//! A request and its response while they are under way.

use super::{
    super::name::Protocol,
    exchange::{Exchange, MOST_INTERIM},
    head::{RequestHead, ResponseHead},
};
use crate::{
    anatomy::{Anatomy, Incident},
    outcome::{Outcome, Pairing, Transfer},
    packet::Toward,
    protocol::conversation::{Chunk, Detail, Report},
    session::Session,
};

/// An exchange that has begun and not ended.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Where it stays until it is exported.
    pub(crate) exchange: Box<Exchange>,
    /// Where its first byte is.
    first: (Toward, u64),
    /// What the client had of the server's stream when it sent the first byte.
    pub(crate) first_acked: u64,
    /// Whether it may have had less, as only a repetition showed it.
    pub(crate) is_bound: bool,
    start_ns: u64,
    end_ns: u64,
    pub(crate) request_end_ns: Option<u64>,
    /// Offset behind its last byte, once it is known.
    pub(crate) request_end: Option<u64>,
    /// Whether no more bytes of its request will be told apart: it ended, or nobody can say where it does.
    pub(crate) request_over: bool,
    pub(crate) response_start_ns: Option<u64>,
    pub(crate) response_done: bool,
    /// Whether the end of the response was not among what was seen.
    pub(crate) response_cut: bool,
    request: Transfer,
    response: Transfer,
    /// Bytes that were not captured, of the request and of the response.
    missing: [u64; 2],
    /// When the latest byte of the request, and of the response, was seen.
    request_seen_ns: u64,
    response_seen_ns: u64,
    anatomy: Anatomy,
    /// Why it cannot be complete any more, first reason first.
    fault: Option<Outcome>,
    /// Whether requests that nobody could read came before it.
    pub(crate) after_loss: bool,
    /// Whether its client, if it is one that waits, had the responses to all requests before.
    pub(crate) waited: bool,
    /// Whether, besides, either end had all that the other had sent.
    pub(crate) drained: bool,
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
            exchange: Box::default(),
            first: (chunk.toward, offset),
            first_acked: chunk.acked,
            is_bound: chunk.is_bound,
            start_ns: chunk.time_ns,
            end_ns: chunk.time_ns,
            request_end_ns: None,
            request_end: None,
            request_over: !is_request,
            response_start_ns: None,
            response_done: false,
            response_cut: false,
            request: Transfer::default(),
            response: Transfer::default(),
            missing: [0; 2],
            request_seen_ns: chunk.time_ns,
            response_seen_ns: 0,
            anatomy: Anatomy::default(),
            fault: (!is_request).then_some(Outcome::RequestUnobserved),
            after_loss: false,
            waited: false,
            drained: false,
            unconfirmed: false,
            pairing: None,
            response_first: None,
        }
    }

    /// Offset of the first byte in the client's stream.
    pub(crate) fn offset(&self) -> u64 {
        self.first.1
    }

    /// Counts bytes of a chunk that belong to it, from an offset on.
    pub(crate) fn count(&mut self, chunk: &Chunk<'_>, offset: u64, bytes: usize) {
        let is_first = offset == chunk.offset;
        let Chunk { toward, time_ns, .. } = *chunk;
        let transfer = self.transfer(toward);
        transfer.bytes += bytes as u64;
        // A packet that also ends the message before counts for that one, unless it is all this one has.
        transfer.packets += if is_first { u64::from(chunk.packets) } else { 0 };
        transfer.packets = transfer.packets.max(1);
        self.end_ns = self.end_ns.max(time_ns);
        match toward {
            Toward::Server => self.request_seen_ns = self.request_seen_ns.max(time_ns),
            Toward::Client => self.response_seen_ns = self.response_seen_ns.max(time_ns),
        }
        if let Some(trouble) = chunk.trouble.filter(|_| is_first) {
            self.incident(Incident { time_ns, toward, trouble });
        }
    }

    fn transfer(&mut self, toward: Toward) -> &mut Transfer {
        match toward {
            Toward::Server => &mut self.request,
            Toward::Client => &mut self.response,
        }
    }

    /// Counts something that went wrong with it.
    pub(crate) fn incident(&mut self, incident: Incident) {
        self.transfer(incident.toward).troubles.add(incident.trouble);
        self.anatomy.keep(incident);
    }

    /// Whether the byte at an offset is one of its own, as far as is known.
    pub(crate) fn holds(&self, toward: Toward, offset: u64) -> bool {
        match toward {
            Toward::Server => {
                self.first.0 == toward
                    && self.offset() <= offset
                    && self.request_end.is_none_or(|end| offset < end)
            }
            Toward::Client => self.response_first.is_some_and(|(first, _)| first <= offset),
        }
    }

    /// Its request has ended, behind this offset.
    pub(crate) fn end_request(&mut self, offset: u64) {
        self.request_end = Some(offset);
        // Not the time of its last byte in the stream: an earlier one may have come later.
        self.request_end_ns = Some(self.request_seen_ns);
        self.request_over = true;
    }

    /// The server has acknowledged all before an offset.
    pub(crate) fn acknowledge(&mut self, offset: u64, time_ns: u64) {
        if self.request_end.is_some_and(|end| end <= offset) {
            self.anatomy.request_acked_ns.get_or_insert(time_ns);
        }
    }

    /// No more bytes of its response will come.
    pub(crate) fn end_response(&mut self) {
        self.response_done = true;
        if !self.response_cut {
            self.anatomy.answer_end_ns = Some(self.response_seen_ns);
        }
    }

    /// Notes that it cannot be complete; the first reason stays.
    pub(crate) fn spoil(&mut self, outcome: Outcome) {
        self.fault.get_or_insert(outcome);
    }

    /// Notes that its bytes are no HTTP. Those of a server that nobody asked are not even a response, then.
    pub(crate) fn spoil_unparsed(&mut self) {
        let is_response = self.exchange.response.is_some() || !self.exchange.interim.is_empty();
        match self.fault {
            Some(Outcome::RequestUnobserved) if !is_response => self.fault = Some(Outcome::Unparsed),
            _ => self.spoil(Outcome::Unparsed),
        }
    }

    /// Whether its bytes made no sense.
    pub(crate) fn is_unparsed(&self) -> bool {
        self.fault == Some(Outcome::Unparsed)
    }

    /// Notes bytes of it that were not captured.
    pub(crate) fn miss(&mut self, toward: Toward, bytes: u64) {
        self.missing[toward as usize] += bytes;
    }

    /// A response begins, or goes on with another message.
    pub(crate) fn begin_response(&mut self, chunk: &Chunk<'_>, offset: u64) {
        self.response_start_ns.get_or_insert(chunk.time_ns);
        self.response_first.get_or_insert((offset, chunk.acked));
        // The last message is the final response.
        self.anatomy.answer_start_ns = Some(chunk.time_ns);
    }

    /// Notes an interim response.
    pub(crate) fn keep_interim(&mut self, status: u16) {
        if self.exchange.interim.len() < MOST_INTERIM {
            self.exchange.interim.push(status);
        }
    }

    /// Takes away a response that turned out not to be its own: as one whose request was not seen.
    pub(crate) fn split(&mut self) -> Option<Box<Self>> {
        let (first, first_acked) = self.response_first.take()?;
        let start_ns = self.response_start_ns.take()?;
        let end_ns = std::mem::replace(&mut self.end_ns, self.request_seen_ns);
        let anatomy = self.split_anatomy();
        self.pairing = None;
        self.unconfirmed = false;
        // What the response did is none of its doing.
        self.fault = self.fault.filter(|fault| *fault != Outcome::Upgraded);
        Some(Box::new(Self {
            exchange: Box::new(Exchange {
                request: None,
                response: self.exchange.response.take(),
                interim: std::mem::take(&mut self.exchange.interim),
            }),
            first: (Toward::Client, first),
            first_acked,
            is_bound: false,
            start_ns,
            end_ns,
            request_end_ns: None,
            request_seen_ns: start_ns,
            request_end: None,
            request_over: true,
            response_start_ns: Some(start_ns),
            response_done: std::mem::take(&mut self.response_done),
            response_cut: std::mem::take(&mut self.response_cut),
            response_seen_ns: std::mem::take(&mut self.response_seen_ns),
            anatomy,
            request: Transfer::default(),
            response: std::mem::take(&mut self.response),
            missing: [0, std::mem::take(&mut self.missing[1])],
            fault: Some(Outcome::RequestUnobserved),
            after_loss: false,
            waited: false,
            drained: false,
            unconfirmed: false,
            pairing: None,
            response_first: None,
        }))
    }

    /// Takes the response's part of the anatomy away.
    fn split_anatomy(&mut self) -> Anatomy {
        let (of_response, of_request) =
            self.anatomy.incidents.drain(..).partition(|incident| incident.toward == Toward::Client);
        self.anatomy.incidents = of_request;
        Anatomy {
            answer_start_ns: self.anatomy.answer_start_ns.take(),
            answer_end_ns: self.anatomy.answer_end_ns.take(),
            incidents: of_response,
            ..Anatomy::default()
        }
    }

    /// The report of its end; `otherwise` is the outcome unless something has spoilt it.
    #[inline]
    pub(crate) fn report(self: Box<Self>, otherwise: Outcome) -> Report {
        let outcome = self.fault.unwrap_or(otherwise);
        Report {
            session: Session {
                start_ns: self.start_ns,
                end_ns: self.end_ns.max(self.start_ns),
                request_end_ns: self.request_end_ns,
                response_start_ns: self.response_start_ns,
                pairing: self.pairing,
                request: self.request,
                response: self.response,
                missing_bytes: self.missing.iter().sum(),
                anatomy: self.anatomy,
                ..Session::unsigned(Protocol::Http, outcome, Detail::Http(self.exchange))
            },
            first: self.first,
            first_acked: self.first_acked,
            ended_ns: 0,
        }
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + size_of::<Exchange>()
            + self.anatomy.memory()
            + self.exchange.request.as_ref().map_or(0, RequestHead::memory)
            + self.exchange.response.as_ref().map_or(0, ResponseHead::memory)
    }
}
