//! Keeps a [`Cluster`] up to date from the Kubernetes API: the pods of one node, and all services.
//!
//! It refuses to forget: while the API server is away, or says no, the last state stays in force, and only what a
//! server says is gone, or no longer lists, goes. A list replaces what was known at once, never in parts. Objects are
//! converted as they come; nothing of the client's is kept, and a change of what is not read here wakes nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1 as api;
use kube::runtime::{utils::Backoff, watcher};
use tokio::{
    sync::watch::{Receiver, Sender, channel},
    task::JoinSet,
};

use super::{Cluster, Pod, Service};
use crate::threads::others;

mod client;
mod feed;
mod link;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClusterError, client};

use feed::{Feed, Kept, Pace};
use link::{Link, Trouble};

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Pods and services.
    pub cluster: Cluster,
    /// Whether pods and services came once, whole. Before that, what is missing in `cluster` means nothing.
    pub synced: bool,
    /// Whether the API server is followed now. If not, `cluster` is what it was when it was last heard.
    pub connected: bool,
}

/// Watches the cluster until it is dropped.
#[derive(Debug)]
pub struct Watch {
    state: Receiver<Arc<State>>,
    /// Aborted on drop.
    _feeds: JoinSet<()>,
}

impl Watch {
    /// What is known now.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// What is known, and a wake-up for each change that matters; changes in quick succession come as one.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<Arc<State>> {
        self.state.clone()
    }
}

/// Starts to watch the pods of node `node`, and all services. Needs `get`, `list` and `watch` on both, everywhere.
///
/// # Panics
/// Outside of a Tokio runtime.
#[must_use]
pub fn start(client: kube::Client, node: &str) -> Watch {
    start_paced(client, node, Pace::default)
}

/// The same, with a back-off of its own for each resource.
fn start_paced<B: Backoff + 'static>(client: kube::Client, node: &str, pace: impl Fn() -> B) -> Watch {
    let (sender, state) = channel(Arc::default());
    let board = Arc::new(Board { sender, link: Mutex::default() });
    let on_node = format!("spec.nodeName={node}");
    let mut feeds = JoinSet::new();
    let pods = watcher::Config { field_selector: Some(on_node), ..feed::config() };
    feeds.spawn_on(Feed::<Pod, B>::new(client.clone(), pods, pace(), board.clone()).run(), &others());
    feeds.spawn_on(Feed::<Service, B>::new(client, feed::config(), pace(), board).run(), &others());
    Watch { state, _feeds: feeds }
}

/// Where the feeds put what they learn.
struct Board {
    sender: Sender<Arc<State>>,
    link: Mutex<Link>,
}

impl Board {
    /// An object is there, or is as given now.
    fn put<K: Kept>(&self, key: K::Key, object: K) {
        self.sender.send_if_modified(|state| {
            if K::known(&state.cluster).get(&key).is_some_and(|known| **known == object) {
                return false;
            }
            K::known_mut(&mut Arc::make_mut(state).cluster).insert(key, Arc::new(object));
            true
        });
    }

    /// An object is gone.
    fn remove<K: Kept>(&self, key: &K::Key) {
        self.sender.send_if_modified(|state| {
            K::known(&state.cluster).contains_key(key)
                && K::known_mut(&mut Arc::make_mut(state).cluster).remove(key).is_some()
        });
    }

    /// All objects there are.
    fn replace<K: Kept>(&self, mut all: BTreeMap<K::Key, Arc<K>>) {
        let mut link = self.link();
        link.listed(K::PLURAL);
        let (synced, connected) = (link.synced(), link.connected());
        self.sender.send_if_modified(|state| {
            let known = K::known(&state.cluster);
            let new = *known != all;
            if !new && (state.synced, state.connected) == (synced, connected) {
                return false;
            }
            // What stayed as it was is not kept twice while somebody still holds the former state.
            for (key, object) in &mut all {
                if let Some(same) = known.get(key).filter(|known| *known == object) {
                    *object = same.clone();
                }
            }
            let state = Arc::make_mut(state);
            (state.synced, state.connected) = (synced, connected);
            *K::known_mut(&mut state.cluster) = all;
            true
        });
    }

    /// The server is followed.
    fn back<K: Kept>(&self) {
        let mut link = self.link();
        if let Some(said) = link.back(K::PLURAL) {
            tracing::info!("{said}");
        }
        self.set_connected(link.connected());
    }

    /// The server is not followed for now; what is known of it stays.
    fn lost<K: Kept>(&self, trouble: &Trouble) {
        let mut link = self.link();
        if let Some(said) = link.lost(K::PLURAL, trouble) {
            tracing::warn!("{said}");
        }
        self.set_connected(false);
    }

    fn set_connected(&self, connected: bool) {
        self.sender.send_if_modified(|state| {
            let new = state.connected != connected;
            if new {
                Arc::make_mut(state).connected = connected;
            }
            new
        });
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept for Pod {
    type Object = api::Pod;
    type Key = String;
    const PLURAL: &'static str = "pods";

    fn read(object: &api::Pod) -> Option<(String, Self)> {
        Self::read(object).map(|pod| (pod.uid.clone(), pod))
    }

    fn known(cluster: &Cluster) -> &BTreeMap<String, Arc<Self>> {
        &cluster.pods
    }

    fn known_mut(cluster: &mut Cluster) -> &mut BTreeMap<String, Arc<Self>> {
        &mut cluster.pods
    }
}

impl Kept for Service {
    type Object = api::Service;
    type Key = (String, String);
    const PLURAL: &'static str = "services";

    fn read(object: &api::Service) -> Option<((String, String), Self)> {
        Self::read(object).map(|service| ((service.namespace.clone(), service.name.clone()), service))
    }

    fn known(cluster: &Cluster) -> &BTreeMap<(String, String), Arc<Self>> {
        &cluster.services
    }

    fn known_mut(cluster: &mut Cluster) -> &mut BTreeMap<(String, String), Arc<Self>> {
        &mut cluster.services
    }
}
