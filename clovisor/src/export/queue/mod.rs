//! The bounded queue between the tracer and a sink, and the task that empties it.
//!
//! Pushing never waits, so a collector that is slow or dead costs spans, never packets. When the queue is full the
//! newest span is dropped: those that wait are nearest to arriving, and dropping the oldest would take a lock on both
//! ends. It refuses to lose silently: each span that is dropped is counted in [`Stats`] by cause, and said in the log
//! at ERROR, at most every ten seconds. An unreachable far end is said once when it is lost, once when it is back.

pub(crate) mod backoff;
mod stats;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clovisor_trace::Span;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

pub use self::stats::{Snapshot, Stats};
use super::{sink::Sink, size};

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Spans that may wait, at least 1. The default, 8192, at 1000 sessions a second bridges the restart of a collector that
    /// takes 8 s.
    pub capacity: usize,
    /// Bytes that they may hold, as [`size::held`] counts them. The default is 16 MiB: 8192 ordinary spans, of 1.8 KiB each.
    pub bytes: usize,
    /// Spans of one batch, at least 1; the default, 512, is OpenTelemetry's.
    pub batch: usize,
    /// How long a batch waits for more spans.
    pub linger: Duration,
    /// How long one try may take.
    pub request_timeout: Duration,
    /// Wait after the first failed try; doubled after each further one.
    pub backoff_first: Duration,
    /// Longest wait of our own choice; a server may ask for more.
    pub backoff_most: Duration,
    /// How long a batch is tried in all.
    pub give_up_after: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            capacity: 8192,
            bytes: 16 << 20,
            batch: 512,
            linger: Duration::from_millis(500),
            request_timeout: Duration::from_secs(10),
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(5),
            give_up_after: Duration::from_secs(60),
        }
    }
}

impl QueueConfig {
    /// Bounds for a sink that writes to this machine's terminal or a pipe: a person watches, and a reader that has
    /// stopped for an hour, such as a pager, is no failure.
    #[must_use]
    pub fn local() -> Self {
        let patience = Duration::from_secs(365 * 24 * 3600);
        Self {
            linger: Duration::from_millis(50),
            request_timeout: patience,
            give_up_after: patience,
            ..Self::default()
        }
    }
}

/// The end of the queue that the tracer holds.
#[derive(Clone, Debug)]
pub struct SpanQueue {
    sender: mpsc::Sender<Span>,
    stats: Arc<Stats>,
    /// Bytes of the spans that wait, and how many may.
    held: Arc<AtomicUsize>,
    most: usize,
}

impl SpanQueue {
    /// Queues a span without waiting. Whether it was; if not, it has been counted.
    pub fn push(&self, span: Span) -> bool {
        self.count_in();
        let bytes = size::held(&span);
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        let sent = if held.saturating_add(bytes) > self.most {
            Err(mpsc::error::TrySendError::Full(span))
        } else {
            self.sender.try_send(span)
        };
        let Err(error) = sent else { return true };
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        match error {
            mpsc::error::TrySendError::Full(_) => {
                self.stats.settle(1, |counts| &mut counts.dropped_queue_full);
            }
            mpsc::error::TrySendError::Closed(_) => {
                self.stats.settle(1, |counts| &mut counts.dropped_given_up);
            }
        }
        false
    }

    /// Queues a span and waits for room, as counted in spans alone: for files, which can wait, where live packets cannot. Whether
    /// it was; it is not only when the queue has ended.
    pub async fn push_waiting(&self, span: Span) -> bool {
        let Ok(room) = self.sender.reserve().await else {
            self.count_in();
            self.stats.settle(1, |counts| &mut counts.dropped_given_up);
            return false;
        };
        self.count_in();
        self.held.fetch_add(size::held(&span), Ordering::Relaxed);
        room.send(span);
        true
    }

    /// The counters of the queue.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Before the span is handed over: the task at the other end may settle it at once.
    fn count_in(&self) {
        self.stats.push();
    }
}

/// The task that empties the queue, held by whoever has to end it. Dropping it lets the task run until every
/// [`SpanQueue`] is gone and what they held has been settled.
#[derive(Debug)]
pub struct Worker {
    task: JoinHandle<()>,
    stop: watch::Sender<Option<Instant>>,
    stats: Arc<Stats>,
}

impl Worker {
    /// The counters of the queue.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Waits until the task has ended by itself: because every [`SpanQueue`] is gone, or because the sink takes
    /// nothing any more (`clovisor … | head`).
    pub async fn ended(&mut self) {
        if !self.task.is_finished() {
            // A panic of the sink is in the log already; what it held has been counted.
            let _ = (&mut self.task).await;
        }
    }

    /// Takes no more spans, sends what is queued for at most `within`, gives up the rest, and tells what became of
    /// all.
    pub async fn shutdown(mut self, within: Duration) -> Snapshot {
        self.stop.send_replace(Some(Instant::now() + within));
        self.ended().await;
        let end = self.stats.snapshot();
        // In every test that sends a span.
        debug_assert!(end.balances(), "{end:?}");
        end
    }
}

/// Starts the task that sends what is pushed to `sink`. Must be called inside a Tokio runtime.
#[must_use]
pub fn start<S: Sink>(sink: S, config: QueueConfig) -> (SpanQueue, Worker) {
    let (sender, receiver) = mpsc::channel(config.capacity.max(1));
    let (stop, stopping) = watch::channel(None);
    let stats = Arc::new(Stats::default());
    let held = Arc::<AtomicUsize>::default();
    let waiting = worker::Waiting { receiver, held: Arc::clone(&held) };
    let task = tokio::spawn(worker::run(sink, config, waiting, stopping, Arc::clone(&stats)));
    (SpanQueue { sender, stats: Arc::clone(&stats), held, most: config.bytes }, Worker { task, stop, stats })
}

#[cfg(test)]
pub(super) mod tests;
