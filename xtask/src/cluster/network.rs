//! The cluster's network: the node's own interface, and outside of it one other host. There is no way to anywhere else:
//! the node's default route leads to that host, which forwards nothing.
//!
//! ```text
//! pods 10.244.0.0/24 -- veth each -- node 198.51.100.2 == 198.51.100.1 outside host, also 203.0.113.10
//! ```
//! The addresses of node and outside host are of ranges reserved for documentation (RFC 5737).

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::sandbox::Sandbox;

/// The node's address.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// An address outside the cluster, which pods reach through the node's address translation.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The outside host's namespace, inside the sandbox.
pub(super) const OUTSIDE_NAMESPACE: &str = "outside";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The range that pods have their addresses of.
pub(super) const PODS: &str = "10.244.0.0/24";
/// The range of services, and the one that resolves names.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The address of the API server's service: the first of its range.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The name server's service, as pods know it.
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Makes the node's interface and the outside host.
pub(super) fn build(sandbox: &Sandbox) -> Result<()> {
    let ip = |line: &str| sandbox.output("ip", &line.split(' ').collect::<Vec<_>>());
    ip("link set lo up")?;
    ip(&format!("netns add {OUTSIDE_NAMESPACE}"))?;
    ip(&format!("link add eth0 type veth peer name eth0 netns {OUTSIDE_NAMESPACE}"))
        .context("cannot make a veth pair (does this kernel have the module `veth`?)")?;
    ip(&format!("address add {NODE}/24 dev eth0"))?;
    ip("link set eth0 up")?;
    // The kernel looks for a route before kube-proxy's rules see a packet for a service, so there must be one.
    ip(&format!("route add default via {GATEWAY}"))?;
    for line in [
        "link set lo up".to_owned(),
        format!("address add {GATEWAY}/24 dev eth0"),
        format!("address add {OUTSIDE}/32 dev lo"),
        "link set eth0 up".to_owned(),
    ] {
        ip(&format!("-n {OUTSIDE_NAMESPACE} {line}"))?;
    }
    sandbox.enter(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot turn the node into a router")
    })
}

/// How containerd connects a pod: a veth pair of its own to the node, which routes. Without a bridge no packet
/// between two pods can pass by kube-proxy's rules, whatever the kernel's bridge does about them.
pub(super) fn cni() -> serde_json::Value {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": true,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": PODS }]],
                    "routes": [{ "dst": "0.0.0.0/0" }]
                }
            },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    })
}
