//! The sinks of one run: standard output in the form asked for, and every address of `--to`, each behind a
//! queue of its own, so that a dead one costs the others nothing.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Result;
use clovisor_trace::Describe;

use crate::{
    cli::{Form, Output},
    export::{
        Address, Environment, Exporter, QueueConfig, Snapshot, SpanQueue, Worker, json::JsonLines,
        table::Table,
    },
    failure::Usage,
    memory::Memory,
};

/// How long queues may take to empty when all else has ended.
const FAREWELL: Duration = Duration::from_secs(5);

struct Lane {
    name: String,
    queue: SpanQueue,
    worker: Worker,
}

/// All sinks of one run.
pub struct Outputs {
    lanes: Vec<Lane>,
    /// Whether the first lane is standard output.
    shows: bool,
}

impl Outputs {
    /// Opens the sinks. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// An address that no sink can be made of.
    pub fn open(options: &Output, environment: &Environment, memory: Memory) -> Result<Self> {
        let form =
            options.output.unwrap_or(if std::io::stdout().is_terminal() { Form::Table } else { Form::Json });
        let shown = match form {
            Form::Table => Some(Exporter::Table(Table::stdout())),
            Form::Json => Some(Exporter::Json(JsonLines::new(Box::new(std::io::stdout())))),
            Form::None => None,
        };
        let shows = shown.is_some();
        // OpenTelemetry's own variable says where spans go if the command line does not.
        let standard = environment.endpoint.iter().filter(|_| options.to.is_empty());
        let addresses: Vec<&Address> = options.to.iter().chain(standard).collect();
        let bytes = memory.of_queue(addresses.len() + usize::from(shows));
        let bounded = |config| QueueConfig { bytes, ..config };
        let local = bounded(QueueConfig::local());
        let mut lanes: Vec<Lane> = shown.into_iter().map(|exporter| Lane::start(exporter, local)).collect();
        for address in addresses {
            let config = match address {
                Address::Stdout => QueueConfig::local(),
                _ => QueueConfig { request_timeout: environment.timeout, ..QueueConfig::default() },
            };
            let exporter = Exporter::new(address, environment).map_err(|error| Usage(error.to_string()))?;
            tracing::info!("spans go to {}", exporter.describe());
            lanes.push(Lane::start(exporter, bounded(config)));
        }
        Ok(Self { lanes, shows })
    }

    /// Hands a span to every sink, without waiting.
    pub fn push(&self, span: &impl Describe) {
        for lane in &self.lanes {
            lane.queue.push(span);
        }
    }

    /// Hands a span to every sink, and waits for room in their queues.
    pub async fn push_waiting(&self, span: &impl Describe) {
        for lane in &self.lanes {
            lane.queue.push_waiting(span).await;
        }
    }

    /// Waits until standard output takes nothing any more, as in `clovisor … | head`; for ever if it is not used.
    pub async fn reader_gone(&mut self) {
        match self.lanes.first_mut().filter(|_| self.shows) {
            Some(lane) => lane.worker.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Sends what is queued, gives up the rest, and tells what became of all, by sink.
    pub async fn shutdown(self) -> Vec<(String, Snapshot)> {
        let mut sinks = Vec::new();
        for Lane { name, queue, worker } in self.lanes {
            drop(queue);
            sinks.push((name, worker.shutdown(FAREWELL).await));
        }
        sinks
    }
}

impl Lane {
    fn start(exporter: Exporter, config: QueueConfig) -> Self {
        let name = exporter.describe();
        let (queue, worker) = exporter.start(config);
        Self { name, queue, worker }
    }
}
