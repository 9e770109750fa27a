//! The choice of a sink: an address and the environment in, something that exports out.
//!
//! It refuses to connect: a collector that is not there at the start is there later, or is not, and the queue copes
//! with both. What can be wrong for good (a certificate file, a variable of another library) is an error here.

use std::str::FromStr;

use clovisor_trace::Describe;
use http::Uri;
use thiserror::Error;

use super::{
    address::Address,
    env::Environment,
    jaeger::{JaegerHttp, JaegerUdp},
    json::JsonLines,
    otlp::{OtlpGrpc, OtlpHttp},
    queue::{self, QueueConfig, SpanQueue, Worker},
    sink::{Batch, ExportError, Form, Sink},
    table::Table,
};
use crate::threads::others;

/// Why a sink cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// TLS is asked for and cannot be set up.
    #[error(
        "cannot set up TLS for the export of traces: {reason}; \
         name a PEM file in OTEL_EXPORTER_OTLP_CERTIFICATE or SSL_CERT_FILE"
    )]
    Tls {
        /// What failed.
        reason: String,
    },
    /// The address passes the grammar, but makes no URL.
    #[error("the trace address `{address}` makes no URL: {reason}; check its host and path")]
    Url {
        /// The address as it would be shown.
        address: String,
        /// What the URL parser said.
        reason: String,
    },
    /// A variable that would make the Jaeger library send elsewhere than to the address.
    #[error(
        "the environment variable {variable} would send traces elsewhere than to {address}: \
         unset it, or give its value as the trace address"
    )]
    Overruled {
        /// The variable.
        variable: &'static str,
        /// Where traces should go.
        address: String,
    },
    /// The Jaeger library refused its configuration.
    #[error("cannot set up the Jaeger exporter: {reason}; check the trace address")]
    Jaeger {
        /// What it said.
        reason: String,
    },
}

/// Every way out of the agent, as one type.
#[derive(Debug)]
pub enum Exporter {
    /// OTLP over gRPC.
    OtlpGrpc(Box<OtlpGrpc>),
    /// OTLP over HTTP.
    OtlpHttp(Box<OtlpHttp>),
    /// Jaeger Thrift over HTTP.
    JaegerHttp(Box<JaegerHttp>),
    /// Jaeger Thrift over UDP.
    JaegerUdp(Box<JaegerUdp>),
    /// JSON lines.
    Json(JsonLines),
    /// A table for people.
    Table(Table),
    /// Nowhere: spans count as exported and are gone.
    None,
}

impl Exporter {
    /// The sink for an address. Must be called inside a Tokio runtime; nothing is sent yet.
    ///
    /// # Errors
    /// What no later try can mend; see [`BuildError`].
    pub fn new(address: &Address, env: &Environment) -> Result<Self, BuildError> {
        let others = others();
        // Some clients have a task of their own.
        let _there = others.enter();
        Ok(match address {
            Address::OtlpGrpc { server, tls } => {
                let origin = uri(address, *tls, &server.to_string(), "/")?;
                Self::OtlpGrpc(Box::new(OtlpGrpc::new(address, origin, *tls, env)?))
            }
            Address::OtlpHttp { server, tls, path } => {
                let uri = uri(address, *tls, &server.to_string(), path)?;
                Self::OtlpHttp(Box::new(OtlpHttp::new(address, uri, *tls, env)?))
            }
            Address::ThriftHttp { server, tls, path } => {
                let uri = uri(address, *tls, &server.to_string(), path)?;
                Self::JaegerHttp(Box::new(JaegerHttp::new(address, uri, *tls, env)?))
            }
            Address::ThriftUdp { server } => Self::JaegerUdp(Box::new(JaegerUdp::new(server)?)),
            Address::Stdout => Self::Json(JsonLines::new(Box::new(std::io::stdout()))),
            Address::None => Self::None,
        })
    }
}

fn uri(address: &Address, tls: bool, server: &str, path: &str) -> Result<Uri, BuildError> {
    let scheme = if tls { "https" } else { "http" };
    Uri::from_str(&format!("{scheme}://{server}{path}"))
        .map_err(|error| BuildError::Url { address: address.to_string(), reason: error.to_string() })
}

impl Exporter {
    /// Where spans go, for logs.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::OtlpGrpc(sink) => sink.describe(),
            Self::OtlpHttp(sink) => sink.describe(),
            Self::JaegerHttp(sink) => sink.describe(),
            Self::JaegerUdp(sink) => sink.describe(),
            Self::Json(sink) => sink.describe(),
            Self::Table(sink) => sink.describe(),
            Self::None => Nowhere.describe(),
        }
    }

    /// Starts its queue, which holds spans in the form in which this sink sends them. Must be called inside a Tokio runtime.
    #[must_use]
    pub fn start(self, config: QueueConfig) -> (SpanQueue, Worker) {
        match self {
            Self::OtlpGrpc(sink) => queue::start(*sink, config),
            Self::OtlpHttp(sink) => queue::start(*sink, config),
            Self::JaegerHttp(sink) => queue::start(*sink, config),
            Self::JaegerUdp(sink) => queue::start(*sink, config),
            Self::Json(sink) => queue::start(sink, config),
            Self::Table(sink) => queue::start(sink, config),
            Self::None => queue::start(Nowhere, config),
        }
    }
}

/// The sink that takes all and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    type Form = Counted;

    fn describe(&self) -> String {
        Address::None.to_string()
    }

    async fn export(&mut self, _: &mut Batch<Counted>) -> Result<(), ExportError> {
        Ok(())
    }
}

/// How many spans there were.
#[derive(Debug, Default)]
pub struct Counted(usize);

impl Form for Counted {
    const FULL: usize = usize::MAX;

    fn another(&self) -> Self {
        Self::default()
    }

    fn add(&mut self, _: &impl Describe) {
        self.0 += 1;
    }

    fn spans(&self) -> usize {
        self.0
    }

    fn bytes(&self) -> usize {
        0
    }
}
