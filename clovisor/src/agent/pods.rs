//! The pods that are attached, and those that cannot be yet.
//!
//! One pod's failure is said once, counted, and tried again at the next look; it costs the others nothing. Packets are
//! fetched between the steps, so that three hundred pods at once do not make the buffers overflow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clovisor_trace::{Resource, SessionSpan};
use tokio::time::Instant;

use super::sides::Sides;
use crate::{
    datapath::{
        attach::Way,
        interface::Interface,
        kernel,
        veth::{PodInterfaces, Snapshot, Wanted},
    },
    export::Environment,
    live::{Live, number},
    pipeline::Names,
    plan::{self, Action, Desired, PodPlan},
};

/// How long the last packets of a detached interface may take to come: many times what the buffers hold back.
const RETIRE: Duration = Duration::from_millis(100);

/// How long a pod may be without an interface before that is worth a word: being set up and taken down takes seconds.
const SETUP: Duration = Duration::from_secs(10);

/// What is attached, by UID of the pod.
pub(super) struct Pods {
    pub(super) held: BTreeMap<String, Held>,
    pub(super) sides: Sides,
    /// Pods that are not attached yet.
    pending: BTreeMap<String, Pending>,
    /// Interfaces that were detached, and since when.
    pub(super) retiring: VecDeque<(Instant, u32)>,
    way: Way,
    environment: Environment,
    attach_errors: u64,
}

pub(super) struct Held {
    pub(super) plan: Arc<PodPlan>,
    pub(super) interface: Interface,
}

/// A pod that is not attached yet.
struct Pending {
    since: Instant,
    /// What was said last of why.
    said: String,
}

impl Pods {
    pub(super) fn new(way: Way, environment: Environment) -> Self {
        Self {
            held: BTreeMap::new(),
            sides: Sides::new(),
            pending: BTreeMap::new(),
            retiring: VecDeque::new(),
            way,
            environment,
            attach_errors: 0,
        }
    }

    /// How many pods are attached.
    pub(super) fn attached(&self) -> usize {
        self.held.len()
    }

    /// How many pods should be attached and are not.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How often attaching failed.
    pub(super) fn attach_errors(&self) -> u64 {
        self.attach_errors
    }

