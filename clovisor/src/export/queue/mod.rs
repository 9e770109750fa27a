//! The bounded queue between the tracer and a sink, and the task that empties it.
//!
//! Pushing never waits, so a collector that is slow or dead costs spans, never packets. When the queue is full the
//! newest span is dropped: those that wait are nearest to arriving, and are encoded already. It refuses to lose silently: each span that is dropped is counted in [`Stats`] by cause, and said in the log
//! at ERROR, at most every ten seconds. An unreachable far end is said once when it is lost, once when it is back.

pub(crate) mod backoff;
mod stats;
mod waiting;
mod worker;

use std::{pin::pin, sync::Arc, time::Duration};

use clovisor_trace::Describe;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

pub use self::stats::{Snapshot, Stats};
use self::waiting::{Offered, Waiting};
use super::{
    exporter::Counted,
    json::Lines,
    otlp::Groups,
    sink::{Form, Sink, Spans},
};
use crate::threads::others;

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Spans that may wait, at least 1. The default, 16,384, at 1000 sessions a second bridges the restart of a collector that
    /// takes 16 s.
    pub capacity: usize,
    /// Bytes that they may have, in the form in which they wait. The default is 16 MiB: as many of 1 KiB.
    pub bytes: usize,
    /// Spans of one batch, at least 1; the default, 512, is OpenTelemetry's. OTLP sends more at once where more wait.
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
            capacity: 16_384,
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

/// The end of a queue that the tracer holds, whatever form spans have in it.
#[derive(Clone, Debug)]
pub enum SpanQueue {
    /// As they are.
    Spans(Entrance<Spans>),
    /// As lines of JSON.
    Lines(Entrance<Lines>),
    /// As OTLP's messages.
    Otlp(Entrance<Groups>),
    /// As a number.
    Counted(Entrance<Counted>),
}

impl SpanQueue {
    /// Queues a span without waiting. Whether it was; if not, it has been counted.
    pub fn push(&self, span: &impl Describe) -> bool {
        match self {
            Self::Spans(queue) => queue.push(span),
            Self::Lines(queue) => queue.push(span),
            Self::Otlp(queue) => queue.push(span),
            Self::Counted(queue) => queue.push(span),
        }
    }

    /// Queues a span and waits for room: for files, which can wait, where live packets cannot. Whether it was; it is not only
    /// when the queue has ended.
    pub async fn push_waiting(&self, span: &impl Describe) -> bool {
        match self {
            Self::Spans(queue) => queue.push_waiting(span).await,
            Self::Lines(queue) => queue.push_waiting(span).await,
            Self::Otlp(queue) => queue.push_waiting(span).await,
            Self::Counted(queue) => queue.push_waiting(span).await,
        }
    }

    /// The counters of the queue.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        match self {
            Self::Spans(queue) => &queue.stats,
            Self::Lines(queue) => &queue.stats,
            Self::Otlp(queue) => &queue.stats,
            Self::Counted(queue) => &queue.stats,
        }
    }
}

/// The way into a queue. When the last one is gone, the queue ends.
#[derive(Debug)]
pub struct Entrance<F: Form> {
    waiting: Arc<Open<F>>,
    stats: Arc<Stats>,
}

impl<F: Form> Clone for Entrance<F> {
    fn clone(&self) -> Self {
        Self { waiting: Arc::clone(&self.waiting), stats: Arc::clone(&self.stats) }
    }
}

/// Closes the queue when it is dropped.
#[derive(Debug)]
struct Open<F: Form>(Arc<Waiting<F>>);

impl<F: Form> Drop for Open<F> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<F: Form> Entrance<F> {
    fn push(&self, span: &impl Describe) -> bool {
        match self.waiting.0.offer(span, &self.stats) {
            Offered::Taken => return true,
            Offered::Full => self.stats.refuse(|counts| &mut counts.dropped_queue_full),
            Offered::Closed => self.stats.refuse(|counts| &mut counts.dropped_given_up),
        }
        false
    }

    async fn push_waiting(&self, span: &impl Describe) -> bool {
        let Waiting { room, .. } = &*self.waiting.0;
        let mut may_have_room = pin!(room.notified());
        loop {
            // Before looking, so that no room that is made after it goes unnoticed.
            may_have_room.as_mut().enable();
            match self.waiting.0.offer(span, &self.stats) {
                Offered::Taken => return true,
                Offered::Full => may_have_room.as_mut().await,
                Offered::Closed => {
                    self.stats.refuse(|counts| &mut counts.dropped_given_up);
                    return false;
                }
            }
            may_have_room.set(room.notified());
        }
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
pub(super) fn start<S: Sink>(sink: S, config: QueueConfig) -> (SpanQueue, Worker)
where
    Entrance<S::Form>: Into<SpanQueue>,
{
    let waiting = Arc::new(Waiting::new(&config));
    let (stop, stopping) = watch::channel(None);
    let stats = Arc::new(Stats::default());
    let task = others().spawn(worker::run(sink, config, Arc::clone(&waiting), stopping, Arc::clone(&stats)));
    let entrance = Entrance { waiting: Arc::new(Open(waiting)), stats: Arc::clone(&stats) };
    (entrance.into(), Worker { task, stop, stats })
}

impl From<Entrance<Spans>> for SpanQueue {
    fn from(entrance: Entrance<Spans>) -> Self {
        Self::Spans(entrance)
    }
}

impl From<Entrance<Lines>> for SpanQueue {
    fn from(entrance: Entrance<Lines>) -> Self {
        Self::Lines(entrance)
    }
}

impl From<Entrance<Groups>> for SpanQueue {
    fn from(entrance: Entrance<Groups>) -> Self {
        Self::Otlp(entrance)
    }
}

impl From<Entrance<Counted>> for SpanQueue {
    fn from(entrance: Entrance<Counted>) -> Self {
        Self::Counted(entrance)
    }
}

#[cfg(test)]
pub(super) mod tests;
