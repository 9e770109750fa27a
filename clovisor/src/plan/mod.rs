//! What should be traced: configuration and cluster in, wanted attachments out; a [`diff`] gives actions.
//!
//! It is pure: no kernel, no clock, no network. Every rule that users are told is a row of a table in `tests`.
//!
//! - [`ports`]: which ports of a pod, and their protocols, from services and containers.
//! - [`resource`]: the names that a pod's spans carry.
//! - [`peers`]: the names of the other side.

mod diff;
pub mod peers;
mod ports;
mod resource;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use clovisor_trace::{Protocol, Resource};

use crate::{
    cluster::{Cluster, Pod, Service},
    config::{Config, EgressTarget, LabelRule},
};

pub use diff::{Action, diff};
pub use peers::{Peer, Peers};

/// Namespace whose pods are monitored where nothing is configured.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What the plan is made from, beside configuration and cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Name of the cluster, for `k8s.cluster.name`.
    pub cluster_name: Option<String>,
}

/// What should be traced on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Pods to attach to, by UID.
    pub pods: BTreeMap<String, Arc<PodPlan>>,
    /// Pods that the configuration asks for and that cannot be traced, with the reason.
    pub skipped: BTreeSet<Skipped>,
}

/// How one pod is to be traced.
#[derive(Clone, Debug, PartialEq)]
pub struct PodPlan {
    /// Unique id of the pod.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
    /// Ports that it listens on.
    pub ports: BTreeMap<u16, PortPlan>,
    /// Outbound targets (no address: any) and their protocols.
    pub egress: BTreeMap<(Option<IpAddr>, u16), Protocol>,
    /// Whose spans those of its outbound sessions are.
    pub resource: Arc<Resource>,
}

/// How one listening port is to be traced.
#[derive(Clone, Debug, PartialEq)]
pub struct PortPlan {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whose spans its sessions are.
    pub resource: Arc<Resource>,
}

/// A pod that is not traced although the configuration asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// Why a pod is not traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It shares the node's network namespace: it has no interface of its own.
    HostNetwork,
    /// It has no TCP port, and no egress rule is for it.
    NothingToTrace,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "it is in the node's own network (hostNetwork), where it has no veth",
            Self::NothingToTrace => {
                "it declares no TCP port, no service leads to it, and no egress rule is for it"
            }
        })
    }
}

/// What should be traced.
#[must_use]
pub fn desire(config: &Config, cluster: &Cluster, setting: &Setting) -> Desired {
    let mut desired = Desired::default();
    let live = cluster.pods.values().filter(|pod| !pod.ended);
    for pod in live.filter(|pod| is_monitored(&config.labels, pod)) {
        let mut skip = |reason| {
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            desired.skipped.insert(Skipped { namespace, name, reason });
        };
        if pod.host_network {
            skip(Reason::HostNetwork);
            continue;
        }
        let plan = plan(pod, &services_of(cluster, pod), &config.egress, setting);
        if plan.ports.is_empty() && plan.egress.is_empty() {
            skip(Reason::NothingToTrace);
            continue;
        }
        desired.pods.insert(pod.uid.clone(), Arc::new(plan));
    }
    desired
}

fn plan(pod: &Pod, services: &[&Service], egress: &[EgressTarget], setting: &Setting) -> PodPlan {
    let ports = ports::of(pod, services).into_iter().map(|(number, port)| {
        let service = port.service.or(services.first().copied());
        let resource = Arc::new(resource::of(pod, service, port.container, setting));
        (number, PortPlan { protocol: port.protocol, resource })
    });
    let only = match pod.containers.as_slice() {
        [only] => Some(only.name.as_str()),
        _ => None,
    };
    PodPlan {
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        addresses: pod.addresses.clone(),
        ports: ports.collect(),
        egress: egress_of(egress, pod),
        resource: Arc::new(resource::of(pod, services.first().copied(), only, setting)),
    }
}

/// Whether the configured labels ask for the pod.
fn is_monitored(rules: &[LabelRule], pod: &Pod) -> bool {
    if rules.is_empty() {
        return pod.namespace == DEFAULT_NAMESPACE;
    }
    rules.iter().any(|rule| {
        let has = |(key, value): &(String, String)| pod.labels.get(key) == Some(value);
        rule.namespace == pod.namespace && rule.label.as_ref().is_none_or(has)
    })
}

/// The services that lead to the pod, by name; `default/kubernetes`, the API server's own, is left out.
fn services_of<'a>(cluster: &'a Cluster, pod: &Pod) -> Vec<&'a Service> {
    let first = (pod.namespace.clone(), String::new());
    let in_namespace =
        cluster.services.range(first..).take_while(|((namespace, _), _)| *namespace == pod.namespace);
    let is_api_server =
        |service: &Service| service.namespace == DEFAULT_NAMESPACE && service.name == "kubernetes";
    let leads = |service: &&Service| {
        let mut selector = service.selector.iter();
        // An empty selector selects no pod.
        !is_api_server(service)
            && selector.len() > 0
            && selector.all(|(key, value)| pod.labels.get(key) == Some(value))
    };
    in_namespace.map(|(_, service)| &**service).filter(leads).collect()
}

/// The outbound targets that are for the pod. Where two rules name the same one, the one that parses more wins.
fn egress_of(rules: &[EgressTarget], pod: &Pod) -> BTreeMap<(Option<IpAddr>, u16), Protocol> {
    let mut targets = BTreeMap::new();
    let is_for = |rule: &&EgressTarget| match &rule.pod_prefix {
        Some(prefix) => pod.name.starts_with(prefix.as_str()),
        None => true,
    };
    for rule in rules.iter().filter(is_for) {
        let protocol = targets.entry((rule.address, rule.port)).or_insert(rule.protocol);
        *protocol = rule.protocol.min(*protocol);
    }
    targets
}
