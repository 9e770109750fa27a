//! Jaeger's own protocol, Thrift, by `opentelemetry-jaeger`: for Jaegers, and networks, that know no OTLP.
//!
//! That crate is retired and speaks to `opentelemetry` 0.23; both are locked into this folder. One of its exporters
//! carries one resource (Jaeger's `Process`), so one is kept for each resource, up to a bound. It refuses what the
//! protocol cannot hold: times finer than a microsecond are cut, and W3C `tracestate` becomes the tag
//! `w3c.tracestate`, as in Jaeger's own translation from OTLP.

#![expect(
    deprecated,
    reason = "opentelemetry-jaeger is retired as a whole; Thrift over UDP has no other way"
)]

mod http;
mod span;
mod udp;

use std::sync::Arc;

use clovisor_trace::Resource;
use opentelemetry::{KeyValue, trace::TraceError};
use opentelemetry_jaeger::Exporter;
use opentelemetry_sdk::{export::trace::SpanExporter, trace::Config};

pub use self::{http::JaegerHttp, udp::JaegerUdp};
use super::{
    sink::{Batch, ExportError, Spans},
    size, text,
};

/// Exporters that are kept. Over UDP each holds a socket and a buffer of 65 kB; a node runs about 110 pods.
const MAX_EXPORTERS: usize = 128;

/// An exporter a resource, the one that was used last at the end.
#[derive(Debug, Default)]
struct Exporters {
    list: Vec<(Arc<Resource>, Exporter)>,
}

impl Exporters {
    /// The exporter of a resource, made by `make` if there is none; the one unused for longest makes room.
    fn get(
        &mut self,
        resource: &Arc<Resource>,
        make: impl FnOnce() -> Result<Exporter, TraceError>,
    ) -> Result<&mut Exporter, TraceError> {
        let found = self.list.iter().position(|(known, _)| same(known, resource));
        let entry = match found {
            Some(at) => self.list.remove(at),
            None => (Arc::clone(resource), make()?),
        };
        if self.list.len() >= MAX_EXPORTERS {
            self.list.remove(0);
        }
        self.list.push(entry);
        let newest = self.list.len() - 1;
        Ok(&mut self.list[newest].1)
    }
}

fn same(a: &Arc<Resource>, b: &Arc<Resource>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// The settings through which the library learns of a resource: its attributes become the process's tags.
fn config(resource: &Resource) -> Config {
    let tags = resource
        .attributes
        .iter()
        .map(|(key, value)| KeyValue::new(span::key(key.clone()), span::value(value)));
    Config::default().with_resource(opentelemetry_sdk::Resource::new(tags))
}

/// How many of the spans that share the first one's resource fit into `limit` bytes; 0 if not even one does.
fn fitting(batch: &Batch<Spans>, resource: &Arc<Resource>, limit: usize) -> usize {
    let mut total = size::attributes(&resource.attributes);
    let fits = |one: &&clovisor_trace::Span| {
        total += size::span(one);
        total <= limit
    };
    batch.form().list().iter().filter(|one| same(&one.resource, resource)).take_while(fits).count()
}

/// Sends the first `count` spans of a resource with its exporter, and settles them.
async fn send(
    exporter: &mut Exporter,
    batch: &mut Batch<Spans>,
    resource: &Arc<Resource>,
    count: usize,
) -> Result<(), TraceError> {
    let group = batch.form().list().iter().filter(|one| same(&one.resource, resource)).take(count);
    exporter.export(group.map(span::convert).collect()).await?;
    let mut left = count;
    batch.accept_where(|one| {
        let settled = left > 0 && same(&one.resource, resource);
        left -= usize::from(settled);
        settled
    });
    Ok(())
}

/// Refuses the first span, which is larger than one message may be.
fn refuse_first(batch: &mut Batch<Spans>, limit: usize) {
    let mut first = true;
    let reason = format!("a span is larger than the {limit} bytes that one message may have");
    batch.refuse_where(reason, |_| std::mem::take(&mut first));
}

/// Our own error where it came through the library, else the library's as worth another try.
fn read_error(error: TraceError) -> ExportError {
    match error {
        TraceError::Other(inner) => match inner.downcast::<ExportError>() {
            Ok(own) => *own,
            Err(other) => ExportError::retry(text::chain(&*other)),
        },
        other => ExportError::retry(text::chain(&other)),
    }
}
