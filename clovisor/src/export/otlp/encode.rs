//! Spans as OTLP has them (opentelemetry-proto v1: `trace.proto`, `common.proto`), encoded. The numbers here are those of the
//! fields there.
//!
//! It is pure and total. It refuses nothing; what a span says arrives unchanged.

use clovisor_trace::{AttributeWriter, Describe, EventRef, Resource, ValueRef, write_all};

use super::message::Message;

/// W3C trace flag `sampled`: Clovisor exports nothing that is not.
const SAMPLED: u32 = 0x01;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`: the parent came over the wire.
const REMOTE_PARENT: u32 = 0x300;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;
/// What an ordinary span takes, about.
pub(super) const USUAL_SPAN: usize = 1024;

/// `Resource`.
pub(super) fn resource(out: &mut Message<'_>, resource: &Resource) {
    write_all(&resource.attributes, &mut Attributes::<1>(out));
}

/// `InstrumentationScope`.
pub(super) fn scope(out: &mut Message<'_>) {
    out.text(1, "clovisor");
    out.text(2, env!("CARGO_PKG_VERSION"));
}

/// `Span`.
pub(super) fn span(out: &mut Message<'_>, span: &impl Describe) {
    let head = span.head();
    out.bytes(1, &head.trace_id.0);
    out.bytes(2, &head.span_id.0);
    if !head.trace_state.is_empty() {
        out.text(3, head.trace_state);
    }
    if let Some(parent) = head.parent_span_id {
        out.bytes(4, &parent.0);
    }
    out.text(5, head.name);
    out.varint(6, head.kind as u64);
    out.fixed64(7, head.start_ns);
    out.fixed64(8, head.end_ns);
    span.attributes(&mut Attributes::<9>(out));
    span.events(|one| out.message(11, |out| event(out, &one)));
    out.varint(12, head.events_dropped.into());
    out.message(15, |out| {
        if let Some(message) = head.error {
            out.text(2, message);
            out.varint(3, ERROR);
        }
    });
    out.fixed32(16, SAMPLED | if head.parent_span_id.is_some() { REMOTE_PARENT } else { 0 });
}

/// `Event`.
fn event(out: &mut Message<'_>, event: &EventRef<'_>) {
    out.fixed64(1, event.time_ns);
    out.text(2, &event.name);
    write_all(event.attributes, &mut Attributes::<3>(out));
}

/// `KeyValue`s of a message, in its field of this number.
struct Attributes<'a, 'b, const TAG: u8>(&'a mut Message<'b>);

impl<const TAG: u8> AttributeWriter for Attributes<'_, '_, TAG> {
    #[inline(always)]
    fn write(&mut self, key: &'static str, value: ValueRef<'_>) {
        match value {
            ValueRef::Str(text) | ValueRef::Plain(text) => self.0.text_pair(TAG, key, text),
            ValueRef::Int(number) => self.0.number_pair(TAG, key, number.cast_unsigned()),
            _ => self.write_named(key, value),
        }
    }

    fn write_named(&mut self, key: &str, value: ValueRef<'_>) {
        self.0.message(TAG.into(), |out| {
            out.text(1, key);
            out.message(2, |out| any(out, value));
        });
    }
}

/// `AnyValue`.
fn any(out: &mut Message<'_>, value: ValueRef<'_>) {
    match value {
        ValueRef::Str(text) | ValueRef::Plain(text) => out.text(1, text),
        ValueRef::Bool(truth) => out.varint(2, u64::from(truth)),
        ValueRef::Int(number) => out.varint(3, number.cast_unsigned()),
        ValueRef::Float(number) => out.fixed64(4, number.to_bits()),
        ValueRef::List(list) => out.message(5, |out| {
            for text in list {
                out.message(1, |out| out.text(1, text));
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clovisor_trace::{Event, Kind, Resource, Span, SpanId, Status, TraceId, Value};
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Any,
        trace::v1::ScopeSpans,
    };
    use prost::Message as _;

    use super::super::{super::sink::Form as _, Groups};

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

    fn request(spans: &[Span]) -> Vec<u8> {
        let mut groups = Groups::default();
        spans.iter().for_each(|span| groups.add(span));
        let message = groups.message();
        assert_eq!(groups.message(), message, "as often as it is tried");
        message.concat()
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
        let (first, other) = (span("a", 1), span("b", 2));
        let again = Span { span_id: SpanId([3; 8]), ..first.clone() };
        let request = received(&[first, other, again]);
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
    fn one_message_takes_what_another_has_as_long_as_receivers_take_it() {
        let group = |size: usize, id| {
            let mut groups = Groups::default();
            let attributes = vec![("x".into(), "x".repeat(size).into())];
            groups.add(&Span { attributes, ..span("a", id) });
            groups
        };
        let mut all = group(1 << 20, 1);
        assert!(all.gather(group(1 << 20, 2)).is_none());
        let rest = all.gather(group(1 << 20, 3)).expect("3 MiB and more are too many");
        assert_eq!((all.spans(), rest.spans()), (2, 1));
        assert_eq!(all.bytes(), group(1 << 20, 1).bytes() * 2);
        let request = ExportTraceServiceRequest::decode(all.message().concat().as_slice()).unwrap();
        let ids = request.resource_spans.iter().map(|group| group.scope_spans[0].spans[0].span_id[0]);
        assert_eq!(ids.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn one_resource_has_one_group_however_its_spans_were_gathered() {
        let (first, other) = (span("a", 1), span("b", 2));
        let again = Span { span_id: SpanId([3; 8]), ..first.clone() };
        let piece = |spans: &[&Span]| {
            let mut groups = Groups::default();
            spans.iter().for_each(|span| groups.add(*span));
            groups
        };
        let mut all = piece(&[&first]);
        let bytes = all.bytes();
        for more in [piece(&[&other, &again]), piece(&[&again])] {
            let sum = all.bytes() + more.bytes();
            assert!(all.gather(more).is_none());
            assert_eq!(all.bytes(), sum, "what a queue has counted for each");
        }
        assert!(bytes < all.bytes());
        let request = ExportTraceServiceRequest::decode(all.message().concat().as_slice()).unwrap();
        let ids = |scope: &ScopeSpans| scope.spans.iter().map(|span| span.span_id[0]).collect::<Vec<_>>();
        let groups = request.resource_spans.iter().map(|group| ids(&group.scope_spans[0]));
        assert_eq!(groups.collect::<Vec<_>>(), [vec![1, 3, 3], vec![2]]);
    }

    #[test]
    fn keys_and_texts_of_any_length_arrive() {
        let lengths = [0, 1, 20, 60, 61, 62, 100, 120, 121, 122, 123, 127, 128, 129, 300, 20_000];
        let mut one = span("a", 1);
        // Names of our own are short, but the encoder must not count on it.
        let key = |len: usize, what: &str| -> &'static str { format!("{what}{}", "k".repeat(len)).leak() };
        for len in lengths {
            for text in lengths {
                one.attributes.push((key(len, &text.to_string()).into(), "v".repeat(text).into()));
            }
            for bit in 0..64 {
                one.attributes.push((key(len, &format!("n{bit}.")).into(), Value::Int(1 << bit)));
            }
        }
        let out = received(std::slice::from_ref(&one)).resource_spans.remove(0).scope_spans.remove(0);
        assert_eq!(out.spans[0].attributes.len(), one.attributes.len());
        for (sent, got) in one.attributes.iter().zip(&out.spans[0].attributes) {
            assert_eq!(sent.0, got.key);
            match (&sent.1, got.value.as_ref().unwrap().value.as_ref().unwrap()) {
                (Value::Str(sent), Any::StringValue(got)) => assert_eq!(sent, got),
                (Value::Int(sent), Any::IntValue(got)) => assert_eq!(sent, got),
                other => panic!("{other:?}"),
            }
        }
    }
}
