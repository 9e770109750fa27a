//! Where the agent's spans go, changed while it runs.
//!
//! A new address gets a queue and a sink of its own; the old one takes no more spans, sends what it holds, and ends.
//! An address that no sink can be made of changes nothing. Counts go on across changes.

use std::{collections::BTreeMap, ops::Add as _, time::Duration};

use clovisor_trace::Describe;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    export::{self, Address, Environment, Exporter, QueueConfig, Snapshot, SpanQueue, Worker},
    memory::Memory,
};

/// How long a sink that was replaced may still send what it holds: as long as one batch is tried.
const AFTERLIFE: Duration = Duration::from_secs(60);
/// How long the sinks may take to empty when the agent ends: one connection that nobody answers, or one answer of DNS that is lost,
/// takes 5 s, and then there must be time for another try. Kubernetes kills after 30 s.
const FAREWELL: Duration = Duration::from_secs(10);

/// The sink in use, and those that are ending.
pub(super) struct Traces {
    environment: Environment,
    memory: Memory,
    current: Lane,
    /// Sinks that were replaced, while they end.
    ending: Vec<Ending>,
    /// What became of the spans of sinks that have ended.
    past: BySink,
}

/// By kind of sink.
type BySink = BTreeMap<&'static str, Snapshot>;

struct Ending {
    kind: &'static str,
    queue: SpanQueue,
    task: JoinHandle<Snapshot>,
}

struct Lane {
    address: Address,
    name: String,
    queue: SpanQueue,
    worker: Worker,
}

impl Traces {
    /// Opens the first sink. Must be called inside a tokio runtime.
    pub(super) fn open(
        address: &Address,
        environment: Environment,
        memory: Memory,
    ) -> Result<Self, export::BuildError> {
        let current = Lane::start(address, &environment, memory)?;
        tracing::info!("spans go to {}", current.name);
        Ok(Self { environment, memory, current, ending: Vec::new(), past: BySink::new() })
    }

    /// Sends spans from now on to `address`. On an error all stays as it is.
    pub(super) fn redirect(&mut self, address: &Address) -> Result<(), export::BuildError> {
        if self.current.address == *address {
            return Ok(());
        }
        let lane = Lane::start(address, &self.environment, self.memory)?;
        let old = std::mem::replace(&mut self.current, lane);
        tracing::info!("spans go to {} (before: {})", self.current.name, old.name);
        let kind = old.address.kind();
        // Its counters are read through the queue, which takes no more spans.
        self.ending.push(Ending {
            kind,
            queue: old.queue,
            task: tokio::spawn(old.worker.shutdown(AFTERLIFE)),
        });
        Ok(())
    }

    /// Hands a span over, without waiting.
    pub(super) fn push(&self, span: &impl Describe) {
        self.current.queue.push(span);
    }

    /// Where spans go, for people.
    pub(super) fn describe(&self) -> &str {
        &self.current.name
    }

    /// What became of all spans so far, by kind of sink.
    pub(super) fn by_sink(&mut self) -> BySink {
        let past = &mut self.past;
        self.ending.retain(|ending| {
            let ended = ending.task.is_finished();
            if ended {
                add(past, ending.kind, ending.queue.stats().snapshot());
            }
            !ended
        });
        let mut all = self.past.clone();
        for ending in &self.ending {
            add(&mut all, ending.kind, ending.queue.stats().snapshot());
        }
        add(&mut all, self.current.address.kind(), self.current.queue.stats().snapshot());
        all
    }

    /// Sends what is queued, gives up the rest, and tells what became of all.
    pub(super) async fn shutdown(self) -> Snapshot {
        let mut all = self.past.into_values().fold(Snapshot::default(), Snapshot::add);
        all = all + self.current.worker.shutdown(FAREWELL).await;
        let until = Instant::now() + FAREWELL;
        for ending in self.ending {
            if timeout_at(until, ending.task).await.is_err() {
                tracing::warn!("a trace address that was replaced still took no spans; they are given up");
            }
            all = all + ending.queue.stats().snapshot();
        }
        all
    }
}

fn add(all: &mut BySink, kind: &'static str, spans: Snapshot) {
    let sum = all.entry(kind).or_default();
    *sum = *sum + spans;
}

impl Lane {
    /// Each sink has the whole share of queues: those that were replaced empty theirs within a minute.
    fn start(
        address: &Address,
        environment: &Environment,
        memory: Memory,
    ) -> Result<Self, export::BuildError> {
        let config = match address {
            Address::Stdout => QueueConfig::local(),
            _ => QueueConfig { request_timeout: environment.timeout, ..QueueConfig::default() },
        };
        let config = QueueConfig { bytes: memory.of_queue(1), ..config };
        let exporter = Exporter::new(address, environment)?;
        let name = exporter.describe();
        let (queue, worker) = exporter.start(config);
        Ok(Self { address: address.clone(), name, queue, worker })
    }
}
