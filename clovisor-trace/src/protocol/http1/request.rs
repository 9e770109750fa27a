//! The client's direction: requests begin exchanges.

use super::{
    Held, Http1,
    body::{Body, Skip},
    fields::few_headers,
    head::{Framing, RequestHead, strict_request},
    hold,
    reader::{Event, State},
};
use crate::{
    limits::Limits,
    outcome::Outcome,
    packet::Toward,
    protocol::conversation::{Chunk, Reports},
};

impl Http1 {
    /// Takes the next bytes of the client.
    pub(super) fn request_bytes(&mut self, chunk: &Chunk<'_>, limits: &Limits, out: &mut Reports) {
        if self.requests.is_lost()
            && !self.goes_on_preface(chunk)
            && self.may_ask()
            && let Some(before) = self.requests.resync(chunk)
        {
            self.request_bytes(&before.chunk(Toward::Server), limits, out);
        }
        let mut at = 0;
        while at < chunk.bytes.len() {
            at += self.next_request_bytes(chunk, at, limits, out);
            self.report_done(out);
        }
        self.asked = chunk.offset + chunk.bytes.len() as u64;
        let (most, pending) = (limits.pipeline.max(1), self.pending.len() as usize);
        if pending > most {
            // Whose response comes next can no longer be told.
            self.responses_out_of_step(Outcome::Truncated, out);
            let excess = (self.pending.len() as usize).saturating_sub(most);
            self.give_up(excess, Outcome::Truncated, out);
        }
    }

    /// Takes some of the bytes from this place of a chunk on. How many.
    fn next_request_bytes(
        &mut self,
        chunk: &Chunk<'_>,
        at: usize,
        limits: &Limits,
        out: &mut Reports,
    ) -> usize {
        let (offset, bytes) = (chunk.offset + at as u64, &chunk.bytes[at..]);
        if let Some(taken) = self.whole_request(chunk, offset, bytes, limits, out) {
            return taken;
        }
        match self.requests.read(bytes, limits.head) {
            Event::Nothing(taken) => taken,
            Event::Foreign(taken) => {
                self.foreign_request(chunk, offset, taken);
                taken
            }
            Event::Held(taken) => {
                let Chunk { time_ns, acked, is_bound, .. } = *chunk;
                self.held.get_or_insert_with(|| Box::new(Held { offset, time_ns, acked, is_bound }));
                taken
            }
            Event::HeadPart(taken) | Event::BodyPart(taken) => {
                self.request_part(chunk, offset, taken, out);
                taken
            }
            Event::Head(taken, head) => {
                self.request_part(chunk, offset, taken, out);
                let parsed = RequestHead::parse(&head, &limits.headers).ok();
                self.request_head(parsed, offset + taken as u64);
                if self.requests.is_lost() {
                    self.judge_head(chunk, &head, &bytes[taken..]);
                }
                taken
            }
            Event::BodyEnd(taken) => {
                self.request_part(chunk, offset, taken, out);
                self.request_end(offset + taken as u64);
                taken
            }
            event @ (Event::Invalid | Event::TooLong) => {
                let reason = if event == Event::TooLong { Outcome::Truncated } else { Outcome::Unparsed };
                // Bytes that were held are of nobody knows what, so they begin no request.
                if !matches!(self.requests.state, State::Hold(_)) {
                    self.request_part(chunk, offset, bytes.len(), out);
                }
                self.requests_out_of_step(reason);
                if self.asked == 0 && at == 0 {
                    self.judge_preface(chunk, bytes);
                }
                bytes.len()
            }
        }
    }

    /// Reads a clean and whole head where it lies, if one is there, as most are. How long it is.
    fn whole_request(
        &mut self,
        chunk: &Chunk<'_>,
        offset: u64,
        bytes: &[u8],
        limits: &Limits,
        out: &mut Reports,
    ) -> Option<usize> {
        if !self.requests.may_begin(bytes) {
            return None;
        }
        let mut room = few_headers();
        let (request, len) = strict_request(bytes, &mut room, limits.head)?;
        self.request_part(chunk, offset, len, out);
        self.request_head(Some(RequestHead::of(&request, &limits.headers)), offset + len as u64);
        Some(len)
    }

    /// Counts bytes of a request, which they begin if none is under way.
    fn request_part(&mut self, chunk: &Chunk<'_>, offset: u64, bytes: usize, out: &mut Reports) {
        let chunk = &self.as_sent(chunk);
        if !self.in_request() {
            self.begin_request(chunk, offset, out);
        }
        self.note_asked(chunk);
        if let Some(newest) = self.pending.back_mut() {
            newest.count(chunk, offset, bytes);
        }
    }

