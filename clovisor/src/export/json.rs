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

/// A text as a JSON string, quotes included.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        // Nearly all text goes out as it is, in one piece.
        let mut rest = self.0;
        while let Some(at) = rest.find(is_special) {
            let (plain, from) = rest.split_at(at);
            f.write_str(plain)?;
            let mut chars = from.chars();
            match chars.next() {
                Some('"') => f.write_str("\\\"")?,
                Some('\\') => f.write_str("\\\\")?,
                // All of them lie in the first plane, where one escape is one character.
                Some(hostile) => write!(f, "\\u{:04x}", u32::from(hostile))?,
                None => {}
            }
            rest = chars.as_str();
        }
        f.write_str(rest)?;
        f.write_char('"')
    }
}

fn is_special(c: char) -> bool {
    matches!(c, '"' | '\\') || text::is_hostile(c)
}

struct Object<'a>(&'a Attributes);

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (at, (key, value)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char(',')?;
            }
            write!(f, "{}:", Quoted(key))?;
            match value {
                Value::Str(text) => write!(f, "{}", Quoted(text))?,
                Value::Int(number) => write!(f, "{number}")?,
                // JSON has no NaN and no infinity; OTLP/JSON writes them as text.
                Value::Float(number) if !number.is_finite() => write!(f, "{}", Quoted(&number.to_string()))?,
                Value::Float(number) => write!(f, "{number:?}")?,
                Value::Bool(truth) => write!(f, "{truth}")?,
                Value::List(list) => {
                    for (at, text) in list.iter().enumerate() {
                        write!(f, "{}{}", if at == 0 { '[' } else { ',' }, Quoted(text))?;
                    }
                    f.write_str(if list.is_empty() { "[]" } else { "]" })?;
                }
            }
        }
        f.write_char('}')
    }
}

struct Line<'a>(&'a Span);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.0;
        write!(f, r#"{{"traceId":"{}","spanId":"{}","parentSpanId":""#, span.trace_id, span.span_id)?;
        if let Some(parent) = span.parent_span_id {
            write!(f, "{parent}")?;
        }
        write!(f, r#"","name":{},"kind":{}"#, Quoted(&span.name), span.kind as i32)?;
        write!(f, r#","startTimeUnixNano":"{}","endTimeUnixNano":"{}""#, span.start_ns, span.end_ns)?;
        match &span.status {
            Status::Unset => f.write_str(r#","status":{}"#)?,
            Status::Error { message } if message.is_empty() => f.write_str(r#","status":{"code":2}"#)?,
            Status::Error { message } => {
                write!(f, r#","status":{{"code":2,"message":{}}}"#, Quoted(message))?;
            }
        }
        if !span.trace_state.is_empty() {
            write!(f, r#","traceState":{}"#, Quoted(&span.trace_state))?;
        }
        write!(f, r#","attributes":{}"#, Object(&span.attributes))?;
        for (at, event) in span.events.iter().enumerate() {
            f.write_str(if at == 0 { r#","events":["# } else { "," })?;
            write!(f, r#"{{"timeUnixNano":"{}","name":{}"#, event.time_ns, Quoted(&event.name))?;
            if !event.attributes.is_empty() {
                write!(f, r#","attributes":{}"#, Object(&event.attributes))?;
            }
            f.write_char('}')?;
        }
        if !span.events.is_empty() {
            f.write_char(']')?;
        }
        if span.events_dropped > 0 {
            write!(f, r#","droppedEventsCount":{}"#, span.events_dropped)?;
        }
        write!(f, r#","resource":{}}}"#, Object(&span.resource.attributes))
    }
}

/// The span as one line of JSON, without the line's end.
#[must_use]
pub fn to_line(span: &Span) -> String {
    Line(span).to_string()
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
        let mut lines = String::new();
        for span in batch.spans() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(lines, "{}", Line(span));
        }
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
