//! Sinks against servers that misbehave: dead, slow, overloaded, half-willing, and simply wrong.
//!
//! Loopback only; every server lives inside its test.

#![expect(clippy::unwrap_used, reason = "a test's own helpers fail the test")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use clovisor::export::{
    Address, Batch, BuildError, Environment, ExportError, Exporter, Form as _, QueueConfig, Sent, Sink,
};
use clovisor_trace::{Kind, Resource, Span, SpanId, Status, TraceId, Value};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message;
use tokio::net::TcpListener;

fn span(service: &str, id: u64) -> Span {
    Span {
        trace_id: TraceId([0x11; 16]),
        span_id: SpanId(id.to_be_bytes()),
        parent_span_id: Some(SpanId([0x22; 8])),
        parent_sampled: None,
        trace_state: "k=v".to_owned(),
        name: "GET".into(),
        kind: Kind::Server,
        start_ns: 1_700_000_000_000_000_001,
        end_ns: 1_700_000_000_000_500_002,
        status: Status::Unset,
        attributes: vec![
            ("http.request.method".into(), "GET".into()),
            ("http.response.status_code".into(), Value::Int(200)),
            ("url.path".into(), "/\u{0}\u{1b}[2J\u{202e}\u{10ffff}\"\\".into()),
        ],
        events: Vec::new(),
        events_dropped: 0,
        resource: Arc::new(Resource::service(service.to_owned())),
    }
}

fn spans(count: u64) -> Vec<Span> {
    (1..=count).map(|id| span(if id % 2 == 0 { "even" } else { "odd" }, id)).collect()
}

fn exporter(address: &str) -> Exporter {
    Exporter::new(&address.parse::<Address>().unwrap(), &Environment::default()).unwrap()
}

/// One try: what it said, what it settled, and how many spans it left.
type Tried = (Result<(), ExportError>, Sent, usize);

async fn once(sink: &mut Exporter, spans: Vec<Span>) -> Tried {
    match sink {
        Exporter::OtlpGrpc(sink) => attempt(&mut **sink, spans).await,
        Exporter::OtlpHttp(sink) => attempt(&mut **sink, spans).await,
        Exporter::JaegerHttp(sink) => attempt(&mut **sink, spans).await,
        Exporter::JaegerUdp(sink) => attempt(&mut **sink, spans).await,
        other => panic!("{other:?} sends nothing over the network"),
    }
}

async fn attempt<S: Sink>(sink: &mut S, spans: Vec<Span>) -> Tried {
    let mut batch = Batch::new(S::Form::default());
    spans.iter().for_each(|span| batch.form_mut().add(span));
    let result = tokio::time::timeout(Duration::from_secs(20), sink.export(&mut batch)).await.unwrap();
    (result, batch.take_sent(), batch.left())
}

fn dead_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// ---- an HTTP server with a script --------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Seen {
    path: String,
    content_type: String,
    authorization: Option<String>,
    body: Bytes,
}

