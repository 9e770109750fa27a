//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): requests and responses of one connection, paired.
//!
//! Where bytes are missing or make no sense, the exchanges that they hit say so, and reading goes on at the next
//! packet that starts like a message; [`pairing`] finds out to which request it belongs.

mod body;
pub(crate) mod exchange;
mod fields;
pub(crate) mod head;
mod line;
mod opaque;
mod pairing;
mod pending;
mod preface;
mod queue;
mod reader;
mod request;
mod response;

pub use exchange::{Exchange, MOST_INTERIM};
pub use head::{Framing, RequestHead, ResponseHead};
use pairing::{Habits, Lost, Place};
use pending::Pending;
use queue::Queue;
use reader::Reader;

use super::conversation::{Chunk, Conversation, End, Reports};
use crate::{anatomy::Incident, limits::Limits, outcome::Outcome, packet::Toward};

/// The HTTP/1 machine of one connection.
pub(crate) struct Http1 {
    requests: Reader<false>,
    responses: Reader<true>,
    /// Exchanges whose request was at least begun. The newest may still be in its request.
    pending: Queue,
    /// A response under way to which no request was seen.
    orphan: Option<Box<Pending>>,
    /// Where the body of the latest response begins, if nobody knows the request's method and so whether it has one.
    unsure_body: Place,
    /// Where and when the bytes came that wait for the answer to a request for another protocol.
    held: Option<Box<Held>>,
    /// Exchanges begun since it was last asked.
    begun: u32,
    /// Bytes held in `pending`. Limits keep it far below what this could not tell.
    pending_memory: u32,
    /// Offsets up to which the client's and the server's bytes have come or are known to be missing.
    asked: u64,
    served: u64,
    habits: Habits,
    /// Offset up to which the server has acknowledged.
    acked: u64,
    /// Nothing as long as none is lost.
    lost: Option<Box<Lost>>,
}

/// The first of the bytes in [`State::Hold`](reader::State::Hold).
#[derive(Clone, Copy)]
struct Held {
    offset: u64,
    time_ns: u64,
    acked: u64,
    is_bound: bool,
}

/// So much more is held.
fn hold(held: &mut u32, memory: usize) {
    *held = held.saturating_add(u32::try_from(memory).unwrap_or(u32::MAX));
}

impl Http1 {
    pub(crate) fn new() -> Self {
        Self {
            requests: Reader::new(),
            responses: Reader::new(),
            pending: Queue::default(),
            orphan: None,
            unsure_body: Place::UNKNOWN,
            held: None,
            begun: 0,
            pending_memory: 0,
            asked: 0,
            served: 0,
            habits: Habits::new(),
            acked: 0,
            lost: None,
        }
    }

    /// Whether the newest exchange is still in its request.
    fn in_request(&self) -> bool {
        self.pending.back().is_some_and(|newest| !newest.request_over)
    }

    /// Takes the oldest exchange off.
    fn take_front(&mut self) -> Option<Box<Pending>> {
        let pending = self.pending.pop_front()?;
        self.pending_memory = 0;
        for pending in self.pending.iter() {
            hold(&mut self.pending_memory, pending.memory());
        }
        Some(pending)
    }

    /// What is lost, to write to.
    fn lost(&mut self) -> &mut Lost {
        self.lost.get_or_insert_default()
    }

    /// Reports what is complete.
    fn report_done(&mut self, out: &mut Reports) {
        let is_done = |oldest: &Pending| oldest.response_done && oldest.request_over && !oldest.unconfirmed;
        if self.pending.front().is_some_and(is_done)
            && let Some(done) = self.take_front()
        {
            out.push_back(done.report(Outcome::Complete));
        }
    }

    /// Reports the oldest exchanges, as many as `count`, of which nobody will know the response.
    fn give_up(&mut self, count: usize, outcome: Outcome, out: &mut Reports) {
        for _ in 0..count {
            // One that is still in its request is reported when that ends.
            if let Some(front) = self.pending.front_mut().filter(|front| !front.request_over) {
                front.spoil(outcome);
                front.response_done = true;
                return;
            }
            let Some(lost) = self.take_front() else { return };
            out.push_back(lost.report(outcome));
        }
    }
}

impl Conversation for Http1 {
    fn packet(&mut self, toward: Toward, time_ns: u64, _payload: u64, acked: Option<u64>) {
        let Some(acked) = acked.filter(|acked| toward == Toward::Client && *acked > self.acked) else {
            return;
        };
        self.acked = acked;
        self.pending.each(|pending| pending.acknowledge(acked, time_ns));
    }

    fn incident(&mut self, incident: Incident, offset: u64) {
        let open = self.pending.iter_mut().chain(self.orphan.as_deref_mut());
        // It is of the latest that reaches so far; one that was reported already had ended before.
        if let Some(hit) = open.filter(|pending| pending.holds(incident.toward, offset)).last() {
            hit.incident(incident);
        }
    }

    fn chunk(&mut self, chunk: &Chunk<'_>, limits: &Limits, out: &mut Reports) {
        match chunk.toward {
            Toward::Server => self.request_bytes(chunk, limits, out),
            Toward::Client => self.response_bytes(chunk, limits, out),
        }
    }

    fn gap(&mut self, toward: Toward, len: u64, out: &mut Reports) {
        match toward {
            Toward::Server => self.request_gap(len, out),
            Toward::Client => self.response_gap(len, out),
        }
    }

    fn unneeded(&self, toward: Toward) -> u64 {
        match toward {
            Toward::Server => self.requests.unneeded(),
            // What comes first behind the head may show that there is no body.
            Toward::Client if self.unsure_body.get() == Some(self.served) => 0,
            Toward::Client => self.responses.unneeded(),
        }
    }

    fn is_at_rest(&self) -> bool {
        self.open() == 0 && self.requests.is_between() && self.responses.is_between()
    }

    fn fin(&mut self, toward: Toward, out: &mut Reports) {
        match toward {
            Toward::Server => self.requests.end(),
            Toward::Client => {
                self.responses.end();
                self.responses_end(out);
                // A client that has sent more would have got more.
                if self.responses.is_between() {
                    self.resolve_at_end(End::Fin, out);
                }
            }
        }
    }

    fn end(&mut self, end: End, out: &mut Reports) {
        let outcome = match end {
            End::Fin => Outcome::Closed,
            End::Reset => Outcome::Reset,
            End::Idle => Outcome::Timeout,
            End::Limit => Outcome::Truncated,
            End::Capture => Outcome::ResponseUnobserved,
        };
        if end == End::Fin {
            self.responses_end(out);
        }
        self.request_cut_short();
        self.response_cut_short();
        self.resolve_at_end(end, out);
        if let Some(orphan) = self.orphan.take() {
            out.push_back(orphan.report(outcome));
        }
        while let Some(left) = self.take_front() {
            let done = left.response_done;
            out.push_back(left.report(if done { Outcome::Complete } else { outcome }));
        }
    }

    #[inline]
    fn take_begun(&mut self) -> u32 {
        std::mem::take(&mut self.begun)
    }

    #[inline]
    fn open(&self) -> u32 {
        self.pending.len() + u32::from(self.orphan.is_some())
    }

    #[inline]
    fn memory(&self) -> usize {
        let orphan = self.orphan.as_ref().map_or(0, |orphan| orphan.memory());
        let lost = self.lost.as_ref().map_or(0, |_| size_of::<Lost>());
        let readers = self.requests.memory() + self.responses.memory();
        readers + self.pending_memory as usize + orphan + lost
    }
}
