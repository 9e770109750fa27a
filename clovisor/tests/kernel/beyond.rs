//! A third network namespace behind the host's: `far0` in the host leads to it, and the host forwards between it and
//! the pod. So there are packets to the pod that another project's program can take past the host's end of the
//! pod's veth, as it takes those between pods of a cluster. Dropping it removes it.

use std::sync::Arc;

use crate::foreign::Foreign;
use crate::netns::{Net, run, thread_in, try_run};

/// Addresses of the two ends.
const NEAR: &str = "10.77.1.1";
pub(crate) const FAR: &str = "10.77.1.2";

pub(crate) struct Beyond {
    pub(crate) name: String,
}

impl Beyond {
    pub(crate) fn new(net: &Arc<Net>) -> Self {
        let name = format!("{}b", net.host);
        run("ip", &["netns", "add", &name]);
        let beyond = Self { name };
        let name = &beyond.name;
        run(
            "ip",
            &["-n", &net.host, "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", name],
        );
        for (namespace, device, address) in [(&net.host, "far0", NEAR), (name, "eth0", FAR)] {
            run("ip", &["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", device]);
            run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
        run("ip", &["-n", name, "route", "add", "10.77.0.0/24", "via", NEAR]);
        run("ip", &["-n", &net.pod, "route", "add", "10.77.1.0/24", "via", crate::netns::HOST_V4]);
        net.in_host(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        beyond
    }

    /// Delivers what comes from here straight into the pod, past `veth0`. From a thread in the host's namespace.
    pub(crate) fn deliver(net: &Net) -> Foreign {
        let index = net.in_host(&["cat", "/sys/class/net/veth0/ifindex"]);
        Foreign::deliver("far0", index.trim().parse().unwrap())
    }

    /// Runs something on a thread in it, and waits.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        thread_in(&self.name, work).join().unwrap()
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        try_run("ip", &["netns", "del", &self.name]);
    }
}
