//! Which request a response answers.
//!
//! In step it is order that tells (RFC 9112 section 9.3.2). Where messages were lost, order tells nothing, and only
//! acknowledgements do: a client that waits for each response sends its next request when it has acknowledged all of the
//! response before, and nothing of the one to come. So the response that begins exactly where a request's
//! acknowledgement stands is the one to that request. A client that pipelines shows it only where it sends into quiet: either
//! end has all that the other had sent. One that was seen to do so while a response was owed is not believed.
//!
//! None of this is proof, since lost bytes may have held any number of messages: such pairs are never called `acked`.
//!
//! The first request after a loss may be the last of a pipelined batch, and nothing in it would show that. Its pair is held
//! back until the next exchange (or the end of the connection) shows that the client had waited.

use super::{Http1, hold, pending::Pending, queue::Queue, reader::State};
use crate::{
    outcome::{Outcome, Pairing},
    protocol::conversation::{Chunk, End, Reports},
};

/// `HTTP/1.1 200` and two bare line ends (RFC 9112 section 2.2).
const SHORTEST_RESPONSE: u64 = 14;

/// What is known of how the client of one connection sends, and of what order tells there.
pub(super) struct Habits {
    /// Requests that nobody could read came since the newest that is pending.
    pub(super) requests_lost: bool,
    /// Messages were lost, so that order does not tell which request the next response answers.
    pub(super) adrift: bool,
    /// Nothing was lost of which nobody knows how many messages it had in it.
    pub(super) proved: bool,
    /// The client has sent a request without waiting for the response to the one before.
    pipelines: bool,
    /// It has waited for a response that was seen before it sent the next request.
    waits: bool,
    /// It has sent a request that found both ends quiet, although it had no response to the one before.
    overlaps: bool,
    /// All of its requests were seen.
    pub(super) is_known: bool,
    /// What the client had acknowledged with the latest bytes of its requests, unless some were lost since.
    latest_acked: Place,
    /// Where the latest bytes of the server end, and what they acknowledged.
    server_said: (Place, u64),
}

/// An offset that may not be known, in the room of one: none is so large.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) u64);

impl Place {
    pub(super) const UNKNOWN: Self = Self(u64::MAX);

    #[inline]
    pub(super) fn get(self) -> Option<u64> {
        (self.0 != u64::MAX).then_some(self.0)
    }
}

/// What of a connection has no partner since order was lost.
#[derive(Default)]
pub(super) struct Lost {
    /// Requests that were given up, and those of which at least one was lost.
    pub(super) requests: u64,
    /// Responses that came without one.
    pub(super) responses: u64,
    /// Bytes of the server that did not come.
    pub(super) bytes: u64,
    /// Where those of them begin that came when all requests that had been seen were answered.
    pub(super) unasked: Option<u64>,
}

impl Lost {
    /// Whether so many further requests, and those given up, may all have their responses among what was lost.
    fn has_room_for(&self, requests: u64) -> bool {
        let room = self.responses.saturating_add(self.bytes / SHORTEST_RESPONSE);
        self.requests.saturating_add(requests) <= room
    }
}

impl Habits {
    /// Those of a client that has sent nothing.
    pub(super) fn new() -> Self {
        Self {
            requests_lost: false,
            adrift: false,
            proved: true,
            pipelines: false,
            waits: false,
            overlaps: false,
            is_known: true,
            latest_acked: Place::UNKNOWN,
            server_said: (Place::UNKNOWN, 0),
        }
    }
}

