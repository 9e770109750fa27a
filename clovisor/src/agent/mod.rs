//! The agent: the composition root of `clovisor run`.
//!
//! One loop owns all that is traced. It fetches packets every few milliseconds, and between the fetches brings what is
//! attached in line with the plan, whenever configuration, cluster or interfaces have changed. Redis, the API server
//! and the exporters run on [another thread](crate::threads), so a dead one holds nothing up.

mod pods;
mod sides;
mod traces;

use std::{collections::BTreeMap, future, net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Context as _, Result};
use clovisor_trace::{Limits, Semconv, SessionSpan};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant, interval, timeout},
};

use self::{pods::Pods, traces::Traces};
use crate::{
    cluster,
    config::redis::{self, Loaded, Source, State as RedisState, Status},
    datapath::{
        attach::{Attacher, Way},
        capability,
        packets::Buffers,
        veth::{
            Paths, PodInterfaces,
            events::{Change, LinkEvents},
        },
    },
    export::{Address, Environment},
    failure::Usage,
    ledger::{Books, Sinks},
    live::{FETCH, Live, RECHECK},
    memory::Memory,
    metrics::Observed,
    overload,
    pipeline::Pipeline,
    plan::{self, Desired, Peers, Setting},
    server::{Question, Server},
    signals::Signals,
};

/// How long the first plan waits for Redis, so that a restart does not trace the default's pods for a moment.
const FIRST_CONFIG: Duration = Duration::from_secs(2);
/// How often pods that could not be attached are tried again, beside every change of the node's interfaces.
const RETRY: Duration = Duration::from_secs(1);
/// How often all is looked at again, whatever was heard: against a change that nobody told.
const RESYNC: Duration = Duration::from_secs(30);
/// How often the status for users is brought up to date.
const STATUS: Duration = Duration::from_secs(5);

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// Where Redis is.
    pub redis: redis::Settings,
    /// Where traces go if Redis does not say.
    pub traces: Address,
    /// Where `/metrics` and the probes are served.
    pub listen: SocketAddr,
    /// Names of attributes.
    pub semconv: Semconv,
    /// Headers that sessions keep.
    pub headers: Vec<String>,
    /// How to attach.
    pub way: Way,
    /// How packets come from the kernel.
    pub buffers: Buffers,
    /// How many bytes in a row nobody must look at so that they are not copied; `None`: all are.
    pub unneeded: Option<u64>,
    /// What is left out under overload; `None`: nothing is.
    pub shedding: Option<overload::Setting>,
    /// What flows and queues may hold.
    pub memory: Memory,
    /// Name of the cluster.
    pub cluster_name: Option<String>,
    /// Folder of network namespaces, as the container runtime makes them.
    pub netns: PathBuf,
    /// Folder of the CNI plugins' results.
    pub cni_cache: PathBuf,
}

/// Runs until a signal ends it; then nothing of it is left on any interface.
///
/// # Errors
/// It cannot start: a missing capability, a kernel or a cluster that refuses, an address that is taken.
pub async fn run(settings: Settings, environment: Environment, verbose: bool) -> Result<()> {
    capability::check().map_err(|error| Usage(error.to_string()))?;
    // Before the first attach: a signal must not end the process and leave its filters.
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let attacher = Attacher::new().await.context("cannot start")?;
    let swept = attacher.sweep().await.context("cannot clean up what a killed instance has left")?;
    let swept = swept + sides::sweep(&attacher, &settings.netns).await;
    if swept.filters > 0 {
        tracing::info!("removed {} filters that a killed instance had left", swept.filters);
    }
    let client = cluster::watch::client().await.map_err(|error| Usage(error.to_string()))?;
    let source = redis::start(&settings.redis, &settings.node).map_err(|error| Usage(error.to_string()))?;
    let (questions, asked) = mpsc::channel(8);
    let server = Server::start(settings.listen, questions);
    let server =
        server.with_context(|| format!("cannot listen on {}; set CLOVISOR_LISTEN", settings.listen))?;
    tracing::info!("health and metrics at http://{}/metrics", server.address());

    let mut agent = Agent::start(settings, environment, attacher, client, source, verbose).await?;
    agent.turn(asked, &mut signals).await;
    agent.stop().await
}

struct Agent {
    live: Live,
    traces: Traces,
    pods: Pods,
    veths: PodInterfaces,
    links: LinkEvents,
    cluster: cluster::watch::Watch,
    source: Source,
    desired: Desired,
    setting: Setting,
    /// Where traces go if Redis does not say.
    default_traces: Address,
    /// Version of the configuration in force, and since when.
    applied: (u64, Option<SystemTime>),
    reloads: u64,
    /// Why the configured trace address is not in use.
    traces_error: Option<String>,
}

