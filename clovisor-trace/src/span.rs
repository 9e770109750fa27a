//! What is exported: one span a session, in the shape of OpenTelemetry's data model, free of any exporter.
//!
//! It refuses to know wire formats: `Span` is plain data that each exporter of the agent writes in its own way.

use std::{borrow::Cow, fmt, sync::Arc};

use smol_str::SmolStr;

/// Identifier of a trace: 16 bytes, never all zero (W3C Trace Context section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// Identifier of a span: 8 bytes, never all zero (W3C Trace Context section 3.2.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

/// Which side of the request the span describes; the numbers are OTLP's `SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The pod answered the request.
    Server = 2,
    /// The pod sent the request.
    Client = 3,
}

/// Whether the session failed; OTLP's `Status`, whose `Ok` only applications may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing that was seen says that it failed.
    Unset,
    /// It failed, and this is how.
    Error {
        /// One short phrase for people; may be empty.
        message: Cow<'static, str>,
    },
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Str(SmolStr),
    /// Whole number.
    Int(i64),
    /// Fractional number.
    Float(f64),
    /// Truth.
    Bool(bool),
    /// List of texts, such as the values of a repeated header.
    List(Vec<String>),
}

/// Name of an attribute.
pub type Key = Cow<'static, str>;

/// Attributes in the order in which they were set; no key twice.
pub type Attributes = Vec<(Key, Value)>;

/// Who made the span: `service.name` first, then what else is known of the pod.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Resource {
    /// Attributes of the resource.
    pub attributes: Attributes,
}

impl Resource {
    /// The resource of a service of which only the name is known.
    #[must_use]
    pub fn service(name: impl Into<Cow<'static, str>>) -> Self {
        Self { attributes: vec![("service.name".into(), name.into().into())] }
    }

    /// The value of `service.name`, or OpenTelemetry's `unknown_service`.
    #[must_use]
    pub fn service_name(&self) -> &str {
        self.text("service.name").unwrap_or("unknown_service")
    }

    /// The value of an attribute that is a text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(name, value)| match value {
            Value::Str(text) if name == key => Some(text.as_str()),
            _ => None,
        })
    }
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was seen: nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Low-cardinality name.
    pub name: Cow<'static, str>,
    /// What else is known of it.
    pub attributes: Attributes,
}

/// One session, ready for export.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Trace that it belongs to: the request's own context, or derived from the session.
    pub trace_id: TraceId,
    /// Derived from the session: the same bytes on the wire give the same id.
    pub span_id: SpanId,
    /// The caller's span, where the request carried one.
    pub parent_span_id: Option<SpanId>,
    /// Whether the caller's trace is sampled, where the request said so.
    pub parent_sampled: Option<bool>,
    /// W3C `tracestate` of the request, unchanged; empty if it had none.
    pub trace_state: String,
    /// Low-cardinality name: `{method}`, never the path.
    pub name: Cow<'static, str>,
    /// Which side it describes.
    pub kind: Kind,
    /// When the first byte of the request was seen: nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// When the last byte that belongs to the session was seen: nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// Whether it failed.
    pub status: Status,
    /// OpenTelemetry's names, the original's, or both; see [`Semconv`](crate::Semconv).
    pub attributes: Attributes,
    /// Its moments, in the order of time.
    pub events: Vec<Event>,
    /// Moments that were left out.
    pub events_dropped: u32,
    /// Who made it; shared by the spans of one pod.
    pub resource: Arc<Resource>,
}

impl Span {
    /// Value of an attribute.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find_map(|(name, value)| (name == key).then_some(value))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// Writes the bytes in lower-case hex, in one piece; there are at most 16.
fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    f.write_str(str::from_utf8(&text[..bytes.len() * 2]).unwrap_or_default())
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Str(SmolStr::new_static(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<Cow<'static, str>> for Value {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<SmolStr> for Value {
    fn from(text: SmolStr) -> Self {
        Self::Str(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    /// Numbers beyond `i64::MAX`, OTLP's largest, become that.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}