    /// Makes what is attached what is wanted, as far as it can be now.
    pub(super) async fn reconcile(
        &mut self,
        desired: &Desired,
        live: &mut Live,
        veths: &PodInterfaces,
        out: &mut impl FnMut(&SessionSpan<'_>),
    ) {
        let attached = self.held.iter().map(|(uid, held)| (uid.clone(), Arc::clone(&held.plan))).collect();
        self.pending.retain(|uid, _| desired.pods.contains_key(uid));
        self.sides.keep(desired);
        // One look at the node's interfaces serves all pods.
        let mut snapshot = None;
        for action in plan::diff(&attached, &desired.pods) {
            match action {
                Action::Detach(uid) => self.detach(&uid, live).await,
                Action::Update(plan) => self.update(plan, live),
                Action::Attach(plan) => {
                    if snapshot.is_none() {
                        match veths.snapshot().await {
                            Ok(taken) => snapshot = Some(taken),
                            Err(error) => self.postpone(&plan, &error.to_string(), false),
                        }
                    }
                    if let Some(snapshot) = &mut snapshot {
                        self.attach(plan, live, snapshot).await;
                    }
                }
            }
            if live.is_due() {
                live.fetch(out);
            }
        }
    }

    async fn attach(&mut self, plan: Arc<PodPlan>, live: &mut Live, interfaces: &mut Snapshot) {
        let (interface, how) = match self.sides.find(interfaces, &wanted(&plan), live).await {
            Ok(found) => (found.interface, found.found),
            Err(error) => return self.postpone(&plan, &error.to_string(), error.is_worth_waiting()),
        };
        if let Some((uid, _)) = self.held.iter().find(|(_, held)| held.interface.id == interface.id) {
            let why = format!("its interface {} still belongs to the pod with UID {uid}", interface.name);
            return self.postpone(&plan, &why, false);
        }
        // An index that comes back before its last packets are in.
        self.retiring.retain(|(_, id)| *id != interface.id);
        match live.attach(&interface, self.names(&plan), &rules(&plan), self.way).await {
            Ok(()) => {
                tracing::debug!("the interface of {}/{} was found by {how}", plan.namespace, plan.name);
                tracing::info!("pod {}/{} is traced at {}", plan.namespace, plan.name, interface.name);
                self.pending.remove(&plan.uid);
                self.held.insert(plan.uid.clone(), Held { plan, interface });
            }
            Err(error) => {
                self.attach_errors += 1;
                // Rules may be in the maps already, and packets under way.
                _ = live.detach(interface.id).await;
                self.retiring.push_back((Instant::now(), interface.id));
                let back = interface.namespace.is_some() && self.sides.fall_back(&plan.uid);
                let then =
                    if back { "; back to the host's end of its veth, where it is seen in part" } else { "" };
                self.postpone(&plan, &format!("{error:#}{then}"), false);
            }
        }
    }

    /// Remembers that a pod is not attached, and says why: once, and if time may mend it only when it has not.
    fn postpone(&mut self, plan: &PodPlan, why: &str, may_pass: bool) {
        let pending = self.pending.entry(plan.uid.clone());
        let pending = pending.or_insert_with(|| Pending { since: Instant::now(), said: String::new() });
        if pending.said != why && (!may_pass || pending.since.elapsed() >= SETUP) {
            tracing::warn!("pod {}/{} is not traced yet: {why}", plan.namespace, plan.name);
            why.clone_into(&mut pending.said);
        }
    }

    fn update(&mut self, plan: Arc<PodPlan>, live: &mut Live) {
        let names = self.names(&plan);
        let Some(held) = self.held.get_mut(&plan.uid) else { return };
        let updated = live.update(held.interface.id, names, &rules(&plan));
        match updated
            .with_context(|| format!("cannot change what is traced of {}/{}", plan.namespace, plan.name))
        {
            // The old plan is kept on an error, so that the next look tries again.
            Err(error) => {
                self.attach_errors += 1;
                tracing::warn!("{error:#}");
            }
            Ok(()) => held.plan = plan,
        }
    }

    async fn detach(&mut self, uid: &str, live: &mut Live) {
        let Some(held) = self.held.remove(uid) else { return };
        let (plan, interface) = (&held.plan, &held.interface);
        match live.detach(interface.id).await {
            Ok(()) => tracing::info!("pod {}/{} is no longer traced", plan.namespace, plan.name),
            Err(error) => tracing::warn!("pod {}/{}: {error}", plan.namespace, plan.name),
        }
        self.retiring.push_back((Instant::now(), interface.id));
    }

    /// An interface is gone, with whatever was on it. Whether it was a pod's.
    pub(super) async fn interface_gone(&mut self, id: u32, live: &mut Live) -> bool {
        let uid = self.held.iter().find(|(_, held)| held.interface.id == id).map(|(uid, _)| uid.clone());
        let Some(uid) = uid else { return false };
        self.detach(&uid, live).await;
        true
    }

    /// Hands on what is open on interfaces that were detached a while ago.
    pub(super) fn retire(&mut self, live: &mut Live, out: &mut impl FnMut(&SessionSpan<'_>)) {
        while let Some((_, id)) = self.retiring.front().copied().filter(|(at, _)| at.elapsed() >= RETIRE) {
            self.retiring.pop_front();
            live.retire(id, out);
        }
    }

    fn names(&self, plan: &PodPlan) -> Names {
        let complete = |resource: &Arc<Resource>| {
            let mut resource = Resource::clone(resource);
            self.environment.complete(&mut resource);
            Arc::new(resource)
        };
        let ports = plan.ports.iter().map(|(number, port)| (*number, complete(&port.resource)));
        Names { ports: ports.collect(), others: complete(&plan.resource) }
    }
}

/// The pod as it is looked for.
pub(super) fn wanted(plan: &PodPlan) -> Wanted<'_> {
    Wanted { uid: &plan.uid, namespace: &plan.namespace, name: &plan.name, addresses: &plan.addresses }
}

/// The plan's rules as the kernel side has them.
fn rules(plan: &PodPlan) -> kernel::Rules {
    kernel::Rules {
        ports: plan.ports.iter().map(|(port, of)| (*port, number(of.protocol))).collect(),
        egress: plan.egress.iter().map(|(target, protocol)| (*target, number(*protocol))).collect(),
    }
}
