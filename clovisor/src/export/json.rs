//! One JSON line a span, for programs: what OTLP's JSON says, with attributes as plain objects.
//!
//! `traceId spanId parentSpanId name kind startTimeUnixNano endTimeUnixNano status` are as in OTLP/JSON: identifiers
//! in lower-case hex, kind as OTLP's number, times as decimal strings. `attributes` and `resource` are objects whose
//! whole numbers are JSON numbers. `traceState` is there if the request had one, `events` if there are any. The order of fields and attributes
//! is fixed, so the same capture gives the same bytes. It refuses to pass on anything that ends a line or commands a
//! terminal: such characters arrive as `\u` escapes.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IoSlice, Write},
    mem::take,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use clovisor_trace::{AttributeWriter, Describe, Resource, ValueRef, write_all};

use super::{
    sink::{Batch, ExportError, Form, PIECE, PIECE_ROOM, Sink},
    text,
};

/// Bytes that are written at once, and lost together if the output fails: 512 ordinary lines take 700 KB.
const MOST_BYTES: usize = 1 << 20;

/// Lines that wait to be written.
///
/// What is often the same is not made twice: a resource is written once and copied from there.
#[derive(Debug, Default)]
pub struct Lines {
    out: Vec<u8>,
    /// Those that come behind.
    more: Vec<Vec<u8>>,
    /// Bytes of these.
    more_bytes: usize,
    /// Where the resources of these lines stand for the first time.
    resources: Vec<(Arc<Resource>, Range<usize>)>,
    spans: usize,
}

impl Form for Lines {
    const FULL: usize = PIECE;

    fn another(&self) -> Self {
        Self { out: Vec::with_capacity(PIECE_ROOM), ..Self::default() }
    }

    fn add(&mut self, span: &impl Describe) {
        self.span(span);
        self.spans += 1;
    }

    fn gather(&mut self, other: Self) -> Option<Self> {
        if self.bytes() + other.bytes() > MOST_BYTES {
            return Some(other);
        }
        self.spans += other.spans;
        self.more_bytes += other.bytes();
        self.more.push(other.out);
        self.more.extend(other.more);
        None
    }

    fn spans(&self) -> usize {
        self.spans
    }

    fn bytes(&self) -> usize {
        self.out.len() + self.more_bytes
    }
}

impl Lines {
    // In line, so that what is known of a text when compiling is copied without a call.
    #[inline(always)]
    fn raw(&mut self, text: &str) -> &mut Self {
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.raw(itoa::Buffer::new().format(number))
    }

