//! Two nodes with a pod each, as four network namespaces, and the path between the nodes:
//!
//! ```text
//! client's pod  eth0 ── veth0  client's node  tun0 ── path ── tun0  server's node  veth0 ── eth0  server's pod
//! ```
//! Pods have no default route, only one to the test's own networks. Dropping removes all.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    netns::{run, thread_in, try_run},
    path::{self, Harm, Path},
    program::Program,
};

/// Addresses of one IP version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The client's pod.
    pub(crate) client: &'static str,
    /// Its node, on the path.
    pub(crate) client_node: &'static str,
    /// The server's pod.
    pub(crate) server: &'static str,
    /// No interface has it, as it is with the addresses of Kubernetes' services.
    pub(crate) service: &'static str,
}
pub(crate) const V4: Addresses =
    Addresses { client: "10.78.1.2", client_node: "10.78.0.1", server: "10.78.2.2", service: "10.78.96.10" };
pub(crate) const V6: Addresses =
    Addresses { client: "fd78:1::2", client_node: "fd78::1", server: "fd78:2::2", service: "fd78:96::10" };
/// Where servers listen.
pub(crate) const PORT: u16 = 8080;

/// The four namespaces; the names of namespaces, in the order of the drawing.
pub(crate) struct Nodes {
    pub(crate) client: String,
    pub(crate) client_node: String,
    pub(crate) server_node: String,
    pub(crate) server: String,
}

impl Nodes {
    /// Makes them with interfaces of this MTU, and starts the path between them.
    pub(crate) fn new(mtu: u32, harm: Harm, seed: u64) -> (Self, Path) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("cvd{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let [client, client_node, server_node, server] =
            ["c", "cn", "sn", "s"].map(|role| format!("{unique}{role}"));
        let nodes = Self { client, client_node, server_node, server };
        for name in nodes.names() {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let ends = [(&nodes.client_node, &nodes.client, 1, 2), (&nodes.server_node, &nodes.server, 2, 1)]
            .map(|(node, pod, own, other)| {
                let end = thread_in(node, || {
                    let end = path::tun("tun0");
                    for (setting, value) in [
                        ("ipv4/ip_forward", "1"),
                        ("ipv6/conf/all/forwarding", "1"),
                        // A pod that asks itself is sent back to where it came from, which is meant so.
                        ("ipv4/conf/all/send_redirects", "0"),
                    ] {
                        std::fs::write(format!("/proc/sys/net/{setting}"), value).unwrap();
                    }
                    end
                })
                .join()
                .unwrap();
                join(node, pod, own, other, mtu);
                end
            });
        let path = Path::start(ends, harm, seed);
        (nodes, path)
    }

    fn names(&self) -> [&String; 4] {
        [&self.client, &self.client_node, &self.server_node, &self.server]
    }

    /// Runs a command in a namespace to its end and returns what it wrote.
    pub(crate) fn run(namespace: &str, command: &[&str]) -> String {
        run("ip", &[&["netns", "exec", namespace], command].concat())
    }

    /// Starts `clovisor trace` at the client's node or the server's, on the host's end of the pod's veth.
    pub(crate) fn trace(node: &str, arguments: &[&str]) -> Program {
        // Buffers of such a size lose nothing, however late the tracer gets its turn.
        let arguments = [&["-i", "veth0", "--buffer", "32", "--header", "x-answers"], arguments].concat();
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let start = move || Program::trace(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        thread_in(node, start).join().unwrap()
    }

    /// Whether the client's way to an address is the test's own, which is looked at before anything is sent.
    pub(crate) fn assert_route(&self, address: &str) {
        let route = Self::run(&self.client, &["ip", "route", "get", address]);
        assert!(route.contains("dev eth0"), "{route}");
    }
}

/// Joins pod and node, and node and path.
fn join(node: &str, pod: &str, own: u8, other: u8, mtu: u32) {
    let mtu = mtu.to_string();
    let ip = |namespace: &str, words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        run("ip", &[&["-n", namespace], &words[..]].concat());
    };
    ip(node, &format!("link add veth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {pod}"));
    for (namespace, device, v4, v6) in [
        (pod, "eth0", format!("10.78.{own}.2/24"), format!("fd78:{own}::2/64")),
        (node, "veth0", format!("10.78.{own}.1/24"), format!("fd78:{own}::1/64")),
        (node, "tun0", format!("10.78.0.{own}/24"), format!("fd78::{own}/64")),
    ] {
        ip(namespace, &format!("addr add {v4} dev {device}"));
        // An interface of less than 1280 bytes has no IPv6 (RFC 8200 section 5).
        if mtu.parse::<u32>().unwrap() >= 1280 {
            ip(namespace, &format!("addr add {v6} dev {device} nodad"));
        }
        ip(namespace, &format!("link set {device} mtu {mtu} up"));
    }
    ip(pod, &format!("route add 10.78.0.0/16 via 10.78.{own}.1"));
    ip(node, &format!("route add 10.78.{other}.0/24 dev tun0"));
    if mtu.parse::<u32>().unwrap() >= 1280 {
        ip(pod, &format!("route add fd78::/16 via fd78:{own}::1"));
        ip(node, &format!("route add fd78:{other}::/64 dev tun0"));
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for name in self.names() {
            try_run("ip", &["netns", "del", name]);
        }
    }
}

/// A program that runs in a namespace until dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(namespace: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(thread_in(namespace, move || command.spawn().unwrap()).join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx's master ends its worker on SIGTERM, not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap_or(i32::MAX));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.0.wait().ok();
    }
}