impl Http1 {
    /// A request begins, in order behind those in `pending`: what does it show?
    pub(super) fn begin_request(&mut self, chunk: &Chunk<'_>, offset: u64, out: &mut Reports) {
        self.end_bodiless(chunk.acked, out);
        let mut pending = Box::new(Pending::new(chunk, offset));
        let after_loss = std::mem::take(&mut self.habits.requests_lost);
        let before = self.habits.latest_acked.get().filter(|_| !after_loss);
        // A repetition may stand before a response that the client had.
        let unanswered = !self.habits.adrift && !chunk.is_bound && self.pending.unanswered().is_some();
        // Nothing came since the end of the request before. A response that came whole before that is an early one; where it
        // was lost, it may have been, if something came during that request.
        let during = self.pending.back().is_some_and(|before| before.first_acked < chunk.acked);
        let is_early = if self.habits.adrift { during } else { !unanswered && self.served == chunk.acked };
        self.habits.pipelines |= unanswered || (before == Some(chunk.acked) && !is_early);
        self.habits.waits |=
            !self.habits.adrift && !unanswered && before.is_some_and(|acked| acked < chunk.acked);
        let is_quiet = self.has_all_of_both(chunk.acked, offset);
        self.habits.overlaps |= unanswered && is_quiet && self.responses.is_between();
        pending.after_loss = after_loss;
        // Were requests lost, nobody knows how it sends but from what was seen.
        self.habits.is_known &= !after_loss;
        let follows = !after_loss && before.is_none_or(|acked| acked < chunk.acked);
        let is_trusted = (self.habits.is_known || self.habits.waits) && !chunk.is_bound;
        pending.waited = (follows || is_quiet) && is_trusted;
        let owed = |queue: &Queue| queue.iter().filter(|before| !before.response_done).count() as u64;
        pending.drained = is_quiet && is_trusted && self.has_room_for(owed(&self.pending));
        // Of a repetition nobody knows but that it had at most so much.
        let had_all = self.served == chunk.acked || (chunk.is_bound && self.served < chunk.acked);
        if self.habits.pipelines || !had_all {
            self.resolve(false, out);
        }
        self.begun += 1;
        hold(&mut self.pending_memory, pending.memory());
        self.pending.push_back(pending);
    }

