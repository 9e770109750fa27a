//! One JSON line a span, for programs: what OTLP's JSON says, with attributes as plain objects.
//!
//! `traceId spanId parentSpanId name kind startTimeUnixNano endTimeUnixNano status` are as in OTLP/JSON: identifiers
//! in lower-case hex, kind as OTLP's number, times as decimal strings. `attributes` and `resource` are objects whose
//! whole numbers are JSON numbers. `traceState` is there if the request had one, `events` if there are any. The order of fields and attributes
//! is fixed, so the same capture gives the same bytes. It refuses to pass on anything that ends a line or commands a
//! terminal: such characters arrive as `\u` escapes.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use clovisor_trace::{Attributes, Span, Status, Value};

use super::{
    sink::{Batch, ExportError, Sink},
    text,
};

/// What a line of an ordinary span takes, about.
const USUAL_LINE: usize = 1024;

/// Writes a line; writing to a `String` cannot fail.
struct Line<'a>(&'a mut String);

impl Line<'_> {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.raw(itoa::Buffer::new().format(number))
    }

    /// A text as a JSON string, quotes included.
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push('"');
        // Nearly all text goes out as it is, in one piece.
        if text.bytes().all(is_plain) {
            self.0.push_str(text);
        } else {
            text.chars().for_each(|c| self.escaped(c));
        }
        self.0.push('"');
        self
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.0.push_str("\\\""),
            '\\' => self.0.push_str("\\\\"),
            // All of them lie in the first plane, where one escape is one character.
            c if text::is_hostile(c) => _ = write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.push(c),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Str(text) => _ = self.text(text),
            Value::Int(number) => _ = self.number(*number),
            // JSON has no NaN and no infinity; OTLP/JSON writes them as text.
            Value::Float(number) if !number.is_finite() => _ = self.text(&number.to_string()),
            Value::Float(number) => _ = write!(self.0, "{number:?}"),
            Value::Bool(truth) => _ = self.raw(if *truth { "true" } else { "false" }),
            Value::List(list) => {
                for (at, text) in list.iter().enumerate() {
                    self.raw(if at == 0 { "[" } else { "," }).text(text);
                }
                self.raw(if list.is_empty() { "[]" } else { "]" });
            }
        }
    }

    fn object(&mut self, attributes: &Attributes) -> &mut Self {
        self.raw("{");
        for (at, (key, value)) in attributes.iter().enumerate() {
            self.raw(if at == 0 { "" } else { "," }).text(key).raw(":").value(value);
        }
        self.raw("}")
    }

    fn status(&mut self, status: &Status) {
        match status {
            Status::Unset => _ = self.raw("{}"),
            Status::Error { message } if message.is_empty() => _ = self.raw(r#"{"code":2}"#),
            Status::Error { message } => _ = self.raw(r#"{"code":2,"message":"#).text(message).raw("}"),
        }
    }

    fn events(&mut self, span: &Span) {
        for (at, event) in span.events.iter().enumerate() {
            self.raw(if at == 0 { r#","events":["# } else { "," });
            self.raw(r#"{"timeUnixNano":""#).number(event.time_ns).raw(r#"","name":"#).text(&event.name);
            if !event.attributes.is_empty() {
                self.raw(r#","attributes":"#).object(&event.attributes);
            }
            self.raw("}");
        }
        if !span.events.is_empty() {
            self.raw("]");
        }
        if span.events_dropped > 0 {
            self.raw(r#","droppedEventsCount":"#).number(span.events_dropped);
        }
    }

    fn span(&mut self, span: &Span) {
        _ = write!(self.0, r#"{{"traceId":"{}","spanId":"{}","parentSpanId":""#, span.trace_id, span.span_id);
        if let Some(parent) = span.parent_span_id {
            _ = write!(self.0, "{parent}");
        }
        self.raw(r#"","name":"#).text(&span.name).raw(r#","kind":"#).number(span.kind as i32);
        self.raw(r#","startTimeUnixNano":""#).number(span.start_ns);
        self.raw(r#"","endTimeUnixNano":""#).number(span.end_ns);
        self.raw(r#"","status":"#).status(&span.status);
        if !span.trace_state.is_empty() {
            self.raw(r#","traceState":"#).text(&span.trace_state);
        }
        self.raw(r#","attributes":"#).object(&span.attributes);
        self.events(span);
        self.raw(r#","resource":"#).object(&span.resource.attributes).raw("}");
    }
}

/// Whether a byte is a printable character of ASCII that JSON shows as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// The span as one line of JSON, without the line's end.
#[must_use]
pub fn to_line(span: &Span) -> String {
    let mut line = String::with_capacity(USUAL_LINE);
    Line(&mut line).span(span);
    line
}

/// Appends a line a span.
pub fn lines(spans: &[Span], out: &mut String) {
    for span in spans {
        Line(out).span(span);
        out.push('\n');
    }
}

/// Standard output, or whatever a test reads, shared with the thread that writes.
pub(super) type Output = Arc<Mutex<Box<dyn Write + Send>>>;

/// A sink that writes a JSON line a span.
pub struct JsonLines {
    output: Output,
}

impl JsonLines {
    /// A sink that writes to `output`, and flushes after each batch.
    #[must_use]
    pub fn new(output: Box<dyn Write + Send>) -> Self {
        Self { output: Arc::new(Mutex::new(output)) }
    }
}

impl Sink for JsonLines {
    fn describe(&self) -> String {
        "JSON lines to standard output".to_owned()
    }

    async fn export(&mut self, batch: &mut Batch) -> Result<(), ExportError> {
        let mut lines = String::with_capacity(batch.spans().len() * USUAL_LINE);
        self::lines(batch.spans(), &mut lines);
        write(&self.output, lines).await
    }
}

/// Writes and flushes on a thread of its own: a reader that has stopped, such as a pager, must not stop the agent.
pub(super) async fn write(output: &Output, text: String) -> Result<(), ExportError> {
    let output = Arc::clone(output);
    let written = tokio::task::spawn_blocking(move || {
        // A writer that panicked has written what it has; the next line is still wanted.
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(text.as_bytes()).and_then(|()| output.flush())
    });
    let result = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    // A full disk or a closed pipe stays so, and half a line may be out: no second try.
    result
        .map_err(|error| ExportError::Closed { reason: format!("cannot write to standard output: {error}") })
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use clovisor_trace::{Event, Kind, Resource, SpanId, TraceId};
    use serde_json::{Value as Json, json};

    use super::*;

    fn span() -> Span {
        Span {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([0x01; 8]),
            parent_span_id: None,
            parent_sampled: None,
            trace_state: String::new(),
            name: "GET".into(),
            kind: Kind::Server,
            start_ns: 1_700_000_000_000_000_001,
            end_ns: u64::MAX,
            status: Status::Unset,
            attributes: vec![
                ("http.response.status_code".into(), Value::Int(200)),
                ("client.address".into(), "10.0.0.1".into()),
            ],
            events: Vec::new(),
            events_dropped: 0,
            resource: Arc::new(Resource::service("cart")),
        }
    }

    #[test]
    fn a_line_is_as_documented_to_the_byte() {
        assert_eq!(
            to_line(&span()),
            "{\"traceId\":\"abababababababababababababababab\",\"spanId\":\"0101010101010101\",\"parentSpanId\":\"\",\
             \"name\":\"GET\",\"kind\":2,\"startTimeUnixNano\":\"1700000000000000001\",\
             \"endTimeUnixNano\":\"18446744073709551615\",\"status\":{},\
             \"attributes\":{\"http.response.status_code\":200,\"client.address\":\"10.0.0.1\"},\
             \"resource\":{\"service.name\":\"cart\"}}"
        );
    }

    #[test]
    fn every_kind_of_value_is_json() {
        let mut span = span();
        span.parent_span_id = Some(SpanId([0xff; 8]));
        span.kind = Kind::Client;
        span.trace_state = "a=b".to_owned();
        span.status = Status::Error { message: "connection \"reset\"".into() };
        span.attributes = vec![
            ("f".into(), Value::Float(1.0)),
            ("nan".into(), Value::Float(f64::NAN)),
            ("b".into(), Value::Bool(false)),
            ("empty".into(), Value::List(Vec::new())),
            ("list".into(), Value::List(vec!["x".to_owned(), "y".to_owned()])),
            ("min".into(), Value::Int(i64::MIN)),
        ];
        let line: Json = serde_json::from_str(&to_line(&span)).unwrap();
        assert_eq!(line["parentSpanId"], "ffffffffffffffff");
        assert_eq!((&line["kind"], &line["traceState"]), (&json!(3), &json!("a=b")));
        assert_eq!(line["status"], json!({"code": 2, "message": "connection \"reset\""}));
        let expected =
            json!({"f": 1.0, "nan": "NaN", "b": false, "empty": [], "list": ["x", "y"], "min": i64::MIN});
        assert_eq!(line["attributes"], expected);
    }

    #[test]
    fn events_are_as_in_otlp() {
        let mut span = span();
        let event = |time_ns, attributes| Event { time_ns, name: "e".into(), attributes };
        span.events = vec![event(7, Vec::new()), event(u64::MAX, vec![("k".into(), "v".into())])];
        span.events_dropped = 2;
        let line: Json = serde_json::from_str(&to_line(&span)).unwrap();
        let expected = json!([{"timeUnixNano": "7", "name": "e"},
            {"timeUnixNano": u64::MAX.to_string(), "name": "e", "attributes": {"k": "v"}}]);
        assert_eq!((&line["events"], &line["droppedEventsCount"]), (&expected, &json!(2)));
    }

    #[test]
    fn hostile_text_comes_back_whole_and_never_raw() {
        let hostile: String =
            (0..0x2100_u32).chain(0xfe00..0xff00).chain([0x1f600]).filter_map(char::from_u32).collect();
        let mut span = span();
        span.attributes = vec![(hostile.clone().into(), Value::from(hostile.clone()))];
        span.name = hostile.clone().into();
        let line = to_line(&span);
        assert!(!line.chars().any(text::is_hostile));
        let json: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(json["name"], hostile);
        assert_eq!(json["attributes"][&hostile], hostile);
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_the_sink() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut batch = Batch::new(vec![span()]);
        let error = JsonLines::new(Box::new(Closed)).export(&mut batch).await.unwrap_err();
        assert!(matches!(error, ExportError::Closed { .. }), "{error:?}");
        assert_eq!(batch.spans().len(), 1);
    }
}
