//! Connections on a port that is named http which speak another protocol from their first byte on: TLS, or HTTP/2 with prior knowledge.
//!
//! Such a connection is one session, [`Outcome::Unparsed`](crate::Outcome::Unparsed), from its first byte to its last, and as nothing in
//! it could be read, nothing of it is looked at: both directions are [`State::Opaque`], which no byte ends. The server's is so from its
//! first bytes that are not HTTP/1, since a server that does not know the protocol may say so in HTTP/1, and that is shown. It refuses to
//! guess: what does not begin with the other protocol's own first bytes ([`preface`]) is left as it was.

use super::{
    Http1,
    pending::Pending,
    preface::{self, Verdict},
    reader::{Maybe, State},
};
use crate::{packet::Toward, protocol::conversation::Chunk};

impl Http1 {
    /// The client's first bytes are no request, up to the end of this chunk: does another protocol begin with them?
    pub(super) fn judge_preface(&mut self, chunk: &Chunk<'_>, bytes: &[u8]) {
        match preface::judge(bytes) {
            Verdict::Sure => self.become_opaque(),
            Verdict::Unsure => {
                let Chunk { time_ns, acked, is_bound, .. } = *chunk;
                let offset = chunk.offset + chunk.bytes.len() as u64 - bytes.len() as u64;
                let bytes = bytes.to_vec();
                self.requests.maybe = Some(Box::new(Maybe { offset, time_ns, acked, is_bound, bytes }));
            }
            Verdict::Not => {}
        }
    }

    /// The head of a request could be read, and nobody can tell where the request ends: was it the front of HTTP/2's preface? `rest` is
    /// what of the chunk is behind it.
    pub(super) fn judge_head(&mut self, chunk: &Chunk<'_>, head: &[u8], rest: &[u8]) {
        // With another request before it, it would not be the connection's only session; behind a gap, it may be in a body.
        if preface::is_http2_head(head) && self.pending.len() == 1 && self.habits.is_known {
            self.judge_preface(chunk, &[head, &rest[..rest.len().min(preface::ENOUGH)]].concat());
        }
    }

    /// The client's direction is out of step: whether this chunk goes on with what may be the start of another protocol.
    pub(super) fn goes_on_preface(&mut self, chunk: &Chunk<'_>) -> bool {
        if !self.is_unsure() {
            return false;
        }
        let Some(mut maybe) = self.requests.maybe.take().filter(|maybe| maybe.end() == chunk.offset) else {
            return false;
        };
        maybe.bytes.extend_from_slice(&chunk.bytes[..chunk.bytes.len().min(preface::ENOUGH)]);
        match preface::judge(&maybe.bytes) {
            Verdict::Sure => self.become_opaque(),
            Verdict::Unsure => self.requests.maybe = Some(maybe),
            Verdict::Not => return false,
        }
        true
    }

    /// Whether the client's first bytes may be the start of another protocol, and are too few to tell.
    fn is_unsure(&self) -> bool {
        // What may bring the direction back into step begins with a method, so it is none.
        let maybe = self.requests.maybe.as_ref();
        self.requests.is_lost() && maybe.is_some_and(|maybe| preface::judge(&maybe.bytes) == Verdict::Unsure)
    }

    fn become_opaque(&mut self) {
        (self.requests.state, self.requests.maybe) = (State::Opaque, None);
        // A server may speak first, and then nothing of it could be read.
        if self.responses.is_lost() {
            (self.responses.state, self.responses.maybe) = (State::Opaque, None);
        }
    }

    /// The server's bytes are not HTTP/1, or are missing, and the client's are another protocol's: whether these are, too.
    pub(super) fn responses_become_opaque(&mut self) -> bool {
        // What the server said before it had anything of the client is a session of its own.
        if !self.requests.is_opaque() || self.orphan.is_some() {
            return false;
        }
        self.response_cut_short();
        if let Some(one) = self.pending.front_mut() {
            // Nothing answers anything.
            one.pairing = None;
        }
        self.responses.state = State::Opaque;
        true
    }

    /// The server's bytes from this offset on are not HTTP/1. If they are the answer to a hello of TLS, that was among what was lost of
    /// the client, and the connection is opaque.
    pub(super) fn answers_lost_hello(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let Some(orphan) = self.orphan.as_mut().filter(|orphan| orphan.offset() == offset) else {
            return false;
        };
        if !self.requests.is_lost() || self.pending.len() > 0 || !preface::is_server_hello(bytes) {
            return false;
        }
        orphan.spoil_unparsed();
        self.responses.state = State::Opaque;
        self.become_opaque();
        true
    }

    /// The session of an opaque connection, unless the server has ended it in HTTP/1.
    fn whole_connection(&mut self) -> Option<&mut Pending> {
        match self.pending.front_mut() {
            Some(one) => Some(one),
            None => self.orphan.as_deref_mut().filter(|_| self.responses.is_opaque()),
        }
    }

    /// Bytes of the client that nobody reads.
    pub(super) fn foreign_request(&mut self, chunk: &Chunk<'_>, offset: u64, bytes: usize) {
        if (self.requests.is_opaque() || self.is_unsure())
            && let Some(one) = self.whole_connection()
        {
            one.count(chunk, offset, bytes);
        }
    }

    /// Bytes of the server that nobody reads.
    pub(super) fn foreign_response(&mut self, chunk: &Chunk<'_>, offset: u64, bytes: usize) {
        if !self.responses.is_opaque() {
            return self.miss_response(bytes as u64);
        }
        if let Some(one) = self.whole_connection() {
            if one.response_start_ns.is_none() {
                one.begin_response(chunk, offset);
            }
            one.count(chunk, offset, bytes);
        }
    }

    /// Bytes of an opaque direction were not captured.
    pub(super) fn miss_opaque(&mut self, toward: Toward, len: u64) {
        if let Some(one) = self.whole_connection() {
            one.miss(toward, len);
        }
    }
}
