//! Every way of export against a real Jaeger, read back through its query API.
//!
//! Needs Jaeger 1.62's `all-in-one`: the file that `CLOVISOR_JAEGER` names, or `jaeger-1.62.0/all-in-one` in the
//! cache folder (`CLOVISOR_CACHE`, else `XDG_CACHE_HOME/clovisor`, else `~/.cache/clovisor`). Without it the tests are
//! reported as skipped, and fail where `CI` is set. Loopback only, on free ports.

#![expect(clippy::unwrap_used, reason = "a test's own helpers fail the test")]

#[path = "../redis/certificates.rs"]
mod certificates;
mod tls;

use std::{
    env,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use clovisor::export::{Address, Environment, Exporter, QueueConfig};
use clovisor_trace::{Attributes, Event, Kind, Resource, Span, SpanId, Status, TraceId, Value};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    time::sleep,
};

/// Ports are chosen, given back, and taken by Jaeger: one at a time, lest another test takes them in between.
static STARTING: Mutex<()> = Mutex::const_new(());

fn binary() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || {
        set("CLOVISOR_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("clovisor")))
            .or_else(|| set("HOME").map(|path| path.join(".cache/clovisor")))
    };
    set("CLOVISOR_JAEGER")
        .or_else(|| cache().map(|path| path.join("jaeger-1.62.0/all-in-one")))
        .filter(|path| path.is_file())
}

struct Jaeger {
    process: Child,
    otlp_grpc: u16,
    otlp_http: u16,
    thrift_http: u16,
    thrift_udp: u16,
    query: u16,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // Ours, and it may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Jaeger {
    /// A Jaeger of this test's own, with flags on top; none if there is no binary and that is allowed.
    async fn start(test: &str, more: &[String]) -> Option<Self> {
        let Some(binary) = binary() else {
            let reason = "no Jaeger: name an all-in-one 1.62 in CLOVISOR_JAEGER";
            assert!(env::var_os("CI").is_none(), "{test}: {reason}");
            println!("skipped: {test}: {reason}");
            return None;
        };
        let _starting = STARTING.lock().await;
        let held: Vec<_> = (0..11).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(held);
        let flags = [
            "collector.otlp.grpc.host-port",
            "collector.otlp.http.host-port",
            "collector.http-server.host-port",
            "processor.jaeger-compact.server-host-port",
            "query.http-server.host-port",
            "query.grpc-server.host-port",
            "collector.grpc-server.host-port",
            "processor.jaeger-binary.server-host-port",
            "processor.zipkin-compact.server-host-port",
            "http-server.host-port",
            "admin.http.host-port",
        ];
        let mut command = Command::new(binary);
        for (flag, port) in flags.iter().zip(&ports) {
            command.arg(format!("--{flag}=127.0.0.1:{port}"));
        }
        command
            .args(more)
            .arg(format!("--reporter.grpc.host-port=127.0.0.1:{}", ports[6]))
            .env("SPAN_STORAGE_TYPE", "memory");
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let [otlp_grpc, otlp_http, thrift_http, thrift_udp, query, ..] = ports[..] else { unreachable!() };
        let mut jaeger = Self { process, otlp_grpc, otlp_http, thrift_http, thrift_udp, query };
        let begun = Instant::now();
        // The admin server says 200 when all the others are up.
        while get(ports[10], "/").await.is_none() {
            assert!(jaeger.process.try_wait().unwrap().is_none(), "{test}: Jaeger has ended at its start");
            assert!(begun.elapsed() < Duration::from_secs(30), "{test}: Jaeger is not up after 30 s");
            sleep(Duration::from_millis(50)).await;
        }
        Some(jaeger)
    }

