//! The seam between a session and an encoder: what a span says, told piece by piece, so that it can become bytes without being
//! built first.
//!
//! It refuses to know wire formats and conventions: [`semconv`](crate::semconv) tells, an encoder listens. A [`Span`] that was
//! built tells the same.

use std::{borrow::Cow, sync::Arc};

use smol_str::SmolStr;

use crate::span::{Attributes, Event, Key, Kind, Resource, Span, SpanId, Status, TraceId, Value};

/// Attributes of an ordinary HTTP span, and some of the pods at its ends.
const USUAL_ATTRIBUTES: usize = 32;

/// Value of an attribute, lent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Text.
    Str(&'a str),
    /// Text of our own: printable ASCII, without quotes and backslashes.
    Plain(&'a str),
    /// Whole number.
    Int(i64),
    /// Fractional number.
    Float(f64),
    /// Truth.
    Bool(bool),
    /// List of texts.
    List(&'a [&'a str]),
}

/// Who listens to attributes: they come in order, and no key twice.
pub trait AttributeWriter {
    /// An attribute with a name of our own, as in [`ValueRef::Plain`].
    fn write(&mut self, key: &'static str, value: ValueRef<'_>);

    /// An attribute whose name somebody else made.
    fn write_named(&mut self, key: &str, value: ValueRef<'_>);
}

/// What a span says but for its attributes and events; each as in [`Span`].
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Trace that it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The caller's span.
    pub parent_span_id: Option<SpanId>,
    /// Whether the caller's trace is sampled, where the request said so.
    pub parent_sampled: Option<bool>,
    /// W3C `tracestate`.
    pub trace_state: &'a str,
    /// Low-cardinality name.
    pub name: &'a Cow<'static, str>,
    /// Which side it describes.
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// If it failed, how; may be empty.
    pub error: Option<&'a str>,
    /// Moments that were left out.
    pub events_dropped: u32,
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug)]
pub struct EventRef<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Low-cardinality name.
    pub name: Cow<'static, str>,
    /// What else is known of it.
    pub attributes: &'a [(Key, Value)],
}

/// What can be exported as one span.
pub trait Describe {
    /// All but attributes and events.
    fn head(&self) -> Head<'_>;

    /// Tells its attributes.
    fn attributes(&self, out: &mut impl AttributeWriter);

    /// Tells its events, in the order of time.
    fn events(&self, each: impl FnMut(EventRef<'_>));

    /// Who made it.
    fn resource(&self) -> &Arc<Resource>;

    /// The span, for whoever has to keep it.
    fn to_span(&self) -> Span {
        let head = self.head();
        let mut attributes = Attributes::with_capacity(USUAL_ATTRIBUTES);
        self.attributes(&mut attributes);
        attributes.shrink_to_fit();
        let mut events = Vec::new();
        self.events(|EventRef { time_ns, name, attributes }| {
            events.push(Event { time_ns, name, attributes: attributes.to_vec() });
        });
        Span {
            trace_id: head.trace_id,
            span_id: head.span_id,
            parent_span_id: head.parent_span_id,
            parent_sampled: head.parent_sampled,
            trace_state: head.trace_state.to_owned(),
            name: head.name.clone(),
            kind: head.kind,
            start_ns: head.start_ns,
            end_ns: head.end_ns,
            status: head
                .error
                .map_or(Status::Unset, |message| Status::Error { message: message.to_owned().into() }),
            attributes,
            events,
            events_dropped: head.events_dropped,
            resource: Arc::clone(self.resource()),
        }
    }
}

/// Tells attributes that are kept.
pub fn write_all(attributes: &[(Key, Value)], out: &mut impl AttributeWriter) {
    for (key, value) in attributes {
        let texts: Vec<&str>;
        let value = match value {
            Value::Str(text) => ValueRef::Str(text),
            Value::Int(number) => ValueRef::Int(*number),
            Value::Float(number) => ValueRef::Float(*number),
            Value::Bool(truth) => ValueRef::Bool(*truth),
            Value::List(list) => {
                texts = list.iter().map(String::as_str).collect();
                ValueRef::List(&texts)
            }
        };
        match key {
            Cow::Borrowed(key) => out.write(key, value),
            Cow::Owned(key) => out.write_named(key, value),
        }
    }
}

impl Describe for Span {
    fn head(&self) -> Head<'_> {
        Head {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            parent_sampled: self.parent_sampled,
            trace_state: &self.trace_state,
            name: &self.name,
            kind: self.kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            error: match &self.status {
                Status::Unset => None,
                Status::Error { message } => Some(message),
            },
            events_dropped: self.events_dropped,
        }
    }

    fn attributes(&self, out: &mut impl AttributeWriter) {
        write_all(&self.attributes, out);
    }

    fn events(&self, mut each: impl FnMut(EventRef<'_>)) {
        for Event { time_ns, name, attributes } in &self.events {
            each(EventRef { time_ns: *time_ns, name: name.clone(), attributes });
        }
    }

    fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    fn to_span(&self) -> Span {
        self.clone()
    }
}

/// Keeps them.
impl AttributeWriter for Attributes {
    fn write(&mut self, key: &'static str, value: ValueRef<'_>) {
        self.push((key.into(), value.into()));
    }

    fn write_named(&mut self, key: &str, value: ValueRef<'_>) {
        self.push((key.to_owned().into(), value.into()));
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Str(text) | ValueRef::Plain(text) => Self::Str(SmolStr::new(text)),
            ValueRef::Int(number) => Self::Int(number),
            ValueRef::Float(number) => Self::Float(number),
            ValueRef::Bool(truth) => Self::Bool(truth),
            ValueRef::List(list) => Self::List(list.iter().map(|text| (*text).to_owned()).collect()),
        }
    }
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}

impl<'a> From<&'a SmolStr> for ValueRef<'a> {
    fn from(text: &'a SmolStr) -> Self {
        Self::Str(text)
    }
}

impl<'a> From<&'a String> for ValueRef<'a> {
    fn from(text: &'a String) -> Self {
        Self::Str(text)
    }
}

impl<'a> From<&'a Cow<'_, str>> for ValueRef<'a> {
    fn from(text: &'a Cow<'_, str>) -> Self {
        Self::Str(text)
    }
}

impl From<u16> for ValueRef<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for ValueRef<'_> {
    /// Numbers beyond `i64::MAX`, OTLP's largest, become that.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for ValueRef<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
