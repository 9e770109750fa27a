//! A node with pods, made of network namespaces: one namespace stands for the node and holds a bridge; each pod is a
//! namespace of its own, joined to the bridge by a veth pair. Nothing of the host's own network is touched, and no
//! packet can leave: the namespaces have no way out, and no default route.
//!
//! Names carry our process id, so that two runs do not meet and leftovers of a killed run are known as such. All
//! is taken down on drop.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{self as std_process, Command};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process;
use crate::temp::is_left_over;

/// The interface inside every pod.
pub(crate) const POD_INTERFACE: &str = "eth0";
const BRIDGE: &str = "br0";
/// Where pods' IPv4 addresses begin, and the length of their prefix: a range reserved for documentation (RFC 5737), and where
/// that is too small a part of the one for benchmarks (RFC 2544).
const FEW: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 0, 2, 0), 24);
const MANY: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 16);
/// Most pods of the small range; addresses from there on are left for more addresses of a pod.
const MOST_OF_FEW: usize = 100;
/// Our namespaces are `<tag><process id>-<role>`.
const TAG: &str = "clovisor-";

/// A network namespace of ours.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn create(role: &str) -> Result<Self> {
        let name = format!("{TAG}{}-{role}", std_process::id());
        ip(&["netns", "add", &name])?;
        let this = Self { name };
        this.ip(&["link", "set", "lo", "up"])?;
        Ok(this)
    }

    /// Its name, as in `ip netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its file, for those who want to enter it.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that runs inside. Its process is the program itself: `ip` steps aside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(process::find(program).unwrap_or_else(|| program.into()));
        command
    }

    /// The same with the file systems of outside, as a container on its node's network has them: its control group is among them, which
    /// `ip netns exec` hides.
    pub(crate) fn command_with_files(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs `ip` for this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

/// A pod: its namespace, and the node's end of its veth pair.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its network namespace.
    pub(crate) namespace: Namespace,
    /// The veth in the node's namespace: where the pod's packets pass.
    pub(crate) host_veth: String,
    /// Its IPv4 address.
    pub(crate) ipv4: Ipv4Addr,
    /// Length of the prefix that all pods of the node share.
    prefix: u8,
    /// Its IPv6 address, of the range reserved for documentation (RFC 3849).
    pub(crate) ipv6: Ipv6Addr,
}

impl Pod {
    /// Gives it one more address; one of the same prefix, so that it needs no route.
    pub(crate) fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        let address = format!("{address}/{}", self.prefix);
        self.namespace.ip(&["address", "add", &address, "dev", POD_INTERFACE]).map(drop)
    }

    /// From here on each packet of data is acknowledged at once by a packet of its own, where acknowledgements would wait up to 40 ms for
    /// data to ride on.
    pub(crate) fn acknowledge_at_once(&self) -> Result<()> {
        let network = Ipv4Addr::from_bits(self.ipv4.to_bits() & (u32::MAX << (32 - self.prefix)));
        let (to, own) = (format!("{network}/{}", self.prefix), self.ipv4.to_string());
        let route =
            ["route", "change", &to, "dev", POD_INTERFACE, "proto", "kernel", "scope", "link", "src", &own];
        self.namespace.ip(&[&route[..], &["quickack", "1"]].concat()).map(drop)
    }

    /// Fails unless packets to this address leave by the pod's own interface. Asked before any traffic is sent.
    pub(crate) fn check_route(&self, address: &str) -> Result<()> {
        let route = self.namespace.ip(&["route", "get", address])?;
        let direct = route.contains(&format!(" dev {POD_INTERFACE} ")) && !route.contains(" via ");
        ensure!(direct, "packets to {address} would not stay on {POD_INTERFACE}: {}", route.trim());
        Ok(())
    }
}

/// The node and its pods.
pub(crate) struct Node {
    /// The node's own namespace.
    pub(crate) namespace: Namespace,
    /// The pods, in the order they were asked for.
    pub(crate) pods: Vec<Pod>,
    _cleanup: Cleanup,
}

impl Node {
    /// Builds a node with one pod for each name (at most nine letters, so that `veth-` fits before them).
    pub(crate) fn build(names: &[&str]) -> Result<Self> {
        sweep();
        // Made first, so that a build that fails half way is taken down, too.
        let cleanup = Cleanup;
        let namespace = Namespace::create("node")?;
        namespace
            .ip(&["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])
            .context("cannot make a bridge (does this kernel have the module `bridge`?)")?;
        namespace.ip(&["link", "set", BRIDGE, "up"])?;
        let range = if names.len() <= MOST_OF_FEW { FEW } else { MANY };
        let mut pods = Vec::new();
        for (name, number) in names.iter().zip(1..) {
            let pod = add_pod(&namespace, name, number, range);
            pods.push(pod.with_context(|| format!("cannot make the pod {name}"))?);
        }
        Ok(Self { namespace, pods, _cleanup: cleanup })
    }
}

fn add_pod(node: &Namespace, name: &str, number: u16, (first, prefix): (Ipv4Addr, u8)) -> Result<Pod> {
    let namespace = Namespace::create(name)?;
    let host_veth = format!("veth-{name}");
    let ipv4 = Ipv4Addr::from_bits(first.to_bits() + u32::from(number));
    let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
    let pair =
        ["link", "add", &host_veth, "type", "veth", "peer", "name", POD_INTERFACE, "netns", namespace.name()];
    node.ip(&pair).context("cannot make a veth pair (does this kernel have the module `veth`?)")?;
    node.ip(&["link", "set", &host_veth, "master", BRIDGE, "up"])?;
    if (first, prefix) == MANY {
        // What each says to many (IPv6 asks for routers that way) would come to all the others: as many packets as pods, squared. By
        // this they find each other by IPv4 alone.
        node.ip(&["link", "set", &host_veth, "type", "bridge_slave", "mcast_flood", "off"])?;
    }
    namespace.ip(&["address", "add", &format!("{ipv4}/{prefix}"), "dev", POD_INTERFACE])?;
    // Nobody else is on this bridge, so the address may be used at once.
    namespace.ip(&["address", "add", &format!("{ipv6}/64"), "dev", POD_INTERFACE, "nodad"])?;
    namespace.ip(&["link", "set", POD_INTERFACE, "up"])?;
    Ok(Pod { namespace, host_veth, ipv4, prefix, ipv6 })
}

fn ip(arguments: &[&str]) -> Result<String> {
    process::output(Command::new("ip").args(arguments))
}

/// Takes down what this process made.
struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        let own = std_process::id().to_string();
        take_down(|id| id == own);
    }
}

/// Takes down what runs that were killed left behind.
fn sweep() {
    take_down(is_left_over);
}

/// Removes the namespaces of the processes chosen by id, and ends what still runs inside them.
fn take_down(chosen: impl Fn(&str) -> bool) {
    let list = ip(&["netns", "list"]).unwrap_or_default();
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| owner(name).is_some_and(&chosen)) {
        for pid in ip(&["netns", "pids", name]).unwrap_or_default().lines() {
            // Only a process that was started in a namespace of ours is in it.
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if let Err(error) = ip(&["netns", "delete", name]) {
            eprintln!("warning: cannot remove the network namespace {name}: {error:#}");
        }
    }
}

/// The process id in the name of a namespace of ours.
fn owner(name: &str) -> Option<&str> {
    let (id, _role) = name.strip_prefix(TAG)?.split_once('-')?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("clovisor-123-node"), Some("123"));
        assert_eq!(owner("clovisor-123"), None);
        assert_eq!(owner("cni-0a1b"), None);
    }
}
