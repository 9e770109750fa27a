//! Follows one kind of object: list, watch, back-off, and again.
//!
//! kube's watcher resumes by itself where a watch ends or breaks. Where the server cannot be asked, or refuses, this
//! starts again from a list: that shows that it answers again (a resumed watch is silent until something changes), and
//! a server that came back with another history cannot leave anything stale. It refuses to ask again without a wait.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::{
    Api,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use tokio::time::Instant;

use super::{Board, Cluster, link::Trouble};

/// Objects in one answer: some 10 KB each as text, so a few MB at a time. A node has about a hundred pods.
const PAGE: u32 = 200;
/// Seconds after which the server ends a watch, which is then resumed. A connection that died without a sign is
/// noticed 5 s later; kube's own 290 s are long for an agent that promises a second.
const WATCH_SECONDS: u32 = 120;
/// kube's back-off goes up to a minute with its jitter; then a pod that starts after an outage would be seen too late.
/// A refused connection every 10 s costs nobody anything.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A watch that breaks twice within this time does not just lose a connection now and then.
const OFTEN: Duration = Duration::from_secs(30);
/// A list is not enough to be followed again, and kube does not tell that a watch has begun: a refusal would come within
/// this time. So a right to list without the right to watch is one outage, not many.
const PROOF: Duration = Duration::from_secs(1);

/// A kind of object that is kept.
pub(super) trait Kept: Eq + Send + Sync + 'static {
    /// As the API has it.
    type Object: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;
    /// What it is known by.
    type Key: Ord + Clone + Send + 'static;
    /// Name of the resource in the API.
    const PLURAL: &'static str;

    /// Reads an object, if it is one.
    fn read(object: &Self::Object) -> Option<(Self::Key, Self)>
    where
        Self: Sized;
    /// Those that are known.
    fn known(cluster: &Cluster) -> &BTreeMap<Self::Key, Arc<Self>>
    where
        Self: Sized;
    /// Those that are known, to change them.
    fn known_mut(cluster: &mut Cluster) -> &mut BTreeMap<Self::Key, Arc<Self>>
    where
        Self: Sized;
}

/// What every watch has in common.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS)
}

/// kube's back-off (0.8 s, doubled each time, with jitter), but never longer than [`LONGEST_WAIT`].
#[derive(Default)]
pub(super) struct Pace(DefaultBackoff);

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Pace {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// Follows one kind of object.
pub(super) struct Feed<K: Kept, B> {
    api: Api<K::Object>,
    config: watcher::Config,
    pace: B,
    board: Arc<Board>,
    /// What the list has brought so far, while one is read.
    listed: BTreeMap<K::Key, Arc<K>>,
    /// When a watch broke last with nothing heard since.
    broke: Option<Instant>,
    /// When a watch that has begun is believed to work.
    proven_at: Option<Instant>,
}

impl<K: Kept, B: Backoff> Feed<K, B> {
    pub(super) fn new(client: kube::Client, config: watcher::Config, pace: B, board: Arc<Board>) -> Self {
        Self {
            api: Api::all(client),
            config,
            pace,
            board,
            listed: BTreeMap::new(),
            broke: None,
            proven_at: None,
        }
    }

    /// Never ends.
    pub(super) async fn run(mut self) {
        loop {
            let mut events = pin!(watcher(self.api.clone(), self.config.clone()));
            while let Some(event) = self.next(&mut events).await {
                match event {
                    Ok(event) => self.take(event),
                    Err(error) if self.resumes(&error).await => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// The next event; while it is waited for, silence proves that the watch works.
    async fn next<S: Stream + Unpin>(&mut self, events: &mut S) -> Option<S::Item> {
        if let Some(proven) = self.proven_at {
            match tokio::time::timeout_at(proven, events.next()).await {
                Ok(event) => return event,
                Err(_) => self.proven(),
            }
        }
        events.next().await
    }

    /// Waits a while, and tells whether the watch goes on by itself then. If not, it is lost.
    async fn resumes(&mut self, error: &watcher::Error) -> bool {
        tracing::debug!("watching {}: {error}", K::PLURAL);
        let resumed = resumes(error) && !self.breaks_often();
        if !resumed {
            self.proven_at = None;
            self.board.lost::<K>(&Trouble::of(error));
        }
        tokio::time::sleep(self.pace.next().unwrap_or(LONGEST_WAIT)).await;
        resumed
    }

    fn proven(&mut self) {
        self.proven_at = None;
        self.broke = None;
        self.pace.reset();
        self.board.back::<K>();
    }

    fn breaks_often(&mut self) -> bool {
        self.broke.replace(Instant::now()).is_some_and(|before| before.elapsed() < OFTEN)
    }

    fn take(&mut self, event: Event<K::Object>) {
        if matches!(event, Event::Apply(_) | Event::Delete(_))
            && (self.proven_at.is_some() || self.broke.is_some())
        {
            self.proven();
        }
        match event {
            Event::Init => {
                self.listed.clear();
                self.proven_at = None;
            }
            Event::InitApply(object) => {
                if let Some((key, object)) = K::read(&object) {
                    self.listed.insert(key, Arc::new(object));
                }
            }
            Event::InitDone => {
                self.board.replace(std::mem::take(&mut self.listed));
                self.proven_at = Some(Instant::now() + PROOF);
            }
            Event::Apply(object) => {
                if let Some((key, object)) = K::read(&object) {
                    self.board.put(key, object);
                }
            }
            Event::Delete(object) => {
                if let Some((key, _)) = K::read(&object) {
                    self.board.remove::<K>(&key);
                }
            }
        }
    }
}

/// Whether kube's watcher goes on by itself, with nothing missed: a watch that broke is resumed where it was, one
/// whose place in history has expired (410 Gone) starts from a list. Neither says that the server is away.
fn resumes(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchFailed(error) => {
            use kube::Error::{HyperError, ReadEvents, Service};
            matches!(error, HyperError(_) | ReadEvents(_) | Service(_))
        }
        watcher::Error::WatchError(status) => status.code == 410,
        // The list's own place expires where it takes long to read; it starts again.
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}
