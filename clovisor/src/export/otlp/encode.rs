//! Spans as OTLP's `ExportTraceServiceRequest` (opentelemetry-proto v1: `trace_service.proto`, `trace.proto`, `common.proto`),
//! encoded: one `ResourceSpans` a resource. The numbers here are those of the fields there.
//!
//! It is pure and total. It refuses nothing; what a span holds arrives unchanged.

use clovisor_trace::{Attributes, Event, Resource, Span, Status, Value};

use super::message::{self, Message};

/// W3C trace flag `sampled`: Clovisor exports nothing that is not.
const SAMPLED: u32 = 0x01;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`: the parent came over the wire.
const REMOTE_PARENT: u32 = 0x300;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// What an ordinary span takes, about.
const USUAL_SPAN: usize = 1024;

/// The request that carries the spans, grouped by resource in the order of each one's first span.
#[must_use]
pub fn request(spans: &[Span]) -> Vec<u8> {
    let mut groups: Vec<(&Resource, Vec<&Span>)> = Vec::new();
    for span in spans {
        let resource = &*span.resource;
        // A batch holds few resources, and the same one is mostly the same allocation.
        let known = groups.iter_mut().find(|(known, _)| std::ptr::eq(*known, resource) || *known == resource);
        match known {
            Some((_, list)) => list.push(span),
            None => groups.push((resource, vec![span])),
        }
    }
    let mut out = Vec::with_capacity(spans.len() * USUAL_SPAN);
    let mut request = Message::new(&mut out);
    for (resource, spans) in groups {
        request.message_of(1, spans.len() * USUAL_SPAN, |group| resource_spans(group, resource, &spans));
    }
    out
}

fn resource_spans(out: &mut Message<'_>, resource: &Resource, spans: &[&Span]) {
    out.message(1, |out| attributes(out, 1, &resource.attributes));
    out.message_of(2, spans.len() * USUAL_SPAN, |out| {
        out.message(1, |scope| {
            scope.text(1, "clovisor");
            scope.text(2, env!("CARGO_PKG_VERSION"));
        });
        for one in spans {
            out.message_of(2, USUAL_SPAN, |out| span(out, one));
        }
    });
}

fn span(out: &mut Message<'_>, span: &Span) {
    out.bytes(1, &span.trace_id.0);
    out.bytes(2, &span.span_id.0);
    if !span.trace_state.is_empty() {
        out.text(3, &span.trace_state);
    }
    if let Some(parent) = span.parent_span_id {
        out.bytes(4, &parent.0);
    }
    out.text(5, &span.name);
    out.varint(6, span.kind as u64);
    out.fixed64(7, span.start_ns);
    out.fixed64(8, span.end_ns);
    attributes(out, 9, &span.attributes);
    for one in &span.events {
        out.message(11, |out| event(out, one));
    }
    out.varint(12, span.events_dropped.into());
    out.message(15, |out| {
        if let Status::Error { message } = &span.status {
            out.text(2, message);
            out.varint(3, ERROR);
        }
    });
    out.fixed32(16, SAMPLED | if span.parent_span_id.is_some() { REMOTE_PARENT } else { 0 });
}

fn event(out: &mut Message<'_>, event: &Event) {
    out.fixed64(1, event.time_ns);
    out.text(2, &event.name);
    attributes(out, 3, &event.attributes);
}

fn attributes(out: &mut Message<'_>, tag: u32, list: &Attributes) {
    for (key, one) in list {
        let len = value_len(one);
        out.message_of_len(tag, message::delimited(key.len()) + message::delimited(len), |out| {
            out.text(1, key);
            out.message_of_len(2, len, |out| value(out, one));
        });
    }
}

/// Bytes of an `AnyValue`. There are many and they are short: to know it before costs less than to make room for it after.
fn value_len(value: &Value) -> usize {
    match value {
        Value::Str(text) => message::delimited(text.len()),
        Value::Bool(_) => 2,
        Value::Int(number) => 1 + message::digits(number.cast_unsigned()),
        Value::Float(_) => 9,
        Value::List(list) => {
            let texts = list.iter().map(|text| message::delimited(message::delimited(text.len())));
            message::delimited(texts.sum())
        }
    }
}

/// `AnyValue`.
fn value(out: &mut Message<'_>, value: &Value) {
    match value {
        Value::Str(text) => out.text(1, text),
        Value::Bool(truth) => out.varint(2, u64::from(*truth)),
        Value::Int(number) => out.varint(3, number.cast_unsigned()),
        Value::Float(number) => out.fixed64(4, number.to_bits()),
        Value::List(list) => out.message(5, |out| {
            for text in list {
                out.message(1, |out| out.text(1, text));
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clovisor_trace::{Kind, SpanId, TraceId};
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Any,
    };
    use prost::Message as _;

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

    /// What a receiver reads; nothing is lost or added on its way through the library's own encoder.
    fn received(spans: &[Span]) -> ExportTraceServiceRequest {
        let bytes = request(spans);
        let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(ExportTraceServiceRequest::decode(&*request.encode_to_vec()).unwrap(), request);
        request
    }

    #[test]
    fn one_group_a_resource_in_order() {
        let request = received(&[span("a", 1), span("b", 2), span("a", 3)]);
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
        let out = received(&[one]).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0);
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
        assert!(request(&[one]).len() <= bound);
    }
}