/// Status, `Retry-After`, body.
type Scripted = (u16, Option<&'static str>, Vec<u8>);

#[derive(Clone, Default)]
struct FakeHttp {
    /// After the script 200 and nothing.
    script: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FakeHttp {
    async fn start(script: Vec<Scripted>) -> (Self, SocketAddr) {
        let fake = Self { script: Arc::new(Mutex::new(script.into())), seen: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (fake, address)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut seen = Seen {
            path: request.uri().path().to_owned(),
            content_type: header("content-type").unwrap(),
            authorization: header("authorization"),
            body: Bytes::new(),
        };
        seen.body = request.into_body().collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(seen);
        let (status, after, body) =
            self.script.lock().unwrap().pop_front().unwrap_or((200, None, Vec::new()));
        let mut response = Response::builder().status(status);
        if let Some(after) = after {
            response = response.header("retry-after", after);
        }
        response.body(Full::from(body)).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn partial(rejected_spans: i64, error_message: &str) -> ExportTraceServiceResponse {
    let error_message = error_message.to_owned();
    ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }),
    }
}

/// Span ids of a request, with the service of each.
fn arrived(request: &ExportTraceServiceRequest) -> Vec<(String, u64)> {
    let mut list = Vec::new();
    for group in &request.resource_spans {
        let resource = format!("{:?}", group.resource);
        let service = ["even", "odd"].into_iter().find(|name| resource.contains(name)).unwrap_or("?");
        for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
            let id = u64::from_be_bytes(span.span_id.clone().try_into().unwrap());
            list.push((service.to_owned(), id));
        }
    }
    list.sort_by_key(|(_, id)| *id);
    list
}

#[tokio::test]
async fn otlp_http_posts_protobuf_with_the_headers_of_the_environment() {
    let (fake, address) = FakeHttp::start(Vec::new()).await;
    let env = Environment::read(|name| {
        (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| "authorization=Bearer%20s3cret".to_owned())
    })
    .unwrap();
    let mut sink = Exporter::new(&format!("http://{address}").parse().unwrap(), &env).unwrap();
    assert!(!format!("{sink:?}").contains("s3cret"));
    let (result, sent, left) = once(&mut sink, spans(3)).await;
    assert_eq!((result, sent.accepted, left), (Ok(()), 3, 0));
    let seen = &fake.seen()[0];
    assert_eq!((seen.path.as_str(), seen.content_type.as_str()), ("/v1/traces", "application/x-protobuf"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer s3cret"));
    let request = ExportTraceServiceRequest::decode(seen.body.clone()).unwrap();
    assert_eq!(arrived(&request), [("odd".to_owned(), 1), ("even".to_owned(), 2), ("odd".to_owned(), 3)]);
}

#[tokio::test]
async fn http_answers_are_read_as_specified() {
    let script = vec![
        (503, Some("2"), b"busy".to_vec()),
        (429, None, Vec::new()),
        (400, None, b"bad \x1b[31mdata".to_vec()),
        (307, None, Vec::new()),
        (200, None, partial(2, "too \x1b[2J old").encode_to_vec()),
        (200, None, partial(99, "more than there were").encode_to_vec()),
        (200, None, partial(-1, "nonsense").encode_to_vec()),
        (200, None, vec![0xff; 100_000]),
    ];
    let (_, address) = FakeHttp::start(script).await;
    let mut sink = exporter(&format!("http://{address}"));
    let (result, _, left) = once(&mut sink, spans(3)).await;
    let Err(ExportError::Retry { reason, after }) = result else { panic!("{result:?}") };
    assert!(reason.contains("503") && reason.contains("busy"), "{reason}");
    assert_eq!((after, left), (Some(Duration::from_secs(2)), 3));
    assert!(matches!(once(&mut sink, spans(3)).await.0, Err(ExportError::Retry { after: None, .. })));
    for _ in 0..2 {
        let result = once(&mut sink, spans(3)).await.0;
        assert!(
            matches!(&result, Err(ExportError::Refused { reason }) if !reason.contains('\x1b')),
            "{result:?}"
        );
    }
    for (accepted, refused) in [(1, 2), (0, 3), (3, 0), (3, 0)] {
        let (result, sent, left) = once(&mut sink, spans(3)).await;
        assert_eq!((result, left, sent.accepted, sent.refused), (Ok(()), 0, accepted, refused));
        assert!(!sent.reason.unwrap_or_default().contains('\x1b'));
    }
}

#[tokio::test]
async fn large_spans_are_sent_in_several_messages() {
    let (fake, address) = FakeHttp::start(Vec::new()).await;
    let (queue, worker) = exporter(&format!("http://{address}")).start(QueueConfig::default());
    for mut span in spans(40) {
        // More than a span can have of two heads.
        span.attributes.push(("url.full".into(), Value::from("x".repeat(256 << 10))));
        assert!(queue.push(&span));
    }
    let end = worker.shutdown(Duration::from_secs(10)).await;
    assert_eq!((end.exported, end.dropped()), (40, 0));
    let sizes: Vec<_> = fake.seen().iter().map(|seen| seen.body.len()).collect();
    assert!(sizes.len() == 4 && sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
}

#[tokio::test]
async fn thrift_http_posts_a_batch_a_resource_and_keeps_what_was_refused_later() {
    let (fake, address) = FakeHttp::start(vec![(202, None, Vec::new()), (503, Some("4"), Vec::new())]).await;
    let mut sink = exporter(&format!("jaeger+http://{address}"));
    let (result, sent, left) = once(&mut sink, spans(5)).await;
    // The first resource arrived; the second one's spans are still ours.
    let Err(ExportError::Retry { after, reason }) = result else { panic!("{result:?}") };
    assert!(reason.contains("503"), "{reason}");
    assert_eq!((after, sent.accepted, left), (Some(Duration::from_secs(4)), 3, 2));
    let (result, sent, left) = once(&mut sink, spans(5)).await;
    assert_eq!((result, sent.accepted, left), (Ok(()), 5, 0));
    let seen = fake.seen();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter().all(
            |one| one.path == "/api/traces" && one.content_type == "application/vnd.apache.thrift.binary"
        )
    );
    assert!(seen[0].body.windows(3).any(|bytes| bytes == b"odd"));
}

#[tokio::test]
async fn thrift_http_serves_more_resources_than_it_keeps_exporters() {
    let (fake, address) = FakeHttp::start(Vec::new()).await;
    let mut sink = exporter(&format!("jaeger+http://{address}"));
    let many = (1..=300).map(|id| span(&format!("service-{id}"), id)).collect();
    let (result, sent, _) = once(&mut sink, many).await;
    assert_eq!((result, sent.accepted, fake.seen().len()), (Ok(()), 300, 300));
}

// ---- a gRPC server with a script ---------------------------------------------------------------------------------

#[derive(Clone, Default)]
struct FakeGrpc {
    script: Arc<Mutex<VecDeque<Result<ExportTraceServiceResponse, tonic::Status>>>>,
    seen: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[async_trait::async_trait]
impl TraceService for FakeGrpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.seen.lock().unwrap().push(request.into_inner());
        let next = self.script.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Ok(ExportTraceServiceResponse::default())).map(tonic::Response::new)
    }
}

impl FakeGrpc {
    fn serve(&self, listener: TcpListener) -> tokio::task::JoinHandle<()> {
        let service = TowerToHyperService::new(TraceServiceServer::new(self.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service.clone()));
            }
        })
    }
}