    /// The trace, once it has `count` spans.
    async fn trace(&self, id: TraceId, count: usize) -> Json {
        let begun = Instant::now();
        loop {
            let body = get(self.query, &format!("/api/traces/{id}")).await.unwrap_or_default();
            let trace = serde_json::from_str::<Json>(&body)
                .map(|mut json| json["data"][0].take())
                .unwrap_or_default();
            let has = trace["spans"].as_array().map_or(0, Vec::len);
            if has == count {
                return trace;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "trace {id} has {has} of {count} spans");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The body of a 200 answer.
async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Two services that ask each other, with every kind of attribute; then enough spans for several packets.
fn known(trace: u8) -> Vec<Span> {
    let resource = |service: &'static str, pod: &'static str| {
        let mut resource = Resource::service(service);
        resource.attributes.push(("k8s.pod.name".into(), pod.into()));
        Arc::new(resource)
    };
    let start_ns = 1_700_000_000_123_456_789;
    let client = Span {
        trace_id: TraceId([0xf0 | trace; 16]),
        span_id: SpanId([0xe1; 8]),
        parent_span_id: Some(SpanId([0xd2; 8])),
        parent_sampled: None,
        trace_state: "vendor=x,other=y".to_owned(),
        name: "POST".into(),
        kind: Kind::Client,
        start_ns,
        end_ns: start_ns + 12_345_678,
        status: Status::Error { message: "connection_reset".into() },
        attributes: vec![
            ("http.request.method".into(), "POST".into()),
            ("http.response.status_code".into(), Value::Int(503)),
            ("url.full".into(), Value::from("http://shop/ä?q=\u{1f600}\"\\<&>".to_owned())),
            ("clovisor.ratio".into(), Value::Float(0.25)),
            ("clovisor.first".into(), Value::Bool(true)),
            ("clovisor.least".into(), Value::Int(i64::MIN)),
            ("http.request.header.x".into(), Value::List(vec!["a".to_owned(), "b\"c".to_owned()])),
        ],
        events: vec![
            Event { time_ns: start_ns + 1_000, name: "clovisor.request.end".into(), attributes: Vec::new() },
            Event {
                time_ns: start_ns + 2_000_000,
                name: "clovisor.retransmission".into(),
                attributes: vec![("clovisor.transfer".into(), "response".into())],
            },
        ],
        events_dropped: 0,
        resource: resource("front", "front-1"),
    };
    let server = Span {
        span_id: SpanId([0x03; 8]),
        parent_span_id: Some(client.span_id),
        trace_state: String::new(),
        name: "GET".into(),
        kind: Kind::Server,
        start_ns: start_ns + 1_000_000,
        end_ns: start_ns + 1_000_000,
        status: Status::Unset,
        attributes: vec![("http.response.status_code".into(), Value::Int(200))],
        events: Vec::new(),
        events_dropped: 0,
        resource: resource("shop", "shop-1"),
        ..client.clone()
    };
    let root = Span { span_id: SpanId([0x04; 8]), parent_span_id: None, ..server.clone() };
    // The same service in another pod, which is another resource.
    let many = (0..200_u64).map(|id| Span {
        span_id: SpanId((0x1000 + id).to_be_bytes()),
        events: Vec::new(),
        attributes: vec![("url.path".into(), Value::from(format!("/{id}/{}", "x".repeat(1000))))],
        resource: resource("shop", "shop-2"),
        ..server.clone()
    });
    [client.clone(), server.clone(), root].into_iter().chain(many).collect()
}

fn tag<'a>(tags: &'a Json, key: &str) -> Option<&'a Json> {
    let mut found = tags.as_array()?.iter().filter(|tag| tag["key"] == key);
    let first = found.next().map(|tag| &tag["value"]);
    assert!(found.next().is_none(), "the tag {key} is there twice");
    first
}

fn check_tags(tags: &Json, attributes: &Attributes, what: &str) {
    for (key, value) in attributes {
        let expected = match value {
            Value::Str(text) => Json::from(&**text),
            // Beyond what JavaScript holds, Jaeger's API writes text.
            Value::Int(number) if number.unsigned_abs() > 1 << 53 => Json::from(number.to_string()),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(truth) => Json::from(*truth),
            // Jaeger's model has no lists; it shows them as JSON text.
            Value::List(list) => Json::from(serde_json::to_string(list).unwrap()),
        };
        assert_eq!(tag(tags, key), Some(&expected), "{what}: {key}");
    }
}

fn check_span(trace: &Json, span: &Span, way: &str) {
    let id = span.span_id.to_string();
    let found = trace["spans"].as_array().unwrap().iter().find(|found| found["spanID"] == *id);
    let found = found.unwrap_or_else(|| panic!("{way}: span {id} is missing"));
    assert_eq!(found["traceID"], span.trace_id.to_string());
    assert_eq!(found["operationName"], *span.name, "{way}");
    let start_us = span.start_ns / 1000;
    assert_eq!(found["startTime"], start_us, "{way}");
    // Jaeger's own translation from OTLP cuts the difference of the times, ours over Thrift cuts both times.
    let duration = found["duration"].as_u64().unwrap();
    assert!((span.end_ns / 1000 - start_us).abs_diff(duration) <= 1, "{way}: {duration}");
    let references = found["references"].as_array().unwrap();
    match span.parent_span_id {
        None => assert!(references.is_empty(), "{way}: {references:?}"),
        Some(parent) => {
            assert_eq!(references.len(), 1);
            assert_eq!(references[0]["refType"], "CHILD_OF");
            assert_eq!(references[0]["traceID"], span.trace_id.to_string());
            assert_eq!(references[0]["spanID"], parent.to_string(), "{way}");
        }
    }
    let tags = &found["tags"];
    check_tags(tags, &span.attributes, way);
    let logs = found["logs"].as_array().unwrap();
    assert_eq!(logs.len(), span.events.len(), "{way}: {logs:?}");
    for (log, event) in logs.iter().zip(&span.events) {
        assert_eq!(log["timestamp"], event.time_ns / 1000, "{way}");
        assert_eq!(tag(&log["fields"], "event"), Some(&(*event.name).into()), "{way}: {log}");
        let fields = &log["fields"];
        assert!(
            event.attributes.iter().all(|(key, _)| tag(fields, key) == Some(&"response".into())),
            "{way}"
        );
    }
    let kind = if span.kind == Kind::Server { "server" } else { "client" };
    assert_eq!(tag(tags, "span.kind"), Some(&kind.into()), "{way}");
    let state = (!span.trace_state.is_empty()).then(|| Json::from(span.trace_state.clone()));
    assert_eq!(tag(tags, "w3c.tracestate").cloned(), state, "{way}");
    match &span.status {
        Status::Unset => assert_eq!(tag(tags, "error"), None, "{way}"),
        Status::Error { message } => {
            assert_eq!(tag(tags, "error"), Some(&true.into()), "{way}");
            assert_eq!(tag(tags, "otel.status_code"), Some(&"ERROR".into()), "{way}");
            assert_eq!(tag(tags, "otel.status_description"), Some(&(**message).into()), "{way}");
        }
    }
    let process = &trace["processes"][found["processID"].as_str().unwrap()];
    assert_eq!(process["serviceName"], span.resource.service_name(), "{way}");
    let others = span.resource.attributes.iter().filter(|(key, _)| key != "service.name").cloned().collect();
    check_tags(&process["tags"], &others, way);
}

async fn round_trip(test: &str, trace: u8, address: impl Fn(&Jaeger) -> String) {
    let Some(jaeger) = Jaeger::start(test, &[]).await else { return };
    let address = address(&jaeger).parse().unwrap();
    deliver(&jaeger, test, trace, &address, &Environment::default()).await;
}

/// All of the known spans arrive as they are.
async fn deliver(jaeger: &Jaeger, test: &str, trace: u8, address: &Address, environment: &Environment) {
    let exporter = Exporter::new(address, environment).unwrap();
    let (queue, worker) = exporter.start(QueueConfig::default());
    let spans = known(trace);
    for span in &spans {
        assert!(queue.push(span));
    }
    let end = worker.shutdown(Duration::from_secs(10)).await;
    assert_eq!((end.exported, end.dropped(), end.retries), (spans.len() as u64, 0, 0), "{test}");
    let trace = jaeger.trace(spans[0].trace_id, spans.len()).await;
    for span in &spans {
        check_span(&trace, span, test);
    }
}

#[tokio::test]
async fn otlp_over_grpc() {
    round_trip("otlp_over_grpc", 1, |jaeger| format!("otlp://127.0.0.1:{}", jaeger.otlp_grpc)).await;
}

#[tokio::test]
async fn otlp_over_http() {
    round_trip("otlp_over_http", 2, |jaeger| format!("http://127.0.0.1:{}", jaeger.otlp_http)).await;
}

#[tokio::test]
async fn thrift_over_http() {
    round_trip("thrift_over_http", 3, |jaeger| format!("jaeger+http://127.0.0.1:{}", jaeger.thrift_http))
        .await;
}

#[tokio::test]
async fn thrift_over_udp() {
    round_trip("thrift_over_udp", 4, |jaeger| format!("jaeger+udp://127.0.0.1:{}", jaeger.thrift_udp)).await;
}
