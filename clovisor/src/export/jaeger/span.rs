//! Spans in the shape of `opentelemetry_sdk` 0.23, which the Jaeger library takes.
//!
//! It is pure and total. It refuses nothing; links, which a session has not got, are empty.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use clovisor_trace::{Event, Kind, Span, Status, Value};
use opentelemetry::{
    Key, KeyValue, Value as OtelValue,
    trace::{self, SpanContext, SpanKind, TraceFlags, TraceState},
};
use opentelemetry_sdk::{
    InstrumentationLibrary, Resource,
    export::trace::SpanData,
    trace::{SpanEvents, SpanLinks},
};

/// Where Jaeger itself puts what its model has no field for.
const TRACE_STATE_TAG: &str = "w3c.tracestate";

/// The span as the library takes it; the resource travels with the exporter.
pub(super) fn convert(span: &Span) -> SpanData {
    let mut attributes: Vec<_> =
        span.attributes.iter().map(|(name, one)| KeyValue::new(key(name.clone()), value(one))).collect();
    if !span.trace_state.is_empty() {
        attributes.push(KeyValue::new(TRACE_STATE_TAG, span.trace_state.clone()));
    }
    SpanData {
        span_context: SpanContext::new(
            trace::TraceId::from_bytes(span.trace_id.0),
            trace::SpanId::from_bytes(span.span_id.0),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span
            .parent_span_id
            .map_or(trace::SpanId::INVALID, |id| trace::SpanId::from_bytes(id.0)),
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        },
        name: span.name.clone(),
        start_time: time(span.start_ns),
        end_time: time(span.end_ns),
        attributes,
        dropped_attributes_count: 0,
        events: events(span),
        links: SpanLinks::default(),
        status: match &span.status {
            Status::Unset => trace::Status::Unset,
            Status::Error { message } => trace::Status::error(message.clone()),
        },
        resource: Cow::Owned(Resource::empty()),
        instrumentation_lib: InstrumentationLibrary::builder("clovisor")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn events(span: &Span) -> SpanEvents {
    let event = |event: &Event| {
        let attributes =
            event.attributes.iter().map(|(name, one)| KeyValue::new(key(name.clone()), value(one))).collect();
        trace::Event::new(event.name.clone(), time(event.time_ns), attributes, 0)
    };
    let mut events = SpanEvents::default();
    events.events = span.events.iter().map(event).collect();
    events.dropped_count = span.events_dropped;
    events
}

/// Cut to the microsecond on both ends, so that the library's duration is the difference of the times it sends.
fn time(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(ns / 1000)
}

/// The name of an attribute as the library takes it.
pub(super) fn key(name: Cow<'static, str>) -> Key {
    match name {
        Cow::Borrowed(name) => Key::from_static_str(name),
        Cow::Owned(name) => Key::new(name),
    }
}

/// The value of an attribute as the library takes it.
pub(super) fn value(value: &Value) -> OtelValue {
    match value {
        Value::Str(text) => OtelValue::String(text.to_string().into()),
        Value::Int(number) => OtelValue::I64(*number),
        Value::Float(number) => OtelValue::F64(*number),
        Value::Bool(truth) => OtelValue::Bool(*truth),
        // As JSON, in which Jaeger shows OTLP's lists too; the library would leave quotes inside unescaped.
        Value::List(list) => OtelValue::String(serde_json::Value::from(list.as_slice()).to_string().into()),
    }
}