    /// Bytes of the request that comes now as they were sent first. Where the server's latest bytes were lost, and all other
    /// requests had their responses, they are the response to this one: it came here only when it was sent again.
    pub(super) fn as_sent<'a>(&self, chunk: &Chunk<'a>) -> Chunk<'a> {
        let is_known = self.habits.is_known && !self.habits.requests_lost;
        let until =
            self.lost.as_ref().and_then(|lost| lost.unasked).filter(|until| is_known && *until < chunk.acked);
        until.map_or(*chunk, |acked| Chunk { acked, is_bound: true, ..*chunk })
    }

    /// More bytes of a request came.
    pub(super) fn note_asked(&mut self, chunk: &Chunk<'_>) {
        self.habits.latest_acked = if chunk.is_bound { Place::UNKNOWN } else { Place(chunk.acked) };
    }

    /// Whether a request may begin here, although what came before it was lost. A client that waits goes on with its
    /// request until the response begins.
    pub(super) fn may_ask(&self) -> bool {
        let unanswered = |newest: &Pending| !newest.response_done && newest.response_start_ns.is_none();
        self.habits.adrift || self.habits.pipelines || !self.pending.back().is_some_and(unanswered)
    }

    /// A response without a request may be to HEAD, so that no body follows. That the client goes on shows it.
    fn end_bodiless(&mut self, acked: u64, out: &mut Reports) {
        let at_body = self.unsure_body.get() == Some(acked) && self.served == acked;
        if at_body && matches!(self.responses.state, State::Body(_)) && !self.habits.pipelines {
            self.response_end(None, out);
        }
    }

    /// Whether, with this acknowledgement and at this offset of the client, either end had all that the other had sent.
    pub(super) fn has_all_of_both(&self, acked: u64, offset: u64) -> bool {
        // It cannot have acknowledged more, since the client had sent no more when it had got what came before.
        self.habits.server_said.0.get().is_some_and(|end| end <= acked) && self.habits.server_said.1 == offset
    }

    /// Bytes of the server came, up to the end of this chunk.
    pub(super) fn note_served(&mut self, chunk: &Chunk<'_>, out: &mut Reports) {
        let end = chunk.offset + chunk.bytes.len() as u64;
        if let Some(newest) = self.pending.back().filter(|newest| !newest.response_done && chunk.acked > 0) {
            // If the server sends more than the client had at its latest request, and has not got that, the client had
            // not waited.
            let waited = chunk.acked > newest.offset();
            let is_more = newest.first_acked < end;
            self.habits.pipelines |= is_more && !waited;
            if self.pending.len() > 1 && (is_more || waited) {
                self.resolve(!self.habits.pipelines, out);
            }
        }
        self.served = end;
        self.habits.server_said = (if chunk.is_bound { Place::UNKNOWN } else { Place(end) }, chunk.acked);
    }

    /// Whether a response may begin here, although those before were lost. As long as the server has no more than the
    /// request of a waiting client, all that it sends is the response to that, so what looks like another is its body.
    pub(super) fn may_begin(&self, chunk: &Chunk<'_>) -> bool {
        let newest = self.candidates(chunk).last().filter(|(_, pending)| self.is_alone(pending));
        newest.is_none_or(|(_, pending)| {
            let has_more = pending.request_end.is_some_and(|end| end < chunk.acked);
            has_more || pending.first_acked == self.responses.start_of(chunk)
        })
    }

    /// Where within this chunk a response begins, those before it being lost: where a waiting client's request shows it.
    pub(super) fn known_start(&self, chunk: &Chunk<'_>) -> Option<u64> {
        let inside = chunk.offset + 1..chunk.offset + chunk.bytes.len() as u64;
        let starts = self.candidates(chunk).filter(|(_, pending)| self.is_alone(pending));
        starts.map(|(_, pending)| pending.first_acked).find(|at| inside.contains(at))
    }

    /// Whether the response under way, to a request of which the method was not seen, must have been to HEAD: another one
    /// follows its head.
    pub(super) fn is_bodiless(&self, chunk: &Chunk<'_>) -> bool {
        self.unsure_body.get() == Some(chunk.offset)
            && chunk.packets > 0
            && matches!(self.responses.state, State::Body(_))
            && self.responses.starts_message(chunk.bytes)
    }

    /// A response begins: whether it answers a request that was seen, which is then the first in `pending`
    /// without one.
    pub(super) fn find_request(&mut self, chunk: &Chunk<'_>, offset: u64, out: &mut Reports) -> bool {
        if self.pending.front().is_some_and(|front| front.unconfirmed && front.response_done) {
            // Two responses to one request: the client had sent others before it, or behind it and they were lost.
            // Unless the first was lost before its head was whole: it may have been an interim one.
            let is_whole = self.pending.front().is_some_and(|front| front.exchange.response.is_some());
            self.habits.pipelines |= !self.habits.requests_lost && is_whole;
            self.resolve(false, out);
        }
        let first = self.pending.unanswered_mut();
        let goes_on = first.as_ref().is_some_and(|pending| pending.response_start_ns.is_some());
        // Nobody knows how many requests were lost before this one.
        self.habits.adrift |= first.is_some_and(|pending| std::mem::take(&mut pending.after_loss));
        let found = goes_on
            || if self.habits.adrift {
                self.find_adrift(chunk, offset, out)
            } else {
                self.is_received(chunk)
            };
        if !found && !self.habits.adrift && !self.habits.requests_lost {
            self.disprove(out);
        }
        let pairing = self.evidence(chunk).filter(|_| found);
        let first = self.pending.unanswered_mut();
        if let (Some(pairing), Some(first)) = (pairing, first) {
            // Each message to one request says it anew, so that the final response has the last word.
            first.pairing = Some(pairing);
        }
        found
    }

    /// Whether so many requests may all have their responses among what was lost.
    fn has_room_for(&self, requests: u64) -> bool {
        self.lost.as_ref().map_or(requests == 0, |lost| lost.has_room_for(requests))
    }

    /// Whether the server had received a byte of the oldest request without response: it cannot answer before.
    fn is_received(&self, chunk: &Chunk<'_>) -> bool {
        match self.pending.unanswered() {
            // Those behind it came later in the stream.
            Some(first) => chunk.acked == 0 || first.offset() < chunk.acked,
            None => false,
        }
    }

    /// Requests that a response may answer: the server had received a byte of them. With their places.
    fn candidates(&self, chunk: &Chunk<'_>) -> impl DoubleEndedIterator<Item = (usize, &Pending)> {
        let acked = chunk.acked;
        let received = move |pending: &Pending| acked == 0 || pending.offset() < acked;
        self.pending.places().filter(move |(_, p)| !p.response_done && received(p))
    }

    /// Whether a request was sent by a client that had the responses to all before.
    fn is_alone(&self, pending: &Pending) -> bool {
        (pending.waited && !self.habits.pipelines) || (pending.drained && !self.habits.overlaps)
    }

    /// Finds the request by acknowledgements alone; those before it are given up.
    fn find_adrift(&mut self, chunk: &Chunk<'_>, offset: u64, out: &mut Reports) -> bool {
        let may_pair = |pending: &Pending| !self.habits.pipelines || self.is_alone(pending);
        let exact = |(_, p): &(usize, &Pending)| p.first_acked == offset && may_pair(p);
        // Of a repetition nobody knows whether its sender had the request, if its client may have had it before.
        let may_be_later = |pending: &Pending| chunk.is_bound && pending.first_acked > offset;
        // What only a repetition showed may have been sent with less.
        let is_sure = self.candidates(chunk).any(|(place, p)| exact(&(place, p)) && !p.is_bound);
        let mut exact = self.candidates(chunk).rev().filter(|one| exact(one) && !(is_sure && one.1.is_bound));
        let found = exact.next().map(|(place, pending)| (place, pending.waited));
        // Of two that were sent with the same, one did not wait for the other.
        let is_only = exact.next().is_none();
        drop(exact);
        // The responses to all before it must have come, or be lost.
        let found = found.filter(|(place, _)| is_only && self.has_room_for(*place as u64));
        match found {
            Some((place, waited)) => {
                self.give_up(place, Outcome::CaptureGap, out);
                self.habits.adrift = false;
                self.lost = None;
                if let Some(front) = self.pending.front_mut() {
                    front.after_loss = false;
                    front.unconfirmed = !waited;
                }
                true
            }
            None => {
                let hit = self.candidates(chunk).rfind(|(_, p)| !may_be_later(p));
                let hit = hit.map_or(0, |(place, _)| place + 1);
                self.lost().requests += hit as u64;
                self.give_up(hit, Outcome::CaptureGap, out);
                false
            }
        }
    }

    /// What shows that the response answers the first request without one.
    fn evidence(&self, chunk: &Chunk<'_>) -> Option<Pairing> {
        let mut waiting = self.pending.iter().filter(|pending| !pending.response_done);
        let (first, next) = (waiting.next()?, waiting.next());
        let whole = first.request_end.is_some_and(|end| chunk.acked == 0 || end <= chunk.acked);
        let others = next.is_some_and(|next| next.offset() < chunk.acked) || self.asked < chunk.acked;
        Some(match first.request_over && (whole || first.request_end.is_none()) {
            false => Pairing::Early,
            true if self.habits.proved && whole && chunk.acked > 0 && !others => Pairing::Acked,
            true => Pairing::Ordered,
        })
    }

    /// The pair that was held back is one, or is none and ends as two halves.
    pub(super) fn resolve(&mut self, confirmed: bool, out: &mut Reports) {
        if !self.pending.front().is_some_and(|front| front.unconfirmed && front.response_start_ns.is_some()) {
            return;
        }
        if confirmed && let Some(front) = self.pending.front_mut().filter(|front| front.response_done) {
            front.unconfirmed = false;
            return self.report_done(out);
        }
        let Some(mut request) = self.take_front() else { return };
        let (done, response) = (request.response_done, request.split());
        out.push_back(request.report(Outcome::CaptureGap));
        let Some(response) = response else { return };
        self.begun += 1;
        if done {
            out.push_back(response.report(Outcome::RequestUnobserved));
        } else {
            self.orphan = Some(response);
        }
        self.habits.adrift = true;
    }

    /// What came shows that a client which was taken for one that has all responses was none. Where all is proved, it is
    /// the server that goes wrong.
    pub(super) fn disprove(&mut self, out: &mut Reports) {
        if self.habits.proved {
            return;
        }
        self.habits.pipelines = true;
        self.habits.overlaps = true;
        self.habits.adrift = true;
        if let Some(front) = self.pending.front_mut().filter(|front| front.response_start_ns.is_some()) {
            front.unconfirmed = true;
        }
        self.resolve(false, out);
    }

    /// The connection has ended: does that show that a pair which was held back is one? A client that has sent
    /// more would have got more.
    pub(super) fn resolve_at_end(&mut self, end: End, out: &mut Reports) {
        self.resolve(matches!(end, End::Fin | End::Idle) && !self.habits.pipelines, out);
    }
}
