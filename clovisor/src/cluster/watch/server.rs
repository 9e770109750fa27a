//! A small API server for tests, on loopback: lists in pages, watches with history, and every way to fail.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

type Body = BoxBody<Bytes, Infallible>;
/// Resource (`pods`) and name.
type Key = (String, String);

#[derive(Default)]
struct Store {
    version: u64,
    /// Watches from before this are 410 Gone.
    oldest: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, String, Bytes)>,
    watchers: Vec<(String, UnboundedSender<Bytes>)>,
    refused: Option<(String, u16)>,
    refuse_watches: Option<u16>,
    requests: Vec<String>,
}

/// The server; dropped, it is down.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    store: Arc<Mutex<Store>>,
    running: Option<JoinSet<()>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { address, store: Arc::default(), running: None };
        server.store().version = 1;
        server.up().await;
        server
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Listens, at the address that it had.
    pub(super) async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let store = self.store.clone();
        let mut running = JoinSet::new();
        running.spawn(async move {
            // Connections end with the one that took them.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let store = store.clone();
                connections.spawn(async move {
                    let answer = service_fn(move |request| {
                        let answer = answer(&store, &request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        self.running = Some(running);
    }

    /// Stops listening and breaks all connections.
    pub(super) async fn down(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
        self.store().watchers.clear();
    }

    /// Ends all watches, as a server does now and then.
    pub(super) fn end_watches(&self) {
        self.store().watchers.clear();
    }

    /// Makes or changes an object.
    pub(super) fn put(&self, resource: &str, name: &str, mut object: Value) {
        let mut store = self.store();
        store.version += 1;
        object["metadata"]["name"] = name.into();
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        let old = store.objects.insert((resource.to_owned(), name.to_owned()), object.clone());
        store.tell(resource, if old.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    pub(super) fn delete(&self, resource: &str, name: &str) {
        let mut store = self.store();
        store.version += 1;
        let mut object = store.objects.remove(&(resource.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        store.tell(resource, "DELETED", &object);
    }

    /// From now on, what came before can only be listed.
    pub(super) fn forget_history(&self) {
        let mut store = self.store();
        store.history.clear();
        store.oldest = store.version;
    }

    /// Says 410 Gone to all watches.
    pub(super) fn gone(&self) {
        let mut store = self.store();
        let line = event("ERROR", &status(410));
        store.watchers.drain(..).for_each(|(_, watcher)| drop(watcher.send(line.clone())));
    }

    /// Answers `code` to everything about `resource` from now on, or not any more.
    pub(super) fn refuse(&self, refused: Option<(&str, u16)>) {
        self.store().refused = refused.map(|(resource, code)| (resource.to_owned(), code));
    }

    /// Answers `code` to watches, but gives lists.
    pub(super) fn refuse_watches(&self, code: Option<u16>) {
        self.store().refuse_watches = code;
    }

    /// Targets of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.store().requests.clone()
    }

    /// How many watches are open.
    pub(super) fn watches(&self) -> usize {
        let mut store = self.store();
        store.watchers.retain(|(_, watcher)| !watcher.is_closed());
        store.watchers.len()
    }
}

impl Store {
    fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        let line = event(kind, object);
        self.history.push((self.version, resource.to_owned(), line.clone()));
        self.watchers.retain(|(watched, watcher)| watched != resource || watcher.send(line.clone()).is_ok());
    }

    /// A page that starts after object number `from`.
    fn list(&self, resource: &str, from: usize, limit: usize) -> Value {
        let all: Vec<_> = self.objects.iter().filter(|((of, _), _)| of == resource).collect();
        let items: Vec<_> = all.iter().skip(from).take(limit).map(|(_, object)| object).collect();
        let next = from + items.len();
        let next = if next < all.len() { next.to_string() } else { String::new() };
        json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": self.version.to_string(), "continue": next}})
    }

    fn watch(&mut self, resource: &str, since: u64) -> UnboundedReceiver<Bytes> {
        let (sender, receiver) = unbounded_channel();
        if since < self.oldest {
            sender.send(event("ERROR", &status(410))).unwrap();
            return receiver;
        }
        for (version, of, line) in &self.history {
            if *version > since && of == resource {
                sender.send(line.clone()).unwrap();
            }
        }
        self.watchers.push((resource.to_owned(), sender));
        receiver
    }
}

fn event(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Test", "message": "no"})
}

fn whole(code: u16, body: &Value) -> Response<Body> {
    let body = Full::from(body.to_string()).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn answer(store: &Mutex<Store>, request: &Request<Incoming>) -> Response<Body> {
    let mut store = store.lock().unwrap();
    store.requests.push(request.uri().to_string());
    let resource = request.uri().path().trim_start_matches("/api/v1/").to_owned();
    let query = request.uri().query().unwrap_or_default();
    let of = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| of(name).and_then(|value| value.parse::<u64>().ok());
    if let Some((refused, code)) = &store.refused
        && *refused == resource
    {
        return whole(*code, &status(*code));
    }
    if of("watch").is_none() {
        let page = |name, default| usize::try_from(number(name).unwrap_or(default)).unwrap();
        return whole(200, &store.list(&resource, page("continue", 0), page("limit", 10_000)));
    }
    if let Some(code) = store.refuse_watches {
        return whole(code, &status(code));
    }
    let lines = store.watch(&resource, number("resourceVersion").unwrap());
    let body = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok(Frame::data(line)), lines))
    });
    Response::new(StreamBody::new(body).boxed())
}
