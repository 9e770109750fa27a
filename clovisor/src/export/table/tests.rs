//! Rows to the character, and hostile text that must not reach the terminal.

use clovisor_trace::{Attributes, Resource, SpanId, TraceId};

use super::{super::sink::Form as _, *};

const PLAIN: Style = Style { colour: false, width: 110 };

fn span(kind: Kind, attributes: Attributes) -> Span {
    Span {
        trace_id: TraceId([1; 16]),
        span_id: SpanId([1; 8]),
        parent_span_id: None,
        parent_sampled: None,
        trace_state: String::new(),
        name: "GET".into(),
        kind,
        start_ns: 1_700_000_000_123_999_999,
        end_ns: 1_700_000_000_136_400_000,
        status: Status::Unset,
        attributes,
        events: Vec::new(),
        events_dropped: 0,
        resource: Arc::new(Resource::service("cart")),
    }
}

fn ends() -> Attributes {
    vec![
        ("client.address".into(), "10.0.0.1".into()),
        ("client.port".into(), Value::Int(50000)),
        ("server.address".into(), "10.0.0.2".into()),
        ("server.port".into(), Value::Int(80)),
    ]
}

fn with(more: &[(&'static str, Value)]) -> Attributes {
    ends().into_iter().chain(more.iter().map(|(key, value)| ((*key).into(), value.clone()))).collect()
}

#[test]
fn rows_stand_under_the_header() {
    let table = [
        (
            span(
                Kind::Server,
                with(&[
                    ("http.request.method", "GET".into()),
                    ("url.path", "/cart".into()),
                    ("url.query", "id=1".into()),
                    ("http.response.status_code", Value::Int(200)),
                ]),
            ),
            "22:13:20.123  in   10.0.0.1:50000 -> 10.0.0.2:80                GET /cart?id=1            200   12.4 ms",
        ),
        (
            span(
                Kind::Client,
                with(&[
                    ("http.request.method", "POST".into()),
                    ("url.full", "http://shop/a/very/long/path/that/goes/on".into()),
                    ("clovisor.outcome", "timeout".into()),
                ]),
            ),
            "22:13:20.123  out  10.0.0.1:50000 -> 10.0.0.2:80                POST /a/very/long/path/tha… timeout   12.4 ms",
        ),
        (
            span(
                Kind::Server,
                with(&[("clovisor.protocol", "tcp".into()), ("clovisor.outcome", "complete".into())]),
            ),
            "22:13:20.123  in   10.0.0.1:50000 -> 10.0.0.2:80                tcp                         -   12.4 ms",
        ),
    ];
    let head = header(PLAIN);
    for (span, expected) in table {
        let row = row(&span, PLAIN);
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&row), squeeze(expected));
        assert_eq!(row.chars().count(), head.chars().count());
        assert_eq!(row.find("10.0.0.1"), head.find("CLIENT"));
    }
}

#[test]
fn the_names_of_the_original_are_read_too() {
    let attributes: Attributes = [
        ("srcip", "10.0.0.1"),
        ("srcport", "50000"),
        ("dstip", "10.0.0.2"),
        ("dstport", "80"),
        ("reqmethod", "PUT"),
        ("requrl", "/x"),
        ("respstatuscode", "503"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .into();
    let row = row(&span(Kind::Server, attributes), PLAIN);
    for part in ["10.0.0.1:50000 -> 10.0.0.2:80", "PUT /x", "503"] {
        assert!(row.contains(part), "{row}");
    }
}

#[test]
fn ipv6_ends_stand_in_brackets_and_missing_ones_are_marked() {
    let attributes =
        vec![("server.address".into(), "fd00::2".into()), ("server.port".into(), Value::Int(80))];
    assert!(row(&span(Kind::Server, attributes), PLAIN).contains("? -> [fd00::2]:80"));
}

#[test]
fn no_control_character_reaches_the_terminal() {
    let evil = "/\x1b]0;pwned\x07\x1b[2J\r\n\u{9b}31m\u{202e}";
    let names = ["url.path", "clovisor.outcome", "server.address", "client.address", "http.request.method"];
    let attributes = names.map(|name| (name.into(), evil.into())).into();
    let row = row(&span(Kind::Server, attributes), Style { colour: false, width: 300 });
    assert!(!row.chars().any(super::super::text::is_hostile), "{row:?}");
    assert!(row.contains("pwned"));
}

#[test]
fn colours_only_where_asked_for() {
    let ok = span(Kind::Server, with(&[("http.response.status_code", Value::Int(503))]));
    assert!(!row(&ok, PLAIN).contains('\x1b') && !header(PLAIN).contains('\x1b'));
    let colour = Style { colour: true, ..PLAIN };
    assert!(row(&ok, colour).contains("\x1b[31m    503\x1b[0m"));
    // Under the test runner, or with `NO_COLOR`, there are none.
    assert!(!Style::of_stdout(|name| (name == "NO_COLOR").then(|| "1".to_owned())).colour);
}

#[test]
fn durations_have_three_digits_and_a_unit() {
    let table = [
        (0, "0.00 µs"),
        (1_500, "1.50 µs"),
        (999_400, "999 µs"),
        (999_500, "1.00 ms"),
        (9_994_999, "9.99 ms"),
        (12_400_000, "12.4 ms"),
        (999_499_000, "999 ms"),
        (999_500_000, "1.00 s"),
        (12_345_000_000, "12.3 s"),
        (60_000_000_000, "1m00s"),
        (3_599_999_000_000, "59m59s"),
        (90_000_000_000_000, "25h00m"),
        (u64::MAX, "5124095h34m"),
    ];
    for (ns, expected) in table {
        assert_eq!(duration(ns), expected, "{ns}");
    }
}

#[tokio::test]
async fn the_header_is_written_once() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let shared = Shared::default();
    let mut table = Table::new(Box::new(shared.clone()), || PLAIN);
    for _ in 0..2 {
        let mut batch = Batch::new(Spans::default());
        [Kind::Server, Kind::Client].into_iter().for_each(|kind| batch.form_mut().add(&span(kind, ends())));
        table.export(&mut batch).await.unwrap();
    }
    let text = String::from_utf8(shared.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 5);
    assert_eq!(text.matches("CLIENT -> SERVER").count(), 1);
}
