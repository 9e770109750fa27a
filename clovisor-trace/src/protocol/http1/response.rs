//! The server's direction: responses end exchanges, and which one is decided here.

use super::{
    Http1,
    body::{Body, Skip},
    fields::few_headers,
    head::{Framing, ResponseHead, strict_response},
    hold,
    pairing::Place,
    pending::Pending,
    reader::{Event, State},
};
use crate::{
    limits::Limits,
    outcome::Outcome,
    packet::Toward,
    protocol::conversation::{Chunk, Reports},
};

/// What follows the head of a response.
enum After {
    /// Another head: it was an interim response.
    Interim,
    /// Another protocol.
    Tunnel,
    /// Nothing: the response is whole.
    Nothing,
    /// A body.
    Body(Body),
}

impl Http1 {
    /// Takes the next bytes of the server.
    pub(super) fn response_bytes(&mut self, chunk: &Chunk<'_>, limits: &Limits, out: &mut Reports) {
        if self.responses.is_lost()
            && let Some(at) = self.known_start(chunk)
        {
            let (before, behind) = chunk.split_at(at);
            self.response_bytes(&before, limits, out);
            return self.response_bytes(&behind, limits, out);
        }
        if self.is_bodiless(chunk) {
            self.response_end(None, out);
        }
        if self.responses.is_lost()
            && self.may_begin(chunk)
            && let Some(before) = self.responses.resync(chunk)
        {
            self.response_bytes(&before.chunk(Toward::Client), limits, out);
        }
        self.note_served(chunk, out);
        let mut at = 0;
        while at < chunk.bytes.len() {
            at += self.next_response_bytes(chunk, at, limits, out);
        }
    }

    /// Takes some of the bytes from this place of a chunk on. How many.
    fn next_response_bytes(
        &mut self,
        chunk: &Chunk<'_>,
        at: usize,
        limits: &Limits,
        out: &mut Reports,
    ) -> usize {
        let (offset, bytes) = (chunk.offset + at as u64, &chunk.bytes[at..]);
        if self.responses.may_begin(bytes) {
            self.begin_response(chunk, offset, out);
            let mut room = few_headers();
            if let Some((response, taken)) = strict_response(bytes, &mut room, limits.head) {
                let head = ResponseHead::of(&response, &limits.headers);
                self.response_whole(chunk, offset, taken, Some(head), limits, out);
                return taken;
            }
        }
        match self.responses.read(bytes, limits.head) {
            Event::Nothing(taken) | Event::Held(taken) => taken,
            Event::Foreign(taken) => {
                self.foreign_response(chunk, offset, taken);
                taken
            }
            Event::HeadPart(taken) | Event::BodyPart(taken) => {
                self.response_part(chunk, offset, taken);
                taken
            }
            Event::Head(taken, head) => {
                let head = ResponseHead::parse(&head, &limits.headers).ok();
                self.response_whole(chunk, offset, taken, head, limits, out);
                taken
            }
            Event::BodyEnd(taken) => {
                self.response_part(chunk, offset, taken);
                self.response_end(None, out);
                taken
            }
            event @ (Event::Invalid | Event::TooLong) => {
                let reason = if event == Event::TooLong { Outcome::Truncated } else { Outcome::Unparsed };
                self.response_part(chunk, offset, bytes.len());
                if self.answers_lost_hello(offset, bytes) {
                    return bytes.len();
                }
                // The body was not framed as this request would have it. What answers nonsense may be nonsense.
                if self.orphan.is_none() && !self.answered().is_some_and(|answered| answered.is_unparsed()) {
                    self.disprove(out);
                }
                self.responses_out_of_step(reason, out);
                bytes.len()
            }
        }
    }

    /// The exchange that the response under way belongs to.
    fn answered(&mut self) -> Option<&mut Pending> {
        match &mut self.orphan {
            Some(orphan) => Some(orphan),
            None => self.pending.unanswered_mut(),
        }
    }

