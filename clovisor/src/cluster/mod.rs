//! What the cluster is like, as far as it matters here: the pods of this node and the services.
//!
//! The types are plain data, free of the Kubernetes client's; [`pod`] and [`service`] read them from its objects,
//! [`watch`] keeps a [`Cluster`] up to date. It refuses to decide which pods are traced: [`plan`](crate::plan) does.

pub mod pod;
pub mod service;
pub mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// The pods of this node and the services of the cluster, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Pods of this node, by UID.
    pub pods: BTreeMap<String, Arc<Pod>>,
    /// Services, by namespace and name.
    pub services: BTreeMap<(String, String), Arc<Service>>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Unique id, which no later pod of the same name has.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Node that it runs on.
    pub node: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value of the annotation `resource.opentelemetry.io/service.name`.
    pub service_name: Option<String>,
    /// Addresses (`status.podIPs`); none before it is set up.
    pub addresses: Vec<IpAddr>,
    /// Whether it lives in the network namespace of the node.
    pub host_network: bool,
    /// Whether it has run to its end (`Succeeded` or `Failed`).
    pub ended: bool,
    /// What made it: a Deployment, a StatefulSet, …; the top of what can be told without asking for more.
    pub workload: Option<Workload>,
    /// Containers, init containers that go on beside them (sidecars) included.
    pub containers: Vec<Container>,
}

/// What made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind, as Kubernetes writes it: `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `ReplicaSet`, …
    pub kind: String,
    /// Name.
    pub name: String,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image, as the pod's specification names it.
    pub image: Option<String>,
    /// TCP ports that it declares.
    pub ports: Vec<ContainerPort>,
}

/// A TCP port that a container declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name, by which services may call it.
    pub name: Option<String>,
    /// Number.
    pub number: u16,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels that its pods have; empty selects none (its endpoints are made by hand).
    pub selector: BTreeMap<String, String>,
    /// Cluster addresses; none if headless.
    pub addresses: BTreeSet<IpAddr>,
    /// TCP ports.
    pub ports: Vec<ServicePort>,
}

/// A TCP port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, in Istio's form `<protocol>[-<suffix>]`.
    pub name: Option<String>,
    /// `appProtocol`, which goes before the name.
    pub app_protocol: Option<String>,
    /// Port at the service's address.
    pub port: u16,
    /// Port at the pod.
    pub target: TargetPort,
}

/// Port at the pod: by number, or by the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By name; what it means differs from pod to pod.
    Name(String),
}
