//! Spans as OTLP messages (opentelemetry-proto v1, `trace.proto`): one `ResourceSpans` a resource.
//!
//! It is pure and total. It refuses nothing; what a span holds arrives unchanged.

use clovisor_trace::{Attributes, Event, Resource, Span, Status, Value};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource,
    trace::v1 as proto,
};

/// W3C trace flag `sampled`: Clovisor exports nothing that is not.
const SAMPLED: u32 = 0x01;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`: the parent came over the wire.
const REMOTE_PARENT: u32 = 0x300;

/// The request that carries the spans, grouped by resource in the order of each one's first span.
#[must_use]
pub fn request(spans: &[Span]) -> ExportTraceServiceRequest {
    let mut groups: Vec<(&Resource, Vec<proto::Span>)> = Vec::new();
    for span in spans {
        let resource = &*span.resource;
        // A batch holds few resources, and the same one is mostly the same allocation.
        let known = groups.iter_mut().find(|(known, _)| std::ptr::eq(*known, resource) || *known == resource);
        match known {
            Some((_, list)) => list.push(convert(span)),
            None => groups.push((resource, vec![convert(span)])),
        }
    }
    let resource_spans = groups.into_iter().map(|(resource, spans)| proto::ResourceSpans {
        resource: Some(resource::v1::Resource {
            attributes: attributes(&resource.attributes),
            ..resource::v1::Resource::default()
        }),
        scope_spans: vec![proto::ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "clovisor".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            spans,
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

fn convert(span: &Span) -> proto::Span {
    proto::Span {
        trace_id: span.trace_id.0.to_vec(),
        span_id: span.span_id.0.to_vec(),
        parent_span_id: span.parent_span_id.map(|id| id.0.to_vec()).unwrap_or_default(),
        trace_state: span.trace_state.clone(),
        flags: SAMPLED | if span.parent_span_id.is_some() { REMOTE_PARENT } else { 0 },
        name: span.name.to_string(),
        kind: span.kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: attributes(&span.attributes),
        events: span.events.iter().map(event).collect(),
        dropped_events_count: span.events_dropped,
        status: Some(match &span.status {
            Status::Unset => proto::Status::default(),
            Status::Error { message } => {
                proto::Status { message: message.to_string(), code: proto::status::StatusCode::Error.into() }
            }
        }),
        ..proto::Span::default()
    }
}

fn event(event: &Event) -> proto::span::Event {
    proto::span::Event {
        time_unix_nano: event.time_ns,
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: 0,
    }
}

fn attributes(list: &Attributes) -> Vec<KeyValue> {
    list.iter()
        .map(|(key, value)| KeyValue { key: key.to_string(), value: Some(any(value)), ..KeyValue::default() })
        .collect()
}

fn any(value: &Value) -> AnyValue {
    use any_value::Value as Any;
    let text = |text: &str| AnyValue { value: Some(Any::StringValue(text.to_owned())) };
    AnyValue {
        value: Some(match value {
            Value::Str(string) => return text(string),
            Value::Int(number) => Any::IntValue(*number),
            Value::Float(number) => Any::DoubleValue(*number),
            Value::Bool(truth) => Any::BoolValue(*truth),
            Value::List(list) => {
                Any::ArrayValue(ArrayValue { values: list.iter().map(|one| text(one)).collect() })
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clovisor_trace::{Kind, SpanId, TraceId};

    use super::*;

    fn span(service: &str, id: u8) -> Span {
        Span {
            trace_id: TraceId([7; 16]),
            span_id: SpanId([id; 8]),
            parent_span_id: None,
            parent_sampled: None,
            trace_state: String::new(),
            name: "GET".into(),
            kind: Kind::Server,
            start_ns: 1,
            end_ns: 2,
            status: Status::Unset,
            attributes: Vec::new(),
            events: Vec::new(),
            events_dropped: 0,
            resource: Arc::new(Resource::service(service.to_owned())),
        }
    }

    #[test]
    fn one_group_a_resource_in_order() {
        let request = request(&[span("a", 1), span("b", 2), span("a", 3)]);
        let groups: Vec<Vec<u8>> = request
            .resource_spans
            .iter()
            .map(|group| group.scope_spans[0].spans.iter().map(|span| span.span_id[0]).collect())
            .collect();
        assert_eq!(groups, [vec![1, 3], vec![2]]);
        let scope = request.resource_spans[0].scope_spans[0].scope.as_ref().unwrap();
        assert_eq!((scope.name.as_str(), scope.version.as_str()), ("clovisor", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn every_field_arrives() {
        let mut one = span("a", 1);
        one.parent_span_id = Some(SpanId([9; 8]));
        one.trace_state = "k=v".to_owned();
        one.kind = Kind::Client;
        one.start_ns = u64::MAX - 1;
        one.end_ns = u64::MAX;
        one.status = Status::Error { message: "reset".into() };
        one.attributes = vec![
            ("s".into(), "x\0y".into()),
            ("i".into(), Value::Int(i64::MIN)),
            ("f".into(), Value::Float(0.5)),
            ("b".into(), Value::Bool(true)),
            ("l".into(), Value::List(vec!["p".to_owned(), "q".to_owned()])),
        ];
        one.events = vec![Event { time_ns: 7, name: "e".into(), attributes: vec![("k".into(), "v".into())] }];
        one.events_dropped = 3;
        let out = request(&[one]).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
        assert_eq!((out.trace_id.len(), out.parent_span_id.clone(), out.flags), (16, vec![9; 8], 0x301));
        assert_eq!((out.trace_state.as_str(), out.kind), ("k=v", 3));
        assert_eq!((out.start_time_unix_nano, out.end_time_unix_nano), (u64::MAX - 1, u64::MAX));
        let event = &out.events[0];
        assert_eq!((event.time_unix_nano, event.name.as_str(), event.attributes.len()), (7, "e", 1));
        assert_eq!((out.events.len(), out.dropped_events_count), (1, 3));
        let status = out.status.unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "reset"));
        let values: Vec<_> =
            out.attributes.iter().map(|one| one.value.clone().unwrap().value.unwrap()).collect();
        use any_value::Value as Any;
        assert_eq!(
            values[..4],
            [
                Any::StringValue("x\0y".to_owned()),
                Any::IntValue(i64::MIN),
                Any::DoubleValue(0.5),
                Any::BoolValue(true)
            ]
        );
        assert!(matches!(&values[4], Any::ArrayValue(list) if list.values.len() == 2));
    }

    #[test]
    fn the_size_is_an_upper_bound() {
        use prost::Message;
        let mut one = span("a service", 1);
        one.parent_span_id = Some(SpanId([255; 8]));
        one.attributes = (0..50)
            .map(|n| (format!("attribute.{n}").into(), Value::List(vec!["x".repeat(n); n])))
            .chain((0..50).map(|n| (format!("number.{n}").into(), Value::Int(i64::MIN))))
            .collect();
        one.events = (0..50)
            .map(|n| Event {
                time_ns: u64::MAX,
                name: "x".repeat(n).into(),
                attributes: one.attributes[..1].to_vec(),
            })
            .collect();
        let bound = super::super::size::span(&one) + super::super::size::attributes(&one.resource.attributes);
        assert!(request(&[one]).encoded_len() <= bound);
    }
}
