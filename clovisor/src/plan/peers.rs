//! The other side of a session by its address: a service's cluster address, or a pod of this node.
//!
//! Addresses of pods in the node's own network are left out: they are the node's, and say nothing about who it was.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use clovisor_trace::{Key, Value};

use super::{resource::service_name, services_of};
use crate::cluster::Cluster;

/// A name for an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Name of the service.
    pub service: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What spans say of it.
    attributes: [(Key, Value); 2],
}

impl Peer {
    /// A name.
    #[must_use]
    pub fn new(service: &str, namespace: &str) -> Self {
        let attributes = [
            ("service.peer.name".into(), service.to_owned().into()),
            ("service.peer.namespace".into(), namespace.to_owned().into()),
        ];
        Self { service: service.into(), namespace: namespace.into(), attributes }
    }

    /// What spans say of it.
    #[must_use]
    pub fn attributes(&self) -> &[(Key, Value)] {
        &self.attributes
    }
}

/// Names by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    by_address: HashMap<IpAddr, Peer>,
}

impl Peers {
    /// All addresses in the cluster that have a name.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let mut by_address = HashMap::new();
        let live = cluster.pods.values().filter(|pod| !pod.host_network && !pod.ended);
        for pod in live {
            let service = services_of(cluster, pod).first().copied();
            let peer = Peer::new(service_name(pod, service), &pod.namespace);
            by_address.extend(pod.addresses.iter().map(|address| (*address, peer.clone())));
        }
        for service in cluster.services.values() {
            let peer = Peer::new(&service.name, &service.namespace);
            by_address.extend(service.addresses.iter().map(|address| (*address, peer.clone())));
        }
        Self { by_address }
    }

    /// The name of an address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&Peer> {
        self.by_address.get(&address.to_canonical())
    }
}
