//! What users ask for, live from Redis: which pods, which outbound targets, and where traces go.
//!
//! [`parse`] reads the entries as people write them; [`redis`] keeps a [`Config`] up to date and answers with the
//! agent's status. It refuses to know the cluster: what a configuration means for the pods of a node is
//! `plan`'s.

pub mod parse;
pub mod redis;

use std::net::IpAddr;

use clovisor_trace::Protocol;

use crate::export::Address;

/// Everything that is configured live.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// Pods to monitor, OR-ed. Empty means all pods of namespace `default`, as in the original.
    pub labels: Vec<LabelRule>,
    /// Outbound targets to trace.
    pub egress: Vec<EgressTarget>,
    /// Where traces go; `None` leaves it to the agent's default.
    pub traces: Option<Address>,
}

/// Pods of a namespace, or those of them that have a label: `<namespace>[:<label key>:<label value>]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelRule {
    /// The namespace.
    pub namespace: String,
    /// Key and value that a pod must have.
    pub label: Option<(String, String)>,
}

/// An outbound target: `<IP>:<port>[=<protocol>][:<pod name prefix>]`; IP `0` means any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EgressTarget {
    /// Remote address; `None` means any.
    pub address: Option<IpAddr>,
    /// Remote TCP port.
    pub port: u16,
    /// How its connections are parsed; HTTP unless the entry says otherwise.
    pub protocol: Protocol,
    /// Only for pods whose name starts with it.
    pub pod_prefix: Option<String>,
}