    /// The first byte of a response is here: finds the request that it answers.
    fn begin_response(&mut self, chunk: &Chunk<'_>, offset: u64, out: &mut Reports) {
        // Another message of a response whose request is not known says no more of it.
        if self.orphan.is_none() && !self.find_request(chunk, offset, out) {
            self.begun += 1;
            if self.habits.adrift || self.habits.requests_lost {
                self.lost().responses += 1;
            }
            self.orphan = Some(Box::new(Pending::new(chunk, offset)));
        }
        if let Some(answered) = self.answered() {
            answered.begin_response(chunk, offset);
        }
    }

    fn response_part(&mut self, chunk: &Chunk<'_>, offset: u64, bytes: usize) {
        if let Some(answered) = self.answered() {
            answered.count(chunk, offset, bytes);
        }
    }

    /// So many bytes made the head of a response whole.
    fn response_whole(
        &mut self,
        chunk: &Chunk<'_>,
        offset: u64,
        bytes: usize,
        head: Option<ResponseHead>,
        limits: &Limits,
        out: &mut Reports,
    ) {
        self.response_part(chunk, offset, bytes);
        // Where nothing was lost, no request was that nobody saw; one still in its head will tell its method.
        let unknown = !self.habits.proved
            && self
                .answered()
                .is_some_and(|answered| answered.request_over && answered.exchange.request.is_none());
        self.unsure_body = if unknown { Place(offset + bytes as u64) } else { Place::UNKNOWN };
        self.response_head(head, limits, out);
    }

    /// The head of a response is whole, or turned out not to be one.
    fn response_head(&mut self, head: Option<ResponseHead>, limits: &Limits, out: &mut Reports) {
        let Some(head) = head else { return self.responses_out_of_step(Outcome::Unparsed, out) };
        let memory = head.memory();
        let Some(answered) = self.answered() else { return };
        let method = answered.exchange.request.as_ref().map(|request| request.method.as_str());
        let after = after(&head, method);
        let lying = head.framing == Framing::Invalid && matches!(after, After::Body(_));
        if matches!(after, After::Interim) {
            answered.pairing = None;
            answered.keep_interim(head.status);
            return;
        }
        answered.exchange.response = Some(head);
        if self.orphan.is_none() {
            hold(&mut self.pending_memory, memory);
        }
        if lying {
            return self.responses_out_of_step(Outcome::Unparsed, out);
        }
        match after {
            After::Interim => {}
            After::Tunnel => {
                self.release_hold(true, limits, out);
                if let Some(request) = self.pending.front_mut() {
                    request.request_over = true;
                }
                self.response_end(Some(Outcome::Upgraded), out);
                self.responses.state = State::Tunnel;
            }
            After::Nothing => {
                self.response_end(None, out);
                self.release_hold(false, limits, out);
            }
            After::Body(body) => {
                self.responses.state = State::Body(body);
                self.release_hold(false, limits, out);
            }
        }
    }

    /// The response under way is whole.
    pub(super) fn response_end(&mut self, outcome: Option<Outcome>, out: &mut Reports) {
        self.responses.state = State::BETWEEN;
        if let Some(mut orphan) = self.orphan.take() {
            orphan.end_response();
            out.push_back(orphan.report(Outcome::RequestUnobserved));
            return;
        }
        if let Some(answered) = self.answered() {
            answered.end_response();
            if let Some(outcome) = outcome {
                answered.spoil(outcome);
            }
        }
        self.report_done(out);
    }

    /// Nobody can tell where the response under way, if any, ends.
    pub(super) fn responses_out_of_step(&mut self, outcome: Outcome, out: &mut Reports) {
        if self.responses_become_opaque() {
            return;
        }
        let under_way = self.answered().filter(|answered| answered.response_start_ns.is_some());
        if let Some(answered) = under_way {
            answered.response_cut = true;
            match outcome {
                Outcome::Unparsed => answered.spoil_unparsed(),
                other => answered.spoil(other),
            }
            self.response_cut_short();
            self.response_end(None, out);
        }
        self.responses.state = if self.requests.is_opaque() { State::Opaque } else { State::Lost };
        self.habits.adrift = true;
        self.habits.proved = false;
    }

