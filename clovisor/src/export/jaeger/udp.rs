//! Jaeger compact Thrift over UDP: the way of the original Jaeger agents, by default on port 6831.
//!
//! Nobody answers on this way. A packet that was handed to the network counts as accepted; that nobody listens shows,
//! on most systems, as an error of the next packet, and from then on spans are kept and tried again. It refuses spans
//! that are larger than a packet.

use std::{net::SocketAddr, time::Duration};

use opentelemetry_jaeger::new_agent_pipeline;
use tokio::{net::lookup_host, time::sleep};

use super::{
    super::{
        address::{Address, Server},
        exporter::BuildError,
        sink::{Batch, ExportError, Sink, Spans},
    },
    Exporters, config, fitting, read_error, refuse_first, send,
};

/// Jaeger's agent reads packets of up to this many bytes.
const MAX_PACKET: usize = 65_000;
/// Name and sequence of the call around the spans.
const ENVELOPE: usize = 64;
/// Between packets: eight at once overrun a default receive buffer, and a refusal takes a moment to come back.
const PAUSE: Duration = Duration::from_millis(1);
/// The library would follow these, silently, instead of the address that it is given.
const OVERRULING: [&str; 2] = ["OTEL_EXPORTER_JAEGER_AGENT_HOST", "OTEL_EXPORTER_JAEGER_AGENT_PORT"];

/// A sink that sends packets to a Jaeger agent.
#[derive(Debug)]
pub struct JaegerUdp {
    exporters: Exporters,
    server: Server,
    /// What the name stands for; looked up again after a failure.
    target: Option<SocketAddr>,
    /// Which of the name's addresses is next, so that one that is dead does not hide one that lives.
    turn: usize,
}

impl JaegerUdp {
    /// A sink for `server`; nothing is looked up or sent yet.
    pub(crate) fn new(server: &Server) -> Result<Self, BuildError> {
        if let Some(variable) = OVERRULING.into_iter().find(|name| std::env::var_os(name).is_some()) {
            return Err(BuildError::Overruled { variable, address: server.to_string() });
        }
        Ok(Self { exporters: Exporters::default(), server: server.clone(), target: None, turn: 0 })
    }

    async fn target(&mut self) -> Result<SocketAddr, ExportError> {
        if let Some(target) = self.target {
            return Ok(target);
        }
        let Server { host, port } = &self.server;
        let found: Vec<_> = lookup_host((host.as_str(), *port))
            .await
            .map_err(|error| ExportError::retry(format!("cannot look up {host}: {error}")))?
            .collect();
        let Some(target) = found.get(self.turn % found.len().max(1)).copied() else {
            return Err(ExportError::retry(format!("the name {host} has no address")));
        };
        self.target = Some(target);
        Ok(target)
    }

    /// Sends what fits into one packet.
    async fn send_packet(&mut self, batch: &mut Batch<Spans>) -> Result<(), ExportError> {
        let Some(resource) = batch.form().list().first().map(|span| span.resource.clone()) else {
            return Ok(());
        };
        let count = fitting(batch, &resource, MAX_PACKET - ENVELOPE);
        if count == 0 {
            refuse_first(batch, MAX_PACKET);
            return Ok(());
        }
        let target = self.target().await?;
        let make = || {
            new_agent_pipeline()
                .with_service_name(resource.service_name())
                .with_trace_config(config(&resource))
                .with_endpoint(target.to_string())
                .with_max_packet_size(MAX_PACKET)
                // Our bound of the size is an upper one; should it ever not be, the library splits.
                .with_auto_split_batch(true)
                .build_sync_agent_exporter()
        };
        let exporter = self.exporters.get(&resource, make).map_err(read_error)?;
        send(exporter, batch, &resource, count).await.map_err(read_error)
    }
}

impl Sink for JaegerUdp {
    type Form = Spans;

    fn describe(&self) -> String {
        Address::ThriftUdp { server: self.server.clone() }.to_string()
    }

    async fn export(&mut self, batch: &mut Batch<Spans>) -> Result<(), ExportError> {
        while !batch.is_empty() {
            if let Err(error) = self.send_packet(batch).await {
                self.exporters = Exporters::default();
                self.target = None;
                self.turn = self.turn.wrapping_add(1);
                return Err(error);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }
}
