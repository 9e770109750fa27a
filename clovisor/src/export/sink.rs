//! The seam between the queue and every way out: a batch goes in, its spans are settled one way or the other.
//!
//! It refuses to decide how often and how long something is tried; that is the queue's. Invariant: a span leaves a
//! [`Batch`] exactly once, as accepted or as refused, so a sink that is cut off in the middle (a time-out drops its
//! future) has neither lost nor doubled what it had not settled.

use std::{future::Future, time::Duration};

use clovisor_trace::Span;
use thiserror::Error;

/// What became of the spans that left a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Spans that the far end took; over UDP, spans that were handed to the network.
    pub accepted: u64,
    /// Spans that the far end, or its format, will never take.
    pub refused: u64,
    /// Why the last of them was refused.
    pub reason: Option<String>,
}

/// Spans on their way out, and the tally of those that have arrived.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Span>,
    sent: Sent,
}

impl Batch {
    /// A batch of which nothing is settled.
    #[must_use]
    pub fn new(spans: Vec<Span>) -> Self {
        Self { spans, sent: Sent::default() }
    }

    /// Takes spans over from a list, which gets the batch's own, empty one for the next.
    pub(super) fn refill(&mut self, spans: &mut Vec<Span>) {
        debug_assert!(self.is_empty(), "all of the last batch are settled");
        std::mem::swap(&mut self.spans, spans);
    }

    /// Spans that are not settled, in the order in which they were queued.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whether every span is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The first `count` spans have arrived.
    pub fn accept_first(&mut self, count: usize) {
        self.accept_but(count, 0, String::new());
    }

    /// The first `count` spans have arrived, all but `refused` of them, which the far end did not name.
    pub fn accept_but(&mut self, count: usize, refused: u64, reason: String) {
        let settled = self.spans.drain(..count.min(self.spans.len())).count() as u64;
        let refused = refused.min(settled);
        self.sent.accepted += settled - refused;
        self.note_refused(refused, reason);
    }

    /// The spans for which `which` holds have arrived.
    pub fn accept_where(&mut self, which: impl FnMut(&Span) -> bool) {
        self.sent.accepted += self.remove(which);
    }

    /// The spans for which `which` holds will never be taken.
    pub fn refuse_where(&mut self, reason: String, which: impl FnMut(&Span) -> bool) {
        let refused = self.remove(which);
        self.note_refused(refused, reason);
    }

    /// Takes the tally since the last call.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    fn remove(&mut self, mut which: impl FnMut(&Span) -> bool) -> u64 {
        let before = self.spans.len();
        self.spans.retain(|span| !which(span));
        (before - self.spans.len()) as u64
    }

    fn note_refused(&mut self, refused: u64, reason: String) {
        if refused > 0 {
            self.sent.refused += refused;
            self.sent.reason = Some(reason);
        }
    }
}

/// Why a sink did not settle a whole batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExportError {
    /// Another try may succeed: nobody answered, or the answer was "later".
    #[error("{reason}")]
    Retry {
        /// What happened.
        reason: String,
        /// How long the far end asked to be left alone.
        after: Option<Duration>,
    },
    /// The same spans will be refused again; they are dropped and counted.
    #[error("{reason}")]
    Refused {
        /// What the far end said.
        reason: String,
    },
    /// The sink takes nothing any more, such as a pipe that was closed; the queue ends.
    #[error("{reason}")]
    Closed {
        /// What happened.
        reason: String,
    },
}

impl ExportError {
    /// Worth another try, at a time of our choice.
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }
}

/// A way out.
pub trait Sink: Send + 'static {
    /// Where spans go, for logs: the way and the address, never a secret.
    fn describe(&self) -> String;

    /// Sends the batch. With `Ok`, spans that are still in the batch count as accepted; with an error they are
    /// unsettled. May be dropped at any await point, and is then called again with what is left.
    fn export(&mut self, batch: &mut Batch) -> impl Future<Output = Result<(), ExportError>> + Send;
}
