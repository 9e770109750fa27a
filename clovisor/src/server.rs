//! `/healthz`, `/readyz` and `/metrics` over HTTP.
//!
//! Each is answered from the agent's own loop, asked at that moment: an answer proves that the loop turns, and its
//! counts are all of one moment. Neither probe fails because Redis or Jaeger is down. It refuses more than a few
//! connections at once, and slow ones: it is open to the cluster.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    metrics::{self, Observed},
    threads::others,
};

/// How long the agent's loop may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one connection may last: a scrape takes milliseconds.
const CONNECTION: Duration = Duration::from_secs(30);
/// Connections at once: two probes, a few scrapers, and some that are stuck.
const CONNECTIONS: usize = 32;

/// A question to the agent: how is it?
pub type Question = oneshot::Sender<Observed>;

/// The server; dropping it ends it.
pub struct Server {
    address: SocketAddr,
    task: AbortHandle,
}

impl Server {
    /// Opens the socket, and answers from now on, on a thread that is not the loop's. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(listen: SocketAddr, questions: mpsc::Sender<Question>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let others = others();
        let listener = {
            let _there = others.enter();
            TcpListener::from_std(listener)?
        };
        let task = others.spawn(accept(listener, questions)).abort_handle();
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, questions: mpsc::Sender<Question>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the peer was gone already: go on a little later.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, questions.clone()));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // What a peer does wrong is its own loss.
            _ = timeout(CONNECTION, server.serve_connection(TokioIo::new(stream), service)).await;
            drop(permit);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    questions: mpsc::Sender<Question>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()));
    }
    let path = request.uri().path();
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return Ok(text(StatusCode::NOT_FOUND, "/healthz, /readyz, /metrics\n".to_owned()));
    }
    let Some(observed) = ask(&questions).await else {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the agent's loop does not answer\n".to_owned()));
    };
    Ok(match path {
        "/metrics" => match metrics::render(&observed) {
            Ok(rendered) => {
                let mut response = text(StatusCode::OK, rendered);
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/readyz" if !observed.is_ready() => {
            let why = if observed.synced {
                format!("{} pods wait to be attached\n", observed.pods_pending)
            } else {
                "pods and services have not been listed yet\n".to_owned()
            };
            text(StatusCode::SERVICE_UNAVAILABLE, why)
        }
        _ => text(StatusCode::OK, "ok\n".to_owned()),
    })
}

async fn ask(questions: &mpsc::Sender<Question>) -> Option<Observed> {
    let (question, observed) = oneshot::channel();
    timeout(PATIENCE, async {
        questions.send(question).await.ok()?;
        observed.await.ok()
    })
    .await
    .ok()?
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn get(server: &Server, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn probes_and_metrics() {
        let (questions, mut asked) = mpsc::channel::<Question>(4);
        let server = Server::start("127.0.0.1:0".parse().unwrap(), questions).unwrap();
        let agent = tokio::spawn(async move {
            for synced in [false, false, true, true] {
                let question = asked.recv().await.unwrap();
                question.send(Observed { synced, ..Observed::default() }).unwrap();
            }
        });
        assert!(get(&server, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(&server, "/readyz").await.starts_with("HTTP/1.1 503"));
        assert!(get(&server, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(&server, "/metrics").await.contains("clovisor_packets_total"));
        assert!(get(&server, "/else").await.starts_with("HTTP/1.1 404"));
        agent.await.unwrap();
        // The loop is gone.
        assert!(get(&server, "/healthz").await.starts_with("HTTP/1.1 503"));
    }
}
