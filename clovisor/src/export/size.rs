//! How large a span is that is not encoded yet: in memory, and in Thrift, binary or compact, as an upper bound.
//!
//! In Thrift it refuses exactness: receivers limit the size of a message (64 KiB of a UDP packet), and a bound that is a little
//! too high costs one more message, while one too low costs every span in it.

use std::borrow::Cow;

use clovisor_trace::{Attributes, Key, Span, Value};

/// Field numbers, types, lengths and numbers of one attribute, a `Tag`.
const PER_ATTRIBUTE: usize = 40;
/// Identifiers, times, flags, kind and status with their field numbers, and the tags that Jaeger adds.
const PER_SPAN: usize = 320;

/// Time and lengths of an event, whose name is an attribute.
const PER_EVENT: usize = 80;

/// Upper bound of the bytes of a list of attributes.
pub(super) fn attributes(list: &Attributes) -> usize {
    list.iter().map(|(key, value)| PER_ATTRIBUTE + key.len() + self::value(value)).sum()
}

fn value(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        // A list is JSON text, in which a control character takes six bytes.
        Value::List(list) => list.iter().map(|text| 16 + 6 * text.len()).sum(),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => 10,
    }
}

/// Upper bound of the bytes of a span without its resource.
pub(super) fn span(span: &Span) -> usize {
    let message = match &span.status {
        clovisor_trace::Status::Unset => 0,
        clovisor_trace::Status::Error { message } => message.len(),
    };
    let events: usize =
        span.events.iter().map(|event| PER_EVENT + event.name.len() + attributes(&event.attributes)).sum();
    PER_SPAN + span.name.len() + span.trace_state.len() + message + attributes(&span.attributes) + events
}

/// What an allocator takes beside the bytes that it gives, about.
const PER_ALLOCATION: usize = 16;

/// Bytes of memory that a span holds, without its resource, which many share.
pub(super) fn held(span: &Span) -> usize {
    let events: usize = span.events.iter().map(|event| list(&event.attributes)).sum();
    size_of::<Span>()
        + list(&span.attributes)
        + span.events.capacity() * size_of::<clovisor_trace::Event>()
        + events
        + span.trace_state.capacity()
        + PER_ALLOCATION
}

fn list(attributes: &Attributes) -> usize {
    let text = |text: &Cow<'_, str>| match text {
        Cow::Borrowed(_) => 0,
        Cow::Owned(text) => text.capacity() + PER_ALLOCATION,
    };
    let value = |value: &Value| match value {
        // In place, or behind two counters of who shares it.
        Value::Str(value) if value.is_heap_allocated() => {
            value.len() + PER_ALLOCATION + 2 * size_of::<usize>()
        }
        Value::Str(_) => 0,
        Value::List(list) => {
            list.iter().map(|one| size_of::<String>() + one.capacity() + PER_ALLOCATION).sum()
        }
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => 0,
    };
    let texts: usize = attributes.iter().map(|(key, of)| text(key) + value(of)).sum();
    attributes.capacity() * size_of::<(Key, Value)>() + PER_ALLOCATION + texts
}
