//! What waits: pieces that are full, and one that is being filled, within bounds that both ends share. A batch is as many
//! pieces as one message may have.
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
    /// There is something to send where was nothing, enough for a batch, or the queue has ended.
    pub(super) filled: Notify,
    /// There may be room.
    pub(super) room: Notify,
    capacity: usize,
    bytes: usize,
    batch: usize,
}

/// Bytes that are enough for a batch, however few spans they are.
const BATCH_BYTES: usize = 1 << 20;

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
    /// Less than a batch, which may still grow.
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
        let was_enough = self.is_enough(&state);
        let before = state.open.bytes();
        state.open.add(span);
        let after = state.open.bytes();
        state.bytes += after - before;
        state.spans += 1;
        if after >= F::FULL || state.open.spans() >= self.batch {
            let next = state.open.another();
            let full = replace(&mut state.open, next);
            state.full.push_back(full);
        }
        // Whoever sends looks again before it waits, so it is enough to tell that there is enough now.
        let is_news = state.spans == 1 || (self.is_enough(&state) && !was_enough);
        stats.push();
        drop(state);
        if is_news {
            self.filled.notify_one();
        }
        Offered::Taken
    }

    /// Takes the next batch out if there is enough for one, or, where it is time or the queue has ended, what there is. Where there is
    /// more, whoever sends is behind, and gets as much as one message may have.
    pub(super) fn look(&self, is_time: bool) -> Look<F> {
        let mut state = self.lock();
        if state.spans == 0 {
            return if state.closed { Look::Ended } else { Look::Nothing };
        }
        if !self.is_enough(&state) && !is_time && !state.closed {
            return Look::Growing;
        }
        let mut next = state.full.pop_front().unwrap_or_else(|| take(&mut state.open));
        while let Some(more) = state.full.pop_front() {
            if let Some(more) = next.gather(more) {
                state.full.push_front(more);
                break;
            }
        }
        if state.full.is_empty() && state.open.spans() > 0 {
            let another = state.open.another();
            let open = replace(&mut state.open, another);
            if let Some(open) = next.gather(open) {
                state.open = open;
            }
        }
        state.spans -= next.spans();
        state.bytes -= next.bytes();
        drop(state);
        self.room.notify_waiters();
        Look::Batch(next)
    }

    /// Whether what waits is enough for a batch.
    fn is_enough(&self, state: &State<F>) -> bool {
        state.spans >= self.batch || state.bytes >= BATCH_BYTES.min(self.bytes)
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

#[cfg(test)]
mod tests {
    use clovisor_trace::Span;

    use super::{
        super::{super::json::Lines, tests::span},
        *,
    };

    /// A queue with so many spans of so many bytes and a little more, numbered.
    fn waiting(count: u64, bytes: usize) -> Waiting<Lines> {
        let waiting = Waiting::new(&QueueConfig::default());
        for id in 0..count {
            let span = Span { trace_state: "x".repeat(bytes), ..span(id) };
            assert_eq!(waiting.offer(&span, &Stats::default()), Offered::Taken);
        }
        waiting
    }

    /// How many spans it gives at once.
    fn next(waiting: &Waiting<Lines>, is_time: bool) -> usize {
        match waiting.look(is_time) {
            Look::Batch(lines) => lines.spans(),
            Look::Growing => 0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_is_of_all_pieces_that_wait() {
        let waiting = waiting(600, 1000);
        assert!(waiting.lock().full.len() > 5, "pieces are small");
        assert_eq!((next(&waiting, false), waiting.lock().bytes), (600, 0));
        assert!(matches!(waiting.look(true), Look::Nothing));
    }

    #[test]
    fn full_pieces_are_no_batch_yet() {
        let waiting = waiting(100, 1000);
        assert!(!waiting.lock().full.is_empty());
        assert_eq!((next(&waiting, false), next(&waiting, true)), (0, 100));
    }

    #[test]
    fn few_large_spans_are_enough_and_nothing_is_left_behind() {
        let waiting = waiting(300, 10_000);
        let mut taken = Vec::new();
        while let spans @ 1.. = next(&waiting, false) {
            taken.push(spans);
        }
        assert!(taken.len() > 1 && taken.iter().all(|spans| *spans <= 105), "{taken:?}");
        taken.push(next(&waiting, true));
        assert_eq!((taken.iter().sum::<usize>(), waiting.lock().bytes), (300, 0));
    }
}