    /// Bytes in lower-case hex.
    fn hex(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.out.extend_from_slice(&HEX[usize::from(*byte)]);
        }
        self
    }

    /// A text as a JSON string, quotes included.
    #[inline]
    fn text(&mut self, text: &str) -> &mut Self {
        self.out.reserve(text.len() + 2);
        self.raw("\"").inside(text).raw("\"")
    }

    /// What is between the quotes.
    #[inline]
    fn inside(&mut self, text: &str) -> &mut Self {
        // Nearly all text goes out as it is, in one piece.
        if is_plain(text) {
            self.raw(text);
        } else {
            self.escape(text);
        }
        self
    }

    /// What is between the quotes of a name: those of our own are plain.
    #[expect(clippy::ptr_arg, reason = "whether it is borrowed tells whose it is")]
    fn name(&mut self, name: &Cow<'static, str>) -> &mut Self {
        match name {
            Cow::Borrowed(name) => {
                debug_assert!(is_plain(name), "{name}");
                self.raw(name)
            }
            Cow::Owned(name) => self.inside(name),
        }
    }

    #[cold]
    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '"' => _ = self.raw("\\\""),
                '\\' => _ = self.raw("\\\\"),
                // All of them lie in the first plane, where one escape is one character.
                c if text::is_hostile(c) => _ = self.raw(&format!("\\u{:04x}", u32::from(c))),
                c => _ = self.raw(c.encode_utf8(&mut [0; 4])),
            }
        }
    }

    #[inline(always)]
    fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Str(text) => _ = self.text(text),
            ValueRef::Plain(text) => {
                debug_assert!(is_plain(text), "{text}");
                self.raw("\"").raw(text).raw("\"");
            }
            ValueRef::Int(number) => _ = self.number(number),
            rare => self.rare(rare),
        }
    }

    #[cold]
    fn rare(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Str(_) | ValueRef::Plain(_) | ValueRef::Int(_) => self.value(value),
            // JSON has no NaN and no infinity; OTLP/JSON writes them as text.
            ValueRef::Float(number) if !number.is_finite() => _ = self.text(&number.to_string()),
            ValueRef::Float(number) => _ = self.raw(&format!("{number:?}")),
            ValueRef::Bool(truth) => _ = self.raw(if truth { "true" } else { "false" }),
            ValueRef::List(list) => {
                for (at, text) in list.iter().enumerate() {
                    self.raw(if at == 0 { "[" } else { "," }).text(text);
                }
                self.raw(if list.is_empty() { "[]" } else { "]" });
            }
        }
    }

    /// An object of the attributes that `tell` tells.
    fn object(&mut self, tell: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let mut object = Object { lines: self, before: *b"{\"" };
        tell(&mut object);
        let end = if object.before == *b"{\"" { "{}" } else { "}" };
        self.raw(end)
    }

    fn status(&mut self, error: Option<&str>) {
        match error {
            None => _ = self.raw("{}"),
            Some("") => _ = self.raw(r#"{"code":2}"#),
            Some(message) => _ = self.raw(r#"{"code":2,"message":"#).text(message).raw("}"),
        }
    }

    fn events(&mut self, span: &impl Describe) {
        let mut count = 0;
        span.events(|event| {
            self.raw(if count == 0 { r#","events":["# } else { "," });
            self.raw(r#"{"timeUnixNano":""#)
                .number(event.time_ns)
                .raw(r#"","name":""#)
                .name(&event.name)
                .raw("\"");
            if !event.attributes.is_empty() {
                self.raw(r#","attributes":"#).object(|out| write_all(event.attributes, out));
            }
            self.raw("}");
            count += 1;
        });
        if count > 0 {
            self.raw("]");
        }
        let dropped = span.head().events_dropped;
        if dropped > 0 {
            self.raw(r#","droppedEventsCount":"#).number(dropped);
        }
    }

    fn resource(&mut self, resource: &Arc<Resource>) {
        if let Some((_, place)) = self.resources.iter().rfind(|(known, _)| Arc::ptr_eq(known, resource)) {
            self.out.extend_from_within(place.clone());
            return;
        }
        let start = self.out.len();
        self.object(|out| write_all(&resource.attributes, out));
        self.resources.push((Arc::clone(resource), start..self.out.len()));
    }

    fn span(&mut self, span: &impl Describe) {
        let head = span.head();
        self.raw(r#"{"traceId":""#).hex(&head.trace_id.0).raw(r#"","spanId":""#).hex(&head.span_id.0);
        self.raw(r#"","parentSpanId":""#);
        if let Some(parent) = head.parent_span_id {
            self.hex(&parent.0);
        }
        self.raw(r#"","name":""#).name(head.name).raw(r#"","kind":"#).number(head.kind as i32);
        self.raw(r#","startTimeUnixNano":""#).number(head.start_ns);
        self.raw(r#"","endTimeUnixNano":""#).number(head.end_ns);
        self.raw(r#"","status":"#).status(head.error);
        if !head.trace_state.is_empty() {
            self.raw(r#","traceState":"#).text(head.trace_state);
        }
        self.raw(r#","attributes":"#).object(|out| span.attributes(out));
        self.events(span);
        self.raw(r#","resource":"#).resource(span.resource());
        self.raw("}\n");
    }
}

/// Attributes as members of an object.
struct Object<'a> {
    lines: &'a mut Lines,
    /// What comes before the next name.
    before: [u8; 2],
}

impl AttributeWriter for Object<'_> {
    #[inline(always)]
    fn write(&mut self, key: &'static str, value: ValueRef<'_>) {
        debug_assert!(is_plain(key), "{key}");
        self.lines.out.extend_from_slice(&self.before);
        self.lines.raw(key).raw("\":").value(value);
        self.before = *b",\"";
    }

    fn write_named(&mut self, key: &str, value: ValueRef<'_>) {
        self.lines.out.extend_from_slice(&self.before);
        self.lines.inside(key).raw("\":").value(value);
        self.before = *b",\"";
    }
}

/// Two digits for each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < hex.len() {
        hex[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    hex
};

/// Whether JSON shows a text as it is: printable characters of ASCII, but for two. Eight bytes are looked at together; the last
/// eight may have been looked at already.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (chunks, rest) = bytes.as_chunks::<8>();
    let all = chunks.iter().all(|chunk| are_plain(*chunk));
    match bytes.last_chunk::<8>() {
        Some(last) => all && (rest.is_empty() || are_plain(*last)),
        None => are_plain(filled(rest)),
    }
}

/// Less than eight bytes as eight: plain ones fill it up.
fn filled(rest: &[u8]) -> [u8; 8] {
    let mut all = [b' '; 8];
    for (to, from) in all.iter_mut().zip(rest) {
        *to = *from;
    }
    all
}

/// The same of eight bytes at once, as of a number: a byte that is zero is one whose highest bit is borrowed (Warren, "Hacker's
/// Delight", section 6-1). Borrows run upwards, past a zero alone, so whether there is one is exact.
const fn are_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    const fn has_zero(bytes: u64) -> bool {
        bytes.wrapping_sub(ONES) & !bytes & HIGHEST != 0
    }
    let bytes = u64::from_le_bytes(bytes);
    // Below a space, no bit is left but the lowest five; DEL is the last of ASCII.
    let is_strange = bytes & HIGHEST != 0 || has_zero(bytes & (ONES * 0xe0));
    !(is_strange
        || has_zero(bytes ^ (ONES * 0x7f))
        || has_zero(bytes ^ (ONES * b'"' as u64))
        || has_zero(bytes ^ (ONES * b'\\' as u64)))
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
    type Form = Lines;

    fn describe(&self) -> String {
        "JSON lines to standard output".to_owned()
    }

    async fn export(&mut self, batch: &mut Batch<Lines>) -> Result<(), ExportError> {
        // They stay in the batch as a number alone: what was cut off while it was written is not tried again.
        let form = batch.form_mut();
        let mut lines = take(&mut form.more);
        lines.insert(0, take(&mut form.out));
        if lines[0].is_empty() && !batch.is_empty() {
            return Err(ExportError::Closed {
                reason: "lines were cut off while they were written".to_owned(),
            });
        }
        write(&self.output, lines).await
    }
}

/// Writes and flushes on a thread of its own: a reader that has stopped, such as a pager, must not stop the agent.
pub(super) async fn write(output: &Output, text: Vec<Vec<u8>>) -> Result<(), ExportError> {
    let output = Arc::clone(output);
    let written = tokio::task::spawn_blocking(move || {
        // A writer that panicked has written what it has; the next line is still wanted.
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        write_pieces(&mut **output, &text).and_then(|()| output.flush())
    });
    let result = written.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    // A full disk or a closed pipe stays so, and half a line may be out: no second try.
    result
        .map_err(|error| ExportError::Closed { reason: format!("cannot write to standard output: {error}") })
}

/// In one call where the output takes all: piece by piece a file costs 1.6 times as much (docs/performance.md, "Memory").
fn write_pieces(output: &mut dyn Write, text: &[Vec<u8>]) -> io::Result<()> {
    let mut slices: Vec<_> = text.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match output.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use clovisor_trace::{Event, Kind, Span, SpanId, Status, TraceId, Value};
    use serde_json::{Value as Json, json};

    use super::*;

    /// The line of a span, without its end.
    fn to_line(span: &Span) -> String {
        let mut lines = Lines::default();
        lines.add(span);
        assert_eq!((lines.spans(), lines.out.pop()), (1, Some(b'\n')));
        String::from_utf8(lines.out).unwrap()
    }

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

    #[test]
    fn every_byte_is_looked_at_wherever_it_is() {
        for len in 0..40 {
            for at in 0..len {
                for byte in 0..0x80 {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    let plain = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(str::from_utf8(&text).unwrap()), plain, "{byte} at {at} of {len}");
                }
            }
        }
        assert!(!is_plain("grün") && !is_plain("ein langer Text mit ß darin") && is_plain(""));
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
        let mut batch = Batch::new(Lines::default());
        batch.form_mut().add(&span());
        let error = JsonLines::new(Box::new(Closed)).export(&mut batch).await.unwrap_err();
        assert!(matches!(error, ExportError::Closed { .. }), "{error:?}");
        assert_eq!(batch.left(), 1);
    }

    #[tokio::test]
    async fn an_output_that_takes_little_at_a_time_gets_all_pieces_in_order() {
        #[derive(Default)]
        struct Slow {
            got: Arc<Mutex<Vec<u8>>>,
            calls: usize,
        }
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.calls += 1;
                if self.calls.is_multiple_of(3) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let taken = bytes.len().min(7);
                self.got.lock().unwrap().extend_from_slice(&bytes[..taken]);
                Ok(taken)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let spans = ["first", "second", "third"].map(|name| Span { name: name.into(), ..span() });
        let mut pieces = spans.iter().map(|span| {
            let mut lines = Lines::default();
            lines.add(span);
            lines
        });
        let mut all = pieces.next().unwrap();
        pieces.for_each(|piece| assert!(all.gather(piece).is_none()));
        assert_eq!(all.spans(), 3);
        let (slow, mut batch) = (Slow::default(), Batch::new(all));
        let got = Arc::clone(&slow.got);
        JsonLines::new(Box::new(slow)).export(&mut batch).await.unwrap();
        let lines: String = spans.iter().map(|span| to_line(span) + "\n").collect();
        assert_eq!(String::from_utf8(got.lock().unwrap().clone()).unwrap(), lines);
    }
}
