//! The task behind a queue: collects a batch, sends it, tries again, gives up, and says what was lost.
//!
//! It refuses to keep a span in a future that may be dropped: what is on its way lives in [`Task`], whose `Drop`
//! counts whatever is left, be the cause a deadline, a panic of the sink, or the end of the runtime.

use std::{
    mem::{replace, take},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, error, warn};

use super::{
    super::sink::{Batch, ExportError, Form as _, Sink},
    QueueConfig, Stats,
    backoff::Backoff,
    stats::Snapshot,
    waiting::{Look, Waiting},
};

/// Losses come in thousands; a log line for each would bury the rest.
const SAY_EVERY: Duration = Duration::from_secs(10);
type Stop = watch::Receiver<Option<Instant>>;

/// Runs until the queue has ended, or the deadline of the shutdown has passed.
pub(super) async fn run<S: Sink>(
    sink: S,
    config: QueueConfig,
    waiting: Arc<Waiting<S::Form>>,
    stop: Stop,
    stats: Arc<Stats>,
) {
    let mut watched = stop.clone();
    let losses = Losses { sink: sink.describe(), ..Losses::default() };
    let batch = Batch::new(S::Form::default());
    let mut task = Task { sink, config, waiting, stop, stats, batch, losses, unreachable: false };
    let deadline = async move { sleep_until(stopped(&mut watched).await).await };
    tokio::select! {
        () = task.pump() => {}
        () = deadline => debug!("the deadline of the shutdown has passed"),
    }
}

/// Waits for a shutdown, and tells its deadline; for ever, if nobody is left who could ask for one.
async fn stopped(stop: &mut Stop) -> Instant {
    match stop.wait_for(Option::is_some).await.map(|deadline| *deadline) {
        Ok(Some(deadline)) => deadline,
        _ => std::future::pending().await,
    }
}

struct Task<S: Sink> {
    sink: S,
    config: QueueConfig,
    waiting: Arc<Waiting<S::Form>>,
    stop: Stop,
    stats: Arc<Stats>,
    batch: Batch<S::Form>,
    losses: Losses,
    /// Whether the far end was said to be so.
    unreachable: bool,
}

impl<S: Sink> Task<S> {
    async fn pump(&mut self) {
        while self.collect().await {
            if !self.deliver().await {
                return;
            }
            self.losses.say(&self.stats, false);
        }
    }

    /// Waits for a batch; false when there will be none.
    async fn collect(&mut self) -> bool {
        let mut until: Option<Instant> = None;
        loop {
            match self.waiting.look(until.is_some_and(|until| until <= Instant::now())) {
                Look::Batch(form) => {
                    self.batch = Batch::new(form);
                    return true;
                }
                Look::Ended => return false,
                Look::Growing => _ = until.get_or_insert_with(|| Instant::now() + self.config.linger),
                Look::Nothing => {}
            }
            let is_open = !self.waiting.is_closed();
            tokio::select! {
                biased;
                // What is queued can still be taken out; pushing has ended.
                _ = stopped(&mut self.stop), if is_open => self.waiting.close(),
                () = self.waiting.filled.notified() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }

    /// Sends the batch until it is settled or given up; false when the sink takes nothing any more.
    async fn deliver(&mut self) -> bool {
        let give_up = Instant::now() + self.config.give_up_after;
        let mut backoff = Backoff::new(self.config.backoff_first, self.config.backoff_most);
        loop {
            match self.attempt(give_up).await {
                Ok(()) => {
                    self.batch.accept_but(0, String::new());
                    self.tally();
                    self.reached();
                    return true;
                }
                Err(ExportError::Refused { reason }) => {
                    self.batch.refuse(reason);
                    self.tally();
                    self.reached();
                    return true;
                }
                Err(ExportError::Closed { reason }) => {
                    self.losses.reason = reason;
                    return false;
                }
                Err(ExportError::Retry { reason, after }) => {
                    self.lost_touch(reason);
                    if !self.wait(give_up, backoff.wait(after)).await {
                        return true;
                    }
                }
            }
        }
    }

    /// One try, cut off by the time-out.
    async fn attempt(&mut self, give_up: Instant) -> Result<(), ExportError> {
        let limit = self.config.request_timeout;
        let result = timeout_at(give_up.min(Instant::now() + limit), self.sink.export(&mut self.batch)).await;
        self.tally();
        result.unwrap_or_else(|_| Err(ExportError::retry(format!("no answer within {limit:?}"))))
    }

    /// Waits before the next try; false when it is too late for one, and the batch was given up.
    async fn wait(&mut self, give_up: Instant, wait: Duration) -> bool {
        let until = give_up.min(Instant::now() + wait);
        let is_open = !self.waiting.is_closed();
        tokio::select! {
            () = sleep_until(until) => {}
            // With little time left, this is the time to try.
            _ = stopped(&mut self.stop), if is_open => self.waiting.close(),
        }
        let again = Instant::now() < give_up;
        if again {
            self.stats.retry();
        } else {
            let left = replace(&mut self.batch, Batch::new(S::Form::default())).left();
            self.stats.settle(left as u64, |counts| &mut counts.dropped_given_up);
        }
        self.losses.say(&self.stats, false);
        again
    }

    /// Moves what the sink has settled into the counters.
    fn tally(&mut self) {
        let sent = self.batch.take_sent();
        self.stats.settle(sent.accepted, |counts| &mut counts.exported);
        self.stats.settle(sent.refused, |counts| &mut counts.dropped_refused);
        if let Some(reason) = sent.reason {
            self.losses.reason = reason;
        }
    }

    fn lost_touch(&mut self, reason: String) {
        if !self.unreachable {
            let sink = &self.losses.sink;
            warn!(%sink, %reason, "traces cannot be delivered; they are queued and tried again");
            self.unreachable = true;
        }
        self.losses.reason = reason;
    }

    fn reached(&mut self) {
        if take(&mut self.unreachable) {
            warn!(sink = %self.losses.sink, "traces are delivered again");
        }
    }
}

impl<S: Sink> Drop for Task<S> {
    fn drop(&mut self) {
        self.tally();
        self.waiting.close();
        let mut left = self.batch.left();
        while let Look::Batch(form) = self.waiting.look(true) {
            left += form.spans();
        }
        self.stats.settle(left as u64, |counts| &mut counts.dropped_given_up);
        self.losses.say(&self.stats, true);
    }
}

/// What has been said of the spans that were lost.
#[derive(Default)]
struct Losses {
    sink: String,
    said: Snapshot,
    at: Option<Instant>,
    /// Why the last try failed.
    reason: String,
}

impl Losses {
    /// Says what was lost since the last time; the first time, every [`SAY_EVERY`], and `now` if it is the end.
    fn say(&mut self, stats: &Stats, now: bool) {
        let is = stats.snapshot();
        let early = self.at.is_some_and(|at| at.elapsed() < SAY_EVERY);
        if is.dropped() == self.said.dropped() || (early && !now) {
            return;
        }
        error!(
            sink = %self.sink,
            lost = is.dropped() - self.said.dropped(),
            queue_full = is.dropped_queue_full - self.said.dropped_queue_full,
            given_up = is.dropped_given_up - self.said.dropped_given_up,
            refused = is.dropped_refused - self.said.dropped_refused,
            reason = %self.reason,
            "spans were lost"
        );
        self.said = is;
        self.at = Some(Instant::now());
    }
}
