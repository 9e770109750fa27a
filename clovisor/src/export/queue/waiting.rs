//! What waits: batches that are full, and one that is being filled, within bounds that both ends share.
//!
//! It refuses to wait itself and to know why somebody comes; whoever pushes and whoever sends waits here for the other.

use std::{
    collections::VecDeque,
    mem::{replace, take},
    sync::{Mutex, MutexGuard, PoisonError},
};

use clovisor_trace::Describe;
use tokio::sync::Notify;

use super::{super::sink::Form, QueueConfig, Stats};

/// Both ends of a queue.
#[derive(Debug)]
pub(super) struct Waiting<F> {
    state: Mutex<State<F>>,
    /// There is something to send where was nothing, another batch is full, or the queue has ended.
    pub(super) filled: Notify,
    /// There may be room.
    pub(super) room: Notify,
    capacity: usize,
    bytes: usize,
    batch: usize,
}

#[derive(Debug, Default)]
struct State<F> {
    full: VecDeque<F>,
    open: F,
    /// Spans in all of them.
    spans: usize,
    /// Bytes of all of them.
    bytes: usize,
    closed: bool,
}

/// What became of a span that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    Full,
    Closed,
}

/// What there is to send.
#[derive(Debug)]
pub(super) enum Look<F> {
    /// This.
    Batch(F),
    /// A batch that may still grow.
    Growing,
    Nothing,
    /// Nothing, and there will be no more.
    Ended,
}

impl<F: Form> Waiting<F> {
    pub(super) fn new(config: &QueueConfig) -> Self {
        let QueueConfig { capacity, bytes, batch, .. } = *config;
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
            capacity: capacity.max(1),
            bytes,
            batch: batch.max(1),
        }
    }

    /// Takes a span in if there is room. It is counted before anybody can settle it.
    pub(super) fn offer(&self, span: &impl Describe, stats: &Stats) -> Offered {
        let mut state = self.lock();
        if state.closed {
            return Offered::Closed;
        }
        if state.spans >= self.capacity || state.bytes >= self.bytes {
            return Offered::Full;
        }
        let before = state.open.bytes();
        state.open.add(span);
        let after = state.open.bytes();
        state.bytes += after - before;
        state.spans += 1;
        let is_full = state.open.spans() >= self.batch || after >= F::MOST_BYTES;
        if is_full {
            // The next will be about as long.
            let next = F::with_room(after + after / 8);
            let full = replace(&mut state.open, next);
            state.full.push_back(full);
        }
        let is_first = state.spans == 1;
        stats.push();
        drop(state);
        if is_full || is_first {
            self.filled.notify_one();
        }
        Offered::Taken
    }

    /// Takes the next batch out: one that is full, or, where it is time or the queue has ended, what there is. Where more than one is full,
    /// whoever sends is behind, and gets as many as one message may have.
    pub(super) fn look(&self, is_time: bool) -> Look<F> {
        let mut state = self.lock();
        let mut next = match state.full.pop_front() {
            Some(full) => full,
            None if state.spans == 0 => {
                return if state.closed { Look::Ended } else { Look::Nothing };
            }
            None if is_time || state.closed => take(&mut state.open),
            None => return Look::Growing,
        };
        while let Some(more) = state.full.pop_front() {
            if let Some(more) = next.gather(more) {
                state.full.push_front(more);
                break;
            }
        }
        state.spans -= next.spans();
        state.bytes -= next.bytes();
        drop(state);
        self.room.notify_waiters();
        Look::Batch(next)
    }

    /// Takes no more spans.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// A panic within an encoder would leave a span that is counted twice or not at all in this queue alone; the account shows it.
    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