impl Agent {
    async fn start(
        settings: Settings,
        environment: Environment,
        attacher: Attacher,
        client: kube::Client,
        source: Source,
        verbose: bool,
    ) -> Result<Self> {
        let traces = Traces::open(&settings.traces, environment.clone(), settings.memory)
            .map_err(|error| Usage(error.to_string()))?;
        let paths = Paths { netns: settings.netns, cni_cache: settings.cni_cache, ..Paths::default() };
        let veths = PodInterfaces::new(paths).await.context("cannot look up interfaces")?;
        let links = LinkEvents::new().await.context("cannot follow the node's interfaces")?;
        let limits = Limits {
            headers: settings.headers,
            memory: settings.memory.of_flows(),
            unneeded: settings.unneeded,
            ..Limits::default()
        };
        let pipeline =
            Pipeline::new(limits, settings.semconv, None).with_sampler(environment.sampler).with_red();
        let live = Live::load(attacher, pipeline, settings.buffers, settings.shedding, verbose)?;
        tracing::info!("tracing the pods of node {}", settings.node);
        Ok(Self {
            live,
            traces,
            pods: Pods::new(settings.way, environment),
            veths,
            links,
            cluster: cluster::watch::start(client, &settings.node),
            source,
            desired: Desired::default(),
            setting: Setting { cluster_name: settings.cluster_name },
            default_traces: settings.traces,
            applied: (0, None),
            reloads: 0,
            traces_error: None,
        })
    }

    /// The loop, until a signal ends it. It is heard between two steps only, where everything is consistent: a step that
    /// was broken off could leave a filter that nobody remembers.
    async fn turn(&mut self, mut asked: mpsc::Receiver<Question>, signals: &mut Signals) {
        let mut cluster = self.cluster.subscribe();
        let mut config = self.source.config();
        tokio::select! {
            () = Self::await_configuration(&mut config) => {}
            () = signals.any() => return,
        }
        let (mut recheck, mut retry) = (interval(RECHECK), interval(RETRY));
        let (mut resync, mut status) = (interval(RESYNC), interval(STATUS));
        let mut dirty = true;
        loop {
            if std::mem::take(&mut dirty) {
                // Each in a statement of its own: a borrow that lived on while `apply` runs would stop whoever has
                // news, and then ourselves when `apply` looks again.
                let loaded = Arc::clone(&config.borrow_and_update());
                let state = Arc::clone(&cluster.borrow_and_update());
                self.apply(&loaded, &state).await;
            }
            tokio::select! {
                () = self.live.time_to_fetch() => self.fetch(),
                _ = recheck.tick() => dirty = self.recheck().await,
                dirty_now = changed(&mut cluster) => dirty = dirty_now,
                dirty_now = changed(&mut config) => dirty = dirty_now,
                change = self.links.changed() => dirty = self.links_changed(change).await,
                _ = retry.tick(), if self.pods.pending() > 0 => dirty = true,
                _ = resync.tick() => dirty = true,
                _ = status.tick() => self.report(),
                () = signals.any() => {
                    tracing::info!("asked to end");
                    return;
                }
                Some(question) = asked.recv() => {
                    // Whoever asked may have given up.
                    let observed = self.observe();
                    _ = question.send(Observed { red: self.live.pipeline.red().cloned(), ..observed });
                }
            }
        }
    }

    /// Waits a moment for Redis.
    async fn await_configuration(config: &mut watch::Receiver<Arc<Loaded>>) {
        let loaded = config.wait_for(|loaded| loaded.state != RedisState::Never);
        if timeout(FIRST_CONFIG, loaded).await.is_err() {
            tracing::warn!(
                "Redis has not answered yet: the pods of namespace 'default' are traced until it does"
            );
        }
    }

    fn fetch(&mut self) {
        let Self { live, traces, pods, .. } = self;
        let mut out = |span: &SessionSpan<'_>| traces.push(span);
        live.fetch(&mut out);
        pods.retire(live, &mut out);
    }

    /// Brings what is attached in line with configuration and cluster.
    async fn apply(&mut self, loaded: &Loaded, state: &cluster::watch::State) {
        self.direct(loaded);
        if !state.synced {
            return;
        }
        let desired = plan::desire(&loaded.config, &state.cluster, &self.setting);
        for skipped in desired.skipped.difference(&self.desired.skipped) {
            tracing::info!("pod {}/{} is not traced: {}", skipped.namespace, skipped.name, skipped.reason);
        }
        self.desired = desired;
        let Self { live, traces, pods, veths, desired, .. } = self;
        live.pipeline.name_peers(Arc::new(Peers::of(&state.cluster)));
        // From the node's own addresses come kubelet's probes, which nobody traces.
        live.pipeline.join(!loaded.config.egress.is_empty(), veths.own_addresses().await);
        pods.reconcile(desired, live, veths, &mut |span: &SessionSpan<'_>| traces.push(span)).await;
        if loaded.version != self.applied.0 {
            self.applied = (loaded.version, Some(SystemTime::now()));
            self.reloads += 1;
            tracing::info!("configuration {} is in force", loaded.version);
        }
        self.report();
    }

    /// Sends spans where the configuration says.
    fn direct(&mut self, loaded: &Loaded) {
        let wanted = loaded.config.traces.as_ref().unwrap_or(&self.default_traces);
        let error = self.traces.redirect(wanted).err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != self.traces_error) {
            tracing::warn!("spans still go to {}: {error}", self.traces.describe());
        }
        self.traces_error = error;
    }

