//! The seam between the queue and every way out: a batch goes in, its spans are settled one way or the other.
//!
//! It refuses to decide how often and how long something is tried; that is the queue's. Invariant: a span leaves a
//! [`Batch`] exactly once, as accepted or as refused, so a sink that is cut off in the middle (a time-out drops its
//! future) has neither lost nor doubled what it had not settled.

use std::{future::Future, time::Duration};

use clovisor_trace::{Describe, Span};
use thiserror::Error;

use super::size;

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

/// What an encoded form has before another one is begun, and [the room that it is made with](PIECE_ROOM), in bytes.
///
/// Pieces of one size, as thousands of them come and go: where they were as long as what they held, each time that many waited
/// left holes which nothing fitted into again, and resident memory grew for half an hour. Smaller than what an allocator asks the kernel for each time.
pub(super) const PIECE: usize = 60 << 10;
/// No ordinary span is longer than the rest.
pub(super) const PIECE_ROOM: usize = 64 << 10;

/// What spans wait in: as that in which they will leave, so that nothing is left to do but to send it.
pub trait Form: Default + Send + 'static {
    /// Bytes from which on it takes no more spans, and another one is begun.
    const FULL: usize;

    /// An empty one, with room for as much where this one is in one piece.
    fn another(&self) -> Self;

    /// Takes a span in.
    fn add(&mut self, span: &impl Describe);

    /// Takes over the spans of another that came behind them, if one message may have all and it costs nothing; gives it back if not.
    fn gather(&mut self, other: Self) -> Option<Self> {
        Some(other)
    }

    /// How many spans are in it.
    fn spans(&self) -> usize;

    /// How many bytes it has.
    fn bytes(&self) -> usize;
}

/// Spans on their way out, and the tally of those that have arrived.
#[derive(Debug, Default)]
pub struct Batch<F> {
    form: F,
    sent: Sent,
}

impl<F: Form> Batch<F> {
    /// A batch of which nothing is settled.
    #[must_use]
    pub fn new(form: F) -> Self {
        Self { form, sent: Sent::default() }
    }

    /// What is not settled.
    #[must_use]
    pub fn form(&self) -> &F {
        &self.form
    }

    /// What is not settled, to be made ready.
    pub fn form_mut(&mut self) -> &mut F {
        &mut self.form
    }

    /// Spans that are not settled.
    #[must_use]
    pub fn left(&self) -> usize {
        self.form.spans()
    }

    /// Whether every span is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// All that are left have arrived, but for `refused` of them, which the far end did not name.
    pub fn accept_but(&mut self, refused: u64, reason: String) {
        let settled = std::mem::take(&mut self.form).spans() as u64;
        let refused = refused.min(settled);
        self.sent.accepted += settled - refused;
        self.note_refused(refused, reason);
    }

    /// All that are left will never be taken.
    pub fn refuse(&mut self, reason: String) {
        self.accept_but(u64::MAX, reason);
    }

    /// Takes the tally since the last call.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    fn note_refused(&mut self, refused: u64, reason: String) {
        if refused > 0 {
            self.sent.refused += refused;
            self.sent.reason = Some(reason);
        }
    }
}

/// Spans as they are, for sinks whose libraries take them so.
#[derive(Debug, Default)]
pub struct Spans {
    list: Vec<Span>,
    bytes: usize,
}

impl Spans {
    /// The spans, in the order in which they came.
    #[must_use]
    pub fn list(&self) -> &[Span] {
        &self.list
    }
}

impl Form for Spans {
    // A sink that sends messages of a limited size divides them itself.
    const FULL: usize = usize::MAX;

    fn another(&self) -> Self {
        Self::default()
    }

    fn add(&mut self, span: &impl Describe) {
        let span = span.to_span();
        self.bytes += size::held(&span);
        self.list.push(span);
    }

    fn spans(&self) -> usize {
        self.list.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Batch<Spans> {
    /// The spans for which `which` holds have arrived.
    pub fn accept_where(&mut self, which: impl FnMut(&Span) -> bool) {
        self.sent.accepted += self.remove(which);
    }

    /// The spans for which `which` holds will never be taken.
    pub fn refuse_where(&mut self, reason: String, which: impl FnMut(&Span) -> bool) {
        let refused = self.remove(which);
        self.note_refused(refused, reason);
    }

    fn remove(&mut self, mut which: impl FnMut(&Span) -> bool) -> u64 {
        let before = self.form.list.len();
        self.form.list.retain(|span| !which(span));
        (before - self.form.list.len()) as u64
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
    /// What it sends.
    type Form: Form;

    /// Where spans go, for logs: the way and the address, never a secret.
    fn describe(&self) -> String;

    /// Sends the batch. With `Ok`, spans that are still in the batch count as accepted; with an error they are
    /// unsettled. May be dropped at any await point, and is then called again with what is left.
    fn export(
        &mut self,
        batch: &mut Batch<Self::Form>,
    ) -> impl Future<Output = Result<(), ExportError>> + Send;
}