    /// The head under way, if any, will not be whole: keeps what was seen of it.
    pub(super) fn response_cut_short(&mut self) {
        let Some(bytes) = self.responses.take_cut_short() else { return };
        let is_orphan = self.orphan.is_some();
        let Some(head) = ResponseHead::parse_cut_short(&bytes) else { return };
        let memory = head.memory();
        let Some(answered) = self.answered().filter(|answered| answered.response_start_ns.is_some()) else {
            return;
        };
        if (100..=199).contains(&head.status) {
            answered.keep_interim(head.status);
            return;
        }
        answered.exchange.response = Some(head);
        if !is_orphan {
            hold(&mut self.pending_memory, memory);
        }
    }

    /// Bytes of the server were not captured.
    pub(super) fn response_gap(&mut self, len: u64, out: &mut Reports) {
        let owes_nothing = self.orphan.is_none() && self.pending.unanswered().is_none();
        if len > 0 && self.responses.is_between() && owes_nothing && !self.habits.adrift {
            self.lost().unasked = Some(self.served);
        }
        self.served += len;
        // Other responses may have been among them.
        let is_tunnel = matches!(self.responses.state, State::Tunnel);
        if !is_tunnel && self.pending.front().is_some_and(|front| front.response_done) {
            self.resolve(false, out);
        }
        let is_opaque = self.requests.is_opaque();
        let has_begun = |answered: &&mut Pending| is_opaque || answered.response_start_ns.is_some();
        if let Some(answered) = self.answered().filter(has_begun) {
            answered.miss(Toward::Client, len);
        }
        match &mut self.responses.state {
            State::Tunnel | State::Opaque | State::Lost => {}
            State::Body(body) => match body.skip(len) {
                Skip::Inside => {}
                Skip::End => {
                    if let Some(answered) = self.answered() {
                        answered.spoil(Outcome::CaptureGap);
                        answered.response_cut = true;
                    }
                    self.response_end(None, out);
                }
                Skip::Lost => self.responses_out_of_step(Outcome::CaptureGap, out),
            },
            State::Head(_) | State::Hold(_) => self.responses_out_of_step(Outcome::CaptureGap, out),
        }
        if matches!(self.responses.state, State::Lost) {
            // A stream met in its middle may have had any number before.
            self.miss_response(if len == 0 { u64::MAX } else { len });
        }
    }

    /// So many bytes of the server are of nobody knows what.
    pub(super) fn miss_response(&mut self, bytes: u64) {
        let lost = self.lost();
        lost.bytes = lost.bytes.saturating_add(bytes);
    }

    /// The server has said all.
    pub(super) fn responses_end(&mut self, out: &mut Reports) {
        if matches!(self.responses.state, State::Body(Body::UntilClose)) {
            self.response_end(None, out);
        }
    }
}

/// What follows a response with this head to a request with this method (RFC 9112 section 6.3).
fn after(head: &ResponseHead, method: Option<&str>) -> After {
    match (head.status, method) {
        (101, _) => After::Tunnel,
        (100..=199, _) => After::Interim,
        (200..=299, Some("CONNECT")) => After::Tunnel,
        (204 | 304, _) | (_, Some("HEAD")) => After::Nothing,
        _ => match head.framing {
            Framing::Length(0) => After::Nothing,
            Framing::Length(length) => After::Body(Body::Length(length)),
            Framing::Chunked => After::Body(Body::CHUNKED),
            Framing::Unsaid | Framing::OtherCoding | Framing::Invalid => After::Body(Body::UntilClose),
        },
    }
}