    /// What a change of the node's interfaces means: whether to look at the plan again.
    async fn links_changed(&mut self, change: Change) -> bool {
        if change.ended {
            // Interfaces are still looked at every second.
            match LinkEvents::new().await {
                Ok(links) => self.links = links,
                Err(error) => {
                    tracing::warn!("{error}");
                    tokio::time::sleep(FETCH).await;
                }
            }
        }
        let mut gone = false;
        for index in change.gone {
            gone |= self.pods.interface_gone(index, &mut self.live).await;
        }
        if change.resync || change.ended {
            gone |= self.recheck().await;
        }
        gone || self.pods.pending() > 0
    }

    /// Sees to it that all that is attached still is, and shows both directions. Whether to look at the plan again.
    async fn recheck(&mut self) -> bool {
        let mut gone = false;
        let Self { live, traces, .. } = &mut *self;
        for index in live.recheck(&mut |span: &SessionSpan<'_>| traces.push(span)).await {
            gone |= self.pods.interface_gone(index, &mut self.live).await;
        }
        gone | self.pods.notice(&mut self.live, &self.veths).await
    }

    fn observe(&mut self) -> Observed {
        let books = self.live.books(Sinks::One(self.traces.by_sink()), false);
        let (state, loaded) = (self.cluster.state(), self.source.config().borrow().clone());
        Observed {
            books,
            red: None,
            pods_attached: self.pods.attached(),
            pods_pending: self.pods.pending(),
            pods_skipped: self.desired.skipped.len(),
            pods_one_sided: self.pods.one_sided(),
            interfaces: self.pods.by_side(),
            attach_errors: self.pods.attach_errors(),
            config_reloads: self.reloads,
            config_errors: loaded.errors.len(),
            redis_connected: loaded.state == RedisState::Connected,
            kubernetes_connected: state.connected,
            synced: state.synced,
        }
    }

    /// Tells users in Redis how things are.
    fn report(&mut self) {
        let observed = self.observe();
        let mut more = vec![
            ("pods_pending".to_owned(), observed.pods_pending.to_string()),
            ("pods_skipped".to_owned(), observed.pods_skipped.to_string()),
            ("pods_one_sided".to_owned(), observed.pods_one_sided.to_string()),
            ("sessions".to_owned(), observed.books.tracer.sessions_ended().to_string()),
        ];
        if let Some(error) = &self.traces_error {
            more.push(("error:traces".to_owned(), error.clone()));
        }
        self.source.report(Status {
            config_version: self.applied.0,
            applied_at: self.applied.1,
            pods: self.desired.pods.len() as u64,
            interfaces: observed.pods_attached as u64,
            exporter: self.traces.describe().to_owned(),
            spans: observed.books.spans().exported,
            drops: observed.books.spans().dropped() + observed.packets_lost(),
            more,
        });
    }

    /// Detaches everywhere, hands on what is open, and sends what is queued.
    async fn stop(mut self) -> Result<()> {
        let traces = &self.traces;
        let detached = self.live.stop(&mut |span: &SessionSpan<'_>| traces.push(span)).await;
        let started = Instant::now();
        let spans = self.traces.shutdown().await;
        tracing::info!(
            "{} sessions, {} spans sent, {} lost; the last were sent within {:.1} s",
            self.live.pipeline.ledger().sessions_ended(),
            spans.exported,
            spans.dropped(),
            started.elapsed().as_secs_f32()
        );
        account(&self.live.books(Sinks::One(BTreeMap::from([("all", spans)])), detached.is_ok()));
        detached.context("cannot detach; run 'clovisor cleanup' on the node")
    }
}

/// Says what became of everything, and whether it adds up.
fn account(books: &Books) {
    for account in books.accounts() {
        if account.difference() > 0 {
            tracing::error!("{account}");
        } else if account.shown {
            tracing::info!("{account}");
        }
    }
}

/// Waits for a change. A sender that is gone (its task has panicked) will never send one.
async fn changed<T>(receiver: &mut watch::Receiver<T>) -> bool {
    match receiver.changed().await {
        Ok(()) => true,
        Err(_) => future::pending().await,
    }
}
