//! The OTLP receiver of `cargo xtask bench`: takes spans over gRPC, answers at once, and counts them.
//!
//! It looks at each span only as far as the truth takes: whether its session is complete, and whether the response brought back
//! the number of the request. It keeps nothing and decodes nothing else, so that little of what a run costs is its own. SIGTERM
//! ends it, and it prints what it counted.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, combinators::WithTrailers};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// gRPC's own head of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// An answer of nothing: all spans were taken.
const TAKEN: &[u8] = &[0; PREFIX];

#[derive(Default)]
struct Count {
    messages: u64,
    spans: u64,
    complete: u64,
    wrong: u64,
    unreadable: u64,
}

fn main() -> Result<()> {
    let address: SocketAddr = std::env::args().nth(1).context("an address to listen at")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let count = Rc::new(RefCell::new(Count::default()));
    tokio::task::LocalSet::new().block_on(&runtime, listen(address, Rc::clone(&count)))?;
    let Count { messages, spans, complete, wrong, unreadable } = &*count.borrow();
    println!(
        r#"{{"messages":{messages},"spans":{spans},"complete":{complete},"wrong":{wrong},"unreadable":{unreadable}}}"#
    );
    Ok(())
}

async fn listen(address: SocketAddr, count: Rc<RefCell<Count>>) -> Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    loop {
        let stream = tokio::select! {
            came = listener.accept() => came?.0,
            _ = end.recv() => return Ok(()),
        };
        // As servers of gRPC commonly do: an answer is of several small writes, and each but the first would wait for a delayed
        // acknowledgement of 40 ms.
        stream.set_nodelay(true)?;
        let count = Rc::clone(&count);
        let service = service_fn(move |request| take(request, Rc::clone(&count)));
        // A connection that breaks is the sender's to tell of: its spans are missing then.
        tokio::task::spawn_local(async move {
            let _ = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = Response<WithTrailers<Full<Bytes>, std::future::Ready<Option<Result<HeaderMap, Infallible>>>>>;

async fn take(request: Request<Incoming>, count: Rc<RefCell<Count>>) -> Result<Answer, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let mut count = count.borrow_mut();
    count.messages += 1;
    let message = body.get(PREFIX..).filter(|_| body[0] == 0).ok_or(Unreadable);
    let counted = message.and_then(|message| read(message, &mut count));
    count.unreadable += u64::from(counted.is_err());
    let trailers =
        HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(TAKEN)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(answer)
}

/// What came is no message of protobuf's encoding.
struct Unreadable;

/// Counts the spans of a message: `resource_spans`, in each of these `scope_spans`, and in each of these `spans`
/// (opentelemetry/proto/trace/v1/trace.proto).
fn read(mut message: &[u8], count: &mut Count) -> Result<(), Unreadable> {
    while let Some(mut resource) = next(&mut message, 1)? {
        while let Some(mut scope) = next(&mut resource, 2)? {
            while let Some(span) = next(&mut scope, 2)? {
                count.spans += 1;
                let (is_complete, is_own) = look(span)?;
                count.complete += u64::from(is_complete);
                count.wrong += u64::from(is_complete && !is_own);
            }
        }
    }
    Ok(())
}

/// Whether a span's session is complete, and whether its response says the path of its request.
fn look(mut span: &[u8]) -> Result<(bool, bool), Unreadable> {
    let (mut outcome, mut path, mut item) = (None, None, None);
    while let Some(mut attribute) = next(&mut span, 9)? {
        match next(&mut attribute, 1)? {
            Some(b"clovisor.outcome") => outcome = inner(attribute, &[2, 1])?,
            Some(b"url.path") => path = inner(attribute, &[2, 1])?,
            // An array of strings.
            Some(b"http.response.header.x-item") => item = inner(attribute, &[2, 5, 1, 1])?,
            _ => {}
        }
    }
    Ok((outcome == Some(b"complete"), path.is_some() && path == item))
}

/// The first content at a path of fields, each within the one before; nothing if one of them is not there.
fn inner<'a>(mut message: &'a [u8], path: &[u64]) -> Result<Option<&'a [u8]>, Unreadable> {
    for &field in path {
        let Some(content) = next(&mut message, field)? else { return Ok(None) };
        message = content;
    }
    Ok(Some(message))
}

/// The next content of a field with a length, and what comes behind it; nothing if there is no more. It allocates nothing: tens of
/// fields a span with a list for each took more time than all else that the receiver does.
fn next<'a>(message: &mut &'a [u8], wanted: u64) -> Result<Option<&'a [u8]>, Unreadable> {
    while !message.is_empty() {
        let tag = varint(message)?;
        // Wire types of protobuf's encoding.
        let len = match tag & 7 {
            0 => varint(message).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(varint(message)?).map_err(|_| Unreadable)?,
            5 => 4,
            _ => return Err(Unreadable),
        };
        let (content, rest) = message.split_at_checked(len).ok_or(Unreadable)?;
        *message = rest;
        if tag >> 3 == wanted && tag & 7 == 2 {
            return Ok(Some(content));
        }
    }
    Ok(None)
}

fn varint(message: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for at in 0..10 {
        let (byte, rest) = message.split_first().ok_or(Unreadable)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

/// Runs what HTTP/2 has to do beside a connection on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