#[tokio::test]
async fn otlp_grpc_reads_answers_as_specified() {
    let fake = FakeGrpc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sink = exporter(&format!("otlp://{}", listener.local_addr().unwrap()));
    fake.serve(listener);
    *fake.script.lock().unwrap() = VecDeque::from([
        Ok(ExportTraceServiceResponse::default()),
        Ok(partial(1, "too old")),
        Err(tonic::Status::unavailable("busy")),
        Err(tonic::Status::unauthenticated("who \x1b[2J are you")),
        Err(tonic::Status::resource_exhausted("too large")),
    ]);
    let (result, sent, _) = once(&mut sink, spans(3)).await;
    assert_eq!((result, sent.accepted), (Ok(()), 3));
    assert_eq!(arrived(&fake.seen.lock().unwrap()[0]).len(), 3);
    let (result, sent, _) = once(&mut sink, spans(3)).await;
    assert_eq!((result, sent.accepted, sent.refused), (Ok(()), 2, 1));
    assert_eq!(sent.reason.as_deref(), Some("rejected by the receiver: too old"));
    let (result, _, left) = once(&mut sink, spans(3)).await;
    assert!(matches!(result, Err(ExportError::Retry { .. })) && left == 3, "{result:?}");
    for _ in 0..2 {
        let result = once(&mut sink, spans(3)).await.0;
        assert!(
            matches!(&result, Err(ExportError::Refused { reason }) if !reason.contains('\x1b')),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn a_wrong_server_is_worth_another_try_and_is_described() {
    // HTTP/1.1 where gRPC was expected.
    let (_, address) = FakeHttp::start(Vec::new()).await;
    let result = once(&mut exporter(&format!("otlp://{address}")), spans(1)).await.0;
    let Err(ExportError::Retry { reason, .. }) = result else { panic!("{result:?}") };
    assert!(!reason.is_empty());
}

// ---- nobody there ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dead_server_is_worth_another_try_by_every_way() {
    let port = dead_port();
    for scheme in ["otlp", "http", "https", "jaeger+http"] {
        let address: Address = format!("{scheme}://127.0.0.1:{port}").parse().unwrap();
        let mut sink = match Exporter::new(&address, &Environment::default()) {
            // A machine without any certificate authority says so at the start.
            Err(BuildError::Tls { .. }) if scheme == "https" => continue,
            other => other.unwrap(),
        };
        let (result, sent, left) = once(&mut sink, spans(2)).await;
        let Err(ExportError::Retry { reason, after: None }) = result else { panic!("{scheme}: {result:?}") };
        assert!(reason.to_lowercase().contains("refused"), "{scheme}: {reason}");
        assert_eq!((sent, left), (Sent::default(), 2));
    }
    let result = once(&mut exporter("jaeger+udp://no-such-host.invalid"), spans(1)).await.0;
    assert!(
        matches!(&result, Err(ExportError::Retry { reason, .. }) if reason.contains("look up")),
        "{result:?}"
    );
}

#[tokio::test]
async fn spans_wait_for_a_server_that_comes_back() {
    let port = dead_port();
    let config = QueueConfig { linger: Duration::from_millis(10), ..QueueConfig::default() };
    let (queue, worker) = exporter(&format!("otlp://127.0.0.1:{port}")).start(config);
    for span in spans(100) {
        assert!(queue.push(&span));
    }
    while queue.stats().snapshot().retries == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let fake = FakeGrpc::default();
    fake.serve(TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    let end = worker.shutdown(Duration::from_secs(10)).await;
    assert!(end.balances());
    assert_eq!((end.exported, end.dropped()), (100, 0));
    assert_eq!(fake.seen.lock().unwrap().iter().map(|request| arrived(request).len()).sum::<usize>(), 100);
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_at_the_time_out() {
    // It accepts, by its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for scheme in ["otlp", "http", "jaeger+http"] {
        let config = QueueConfig {
            linger: Duration::ZERO,
            request_timeout: Duration::from_millis(100),
            give_up_after: Duration::from_millis(500),
            ..QueueConfig::default()
        };
        let sink = exporter(&format!("{scheme}://{}", silent.local_addr().unwrap()));
        let (queue, worker) = sink.start(config);
        queue.push(&span("odd", 1));
        while queue.stats().snapshot().dropped_given_up == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let end = worker.shutdown(Duration::from_secs(1)).await;
        assert!(end.balances() && end.retries >= 1, "{scheme}: {end:?}");
    }
}

// ---- UDP ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn udp_packets_stay_within_what_an_agent_reads() {
    let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut sink = exporter(&format!("jaeger+udp://{}", agent.local_addr().unwrap()));
    let mut many = spans(200);
    for span in &mut many {
        span.attributes.push(("url.full".into(), Value::from("x".repeat(1000))));
    }
    // Fits into no packet, and must not take others with it.
    many[10].attributes.push(("user_agent.original".into(), Value::from("y".repeat(70_000))));
    let reader = tokio::task::spawn_blocking(move || {
        let (mut buffer, mut sizes, mut markers) = (vec![0; 70_000], Vec::new(), 0);
        while markers < 199 {
            let size = agent.recv(&mut buffer).expect("a packet");
            sizes.push(size);
            markers += buffer[..size].windows(8).filter(|bytes| *bytes == b"url.full").count();
        }
        sizes
    });
    let (result, sent, left) = once(&mut sink, many).await;
    assert_eq!((result, left, sent.accepted, sent.refused), (Ok(()), 0, 199, 1));
    assert!(sent.reason.unwrap().contains("65000"));
    let sizes = reader.await.unwrap();
    assert!(sizes.len() >= 4 && sizes.iter().all(|size| *size <= 65_000), "{sizes:?}");
}

#[tokio::test]
async fn an_agent_that_is_gone_shows_at_the_next_packet() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut sink = exporter(&format!("jaeger+udp://127.0.0.1:{port}"));
    // The first packet goes out; nothing can be known of it.
    assert_eq!(once(&mut sink, vec![span("odd", 1)]).await.0, Ok(()));
    let (result, _, left) = once(&mut sink, vec![span("odd", 2)]).await;
    assert!(matches!(result, Err(ExportError::Retry { .. })) && left == 1, "{result:?}");
}