    /// The head of the newest request is whole, or turned out not to be one. It ends behind this offset.
    fn request_head(&mut self, head: Option<RequestHead>, end: u64) {
        let Some(newest) = self.pending.back_mut() else { return };
        let Some(head) = head else { return self.requests_out_of_step(Outcome::Unparsed) };
        let body = match head.framing {
            Framing::Unsaid | Framing::Length(0) => None,
            Framing::Length(length) => Some(Body::Length(length)),
            Framing::Chunked => Some(Body::CHUNKED),
            // RFC 9112 section 6.3, rules 4 and 5: the length of such a request cannot be told, and the
            // server answers 400 and closes.
            Framing::OtherCoding | Framing::Invalid => {
                hold(&mut self.pending_memory, head.memory());
                newest.exchange.request = Some(head);
                return self.requests_out_of_step(Outcome::Unparsed);
            }
        };
        hold(&mut self.pending_memory, head.memory());
        newest.exchange.request = Some(head);
        match body {
            Some(body) => self.requests.state = State::Body(body),
            None => self.request_end(end),
        }
    }

    /// The newest request has ended, behind this offset.
    fn request_end(&mut self, offset: u64) {
        if let Some(lost) = &mut self.lost {
            lost.unasked = None;
        }
        let Some(newest) = self.pending.back_mut() else { return };
        newest.end_request(offset);
        let wants_tunnel = newest.exchange.request.as_ref().is_some_and(|head| head.wants_tunnel);
        self.requests.state =
            if wants_tunnel && !newest.response_done { State::Hold(Box::default()) } else { State::BETWEEN };
    }

    /// Nobody can tell where the newest request ends.
    fn requests_out_of_step(&mut self, outcome: Outcome) {
        if self.in_request()
            && let Some(newest) = self.pending.back_mut()
        {
            newest.spoil(outcome);
        }
        self.request_cut_short();
        if let Some(newest) = self.pending.back_mut() {
            newest.request_over = true;
        }
        self.requests.state = State::Lost;
        self.habits.requests_lost = true;
        self.habits.proved = false;
    }

    /// The head under way, if any, will not be whole: keeps what was seen of it.
    pub(super) fn request_cut_short(&mut self) {
        let Some(newest) = self.pending.back_mut().filter(|newest| !newest.request_over) else { return };
        let Some(bytes) = self.requests.take_cut_short() else { return };
        let Some(head) = RequestHead::parse_cut_short(&bytes) else { return };
        if head.framing == Framing::Invalid {
            newest.spoil(Outcome::Unparsed);
        }
        hold(&mut self.pending_memory, head.memory());
        newest.exchange.request = Some(head);
    }

    /// Bytes of the client were not captured.
    pub(super) fn request_gap(&mut self, len: u64, out: &mut Reports) {
        self.asked += len;
        if len > 0 && self.requests.is_between() && !self.habits.adrift {
            self.lost().requests += 1;
        }
        if let Some(newest) = self.pending.back_mut().filter(|newest| !newest.request_over) {
            newest.miss(Toward::Server, len);
        }
        match &mut self.requests.state {
            State::Opaque => self.miss_opaque(Toward::Server, len),
            State::Tunnel | State::Lost => {}
            State::Body(body) => match body.skip(len) {
                Skip::Inside => {}
                Skip::End => {
                    if let Some(newest) = self.pending.back_mut() {
                        newest.spoil(Outcome::CaptureGap);
                        newest.request_over = true;
                    }
                    self.requests.state = State::BETWEEN;
                }
                Skip::Lost => self.requests_out_of_step(Outcome::CaptureGap),
            },
            State::Head(_) | State::Hold(_) => self.requests_out_of_step(Outcome::CaptureGap),
        }
        self.report_done(out);
    }

    /// The response has decided what the bytes behind a request that asked for another protocol are.
    pub(super) fn release_hold(&mut self, tunnel: bool, limits: &Limits, out: &mut Reports) {
        let held = self.held.take().map(|held| *held);
        let next = if tunnel { State::Tunnel } else { State::BETWEEN };
        if !tunnel && !matches!(self.requests.state, State::Hold(_)) {
            return;
        }
        let State::Hold(kept) = std::mem::replace(&mut self.requests.state, next) else { return };
        if let Some(Held { offset, time_ns, acked, is_bound }) = held.filter(|_| !tunnel) {
            let toward = Toward::Server;
            self.request_bytes(
                &Chunk {
                    toward,
                    time_ns,
                    offset,
                    acked,
                    is_bound,
                    bytes: &kept.bytes,
                    packets: 1,
                    trouble: None,
                },
                limits,
                out,
            );
        }
    }
}
