//! Where the agent's spans go, changed while it runs.
//!
//! A new address gets a queue and a sink of its own; the old one takes no more spans, sends what it holds, and ends.
//! An address that no sink can be made of changes nothing. Counts go on across changes.

use std::{sync::Arc, time::Duration};

use clovisor_trace::Span;
use tokio::task::JoinSet;

use crate::export::{
    self, Address, Environment, Exporter, QueueConfig, Sink as _, Snapshot, SpanQueue, Worker, queue::Stats,
};

/// How long a sink that was replaced may still send what it holds: as long as one batch is tried.
const AFTERLIFE: Duration = Duration::from_secs(60);
/// How long the sinks may take to empty when the agent ends; Kubernetes kills after 30 s.
const FAREWELL: Duration = Duration::from_secs(5);

/// The sink in use, and those that are ending.
pub(super) struct Traces {
    environment: Environment,
    current: Lane,
    /// Sinks that were replaced, while they end.
    ending: JoinSet<Snapshot>,
    /// Counters of the sinks in `ending`.
    ending_stats: Vec<Arc<Stats>>,
    /// What became of the spans of sinks that have ended.
    past: Snapshot,
}

struct Lane {
    address: Address,
    name: String,
    queue: SpanQueue,
    worker: Worker,
}

impl Traces {
    /// Opens the first sink. Must be called inside a tokio runtime.
    pub(super) fn open(address: &Address, environment: Environment) -> Result<Self, export::BuildError> {
        let current = Lane::start(address, &environment)?;
        tracing::info!("spans go to {}", current.name);
        let past = Snapshot::default();
        Ok(Self { environment, current, ending: JoinSet::new(), ending_stats: Vec::new(), past })
    }

    /// Sends spans from now on to `address`. On an error all stays as it is.
    pub(super) fn redirect(&mut self, address: &Address) -> Result<(), export::BuildError> {
        if self.current.address == *address {
            return Ok(());
        }
        let lane = Lane::start(address, &self.environment)?;
        let old = std::mem::replace(&mut self.current, lane);
        tracing::info!("spans go to {} (before: {})", self.current.name, old.name);
        self.ending_stats.push(Arc::clone(old.worker.stats()));
        self.ending.spawn(old.worker.shutdown(AFTERLIFE));
        Ok(())
    }

    /// Hands a span over, without waiting.
    pub(super) fn push(&self, span: Span) {
        self.current.queue.push(span);
    }

    /// Where spans go, for people.
    pub(super) fn describe(&self) -> &str {
        &self.current.name
    }

    /// What became of all spans so far, of all sinks together.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        while let Some(Ok(ended)) = self.ending.try_join_next() {
            self.past = sum(self.past, ended);
        }
        if self.ending.is_empty() {
            self.ending_stats.clear();
        }
        let mut all = sum(self.past, self.current.queue.stats().snapshot());
        for stats in &self.ending_stats {
            all = sum(all, stats.snapshot());
        }
        all
    }

    /// Sends what is queued, gives up the rest, and tells what became of all.
    pub(super) async fn shutdown(mut self) -> Snapshot {
        let mut all = self.current.worker.shutdown(FAREWELL).await;
        let ended = tokio::time::timeout(FAREWELL, async {
            while let Some(ended) = self.ending.join_next().await {
                if let Ok(ended) = ended {
                    self.past = sum(self.past, ended);
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!("a trace address that was replaced still took no spans; they are given up");
        }
        all = sum(all, self.past);
        all
    }
}

impl Lane {
    fn start(address: &Address, environment: &Environment) -> Result<Self, export::BuildError> {
        let config = match address {
            Address::Stdout => QueueConfig::local(),
            _ => QueueConfig { request_timeout: environment.timeout, ..QueueConfig::default() },
        };
        let exporter = Exporter::new(address, environment)?;
        let name = exporter.describe();
        let (queue, worker) = export::start(exporter, config);
        Ok(Self { address: address.clone(), name, queue, worker })
    }
}

fn sum(a: Snapshot, b: Snapshot) -> Snapshot {
    Snapshot {
        pushed: a.pushed + b.pushed,
        queued: a.queued + b.queued,
        exported: a.exported + b.exported,
        dropped_queue_full: a.dropped_queue_full + b.dropped_queue_full,
        dropped_given_up: a.dropped_given_up + b.dropped_given_up,
        dropped_refused: a.dropped_refused + b.dropped_refused,
        retries: a.retries + b.retries,
    }
}
