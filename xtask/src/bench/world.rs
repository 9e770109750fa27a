//! Where the runs happen: the [server](super::server) in one namespace or many, the [clients](super::client) in another, and the
//! node between them.
//!
//! Before anything is sent it is checked that packets to each server stay on the client's interface.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::client::Clients;
use super::server;
pub(crate) use super::server::PORT;
use crate::netns::{Node, POD_INTERFACE, Pod};
use crate::process::Running;

/// The client's address behind its own is this much higher, and those behind it follow; one node has not so many pods, or its client
/// no more addresses.
const MORE_ADDRESSES: u32 = 100;

/// Programs that runs take.
#[derive(Clone)]
pub(crate) struct Programs {
    pub(crate) clovisor: PathBuf,
    pub(crate) load: PathBuf,
    /// Only where spans are sent by OTLP.
    pub(crate) receiver: Option<PathBuf>,
}

/// How large a world is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Pods in which the server listens.
    pub(crate) pods: u16,
    /// Processes at each end of connections: workers of the server, and clients.
    pub(crate) processes: u32,
    /// Addresses of the client. Each has 28,000 ports by default for each server.
    pub(crate) addresses: u32,
    /// Whether data is acknowledged at once, so that a request has as many packets however long its connection waits for the next.
    pub(crate) at_once: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { pods: 1, processes: 1, addresses: 5, at_once: false }
    }
}

/// What all runs share.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) dir: PathBuf,
    pub(crate) programs: Programs,
    size: Size,
    _server: Running,
}

/// What clients are to do.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    pub(crate) connections: u32,
    /// Requests a second; 0 is as fast as it goes.
    pub(crate) rate: u32,
    pub(crate) seconds: u16,
    /// How many responses are wanted, of [`server::LONG`] bytes each; by default short ones until the time is over.
    pub(crate) long: Option<u64>,
}

impl World {
    /// Makes the node, and starts the server.
    pub(crate) fn new(dir: &Path, programs: Programs, size: Size) -> Result<Self> {
        let servers =
            (1..=size.pods).map(|number| if size.pods == 1 { "server".into() } else { format!("p{number}") });
        let names: Vec<String> = servers.chain(["client".into()]).collect();
        let node = Node::build(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let (client, servers) = node.pods.split_last().context("a node has pods")?;
        for address in addresses(client, size.addresses).skip(1) {
            client.add_address(address)?;
        }
        for pod in node.pods.iter().filter(|_| size.at_once) {
            pod.acknowledge_at_once()?;
        }
        for server in servers {
            client.check_route(&server.ipv4.to_string())?;
        }
        let server = server::start(servers, size.processes, dir)?;
        Ok(Self { node, dir: dir.to_owned(), programs, size, _server: server })
    }

    /// The node's ends of the servers' veth pairs, where tracers listen.
    pub(crate) fn veths(&self) -> impl Iterator<Item = &str> {
        self.servers().iter().map(|pod| pod.host_veth.as_str())
    }

    /// The first of them, which is the only one but for runs with many pods.
    pub(crate) fn veth(&self) -> &str {
        &self.node.pods[0].host_veth
    }

    /// Packets that have passed them so far, as the network stack hands them over: both ways, whoever they are of.
    pub(crate) fn packets(&self) -> Result<u64> {
        let links = self.node.namespace.ip(&["-s", "-json", "link", "show"])?;
        let links: Vec<Value> = serde_json::from_str(&links).context("what ip says of links")?;
        let is_one = |link: &&Value| self.veths().any(|veth| link["ifname"] == veth);
        let packets = |link: &Value| {
            ["/stats64/rx/packets", "/stats64/tx/packets"].map(|place| link.pointer(place)?.as_u64())
        };
        let all = links.iter().filter(is_one).flat_map(packets).collect::<Option<Vec<u64>>>();
        Ok(all.context("ip says no counts of packets")?.iter().sum())
    }

    fn servers(&self) -> &[Pod] {
        &self.node.pods[..usize::from(self.size.pods)]
    }

    /// Clients with their connections open, that have asked nothing yet. Connections and requests are spread evenly over the
    /// servers and over the clients.
    pub(crate) fn open(&self, task: Task) -> Result<Clients> {
        let client = self.node.pods.last().context("a node has pods")?;
        let processes = self.size.processes.min(task.connections).max(1);
        let commands = (0..processes).map(|number| {
            let first = |number| share(task.connections, 0, number, processes);
            let (from, until) = (first(number), first(number + 1));
            // As many requests for each connection, whichever client's it is.
            let rate = share(task.rate, from, until, task.connections).max(task.rate.min(1));
            let own = Task { connections: until - from, rate, ..task };
            (own.connections, self.command(client, own, number))
        });
        Clients::start(commands.collect())
    }

    /// One client; its requests have a path of its own, since each client numbers them anew.
    fn command(&self, client: &Pod, task: Task, number: u32) -> Command {
        let mut command = client.namespace.command(&self.programs.load.to_string_lossy());
        command.args(["--device", POD_INTERFACE, "--connections", &task.connections.to_string()]);
        command.args(["--rate", &task.rate.to_string(), "--seconds", &task.seconds.to_string()]);
        for server in self.servers() {
            command.args(["--to", &format!("{}:{PORT}", server.ipv4)]);
        }
        for address in addresses(client, self.size.addresses) {
            command.args(["--from", &address.to_string()]);
        }
        match task.long {
            Some(requests) => command.args(["--path", "/body/", "--requests", &requests.to_string()]),
            None if number > 0 => command.args(["--path", &format!("/item/{number}/")]),
            None => &mut command,
        };
        command
    }
}

/// What the parts from one to another get of a whole that is dealt out evenly.
fn share(of: u32, from: u32, until: u32, parts: u32) -> u32 {
    let before = |part: u32| u64::from(of) * u64::from(part) / u64::from(parts.max(1));
    u32::try_from(before(until) - before(from)).unwrap_or(of)
}

/// So many addresses of a client, its own first.
fn addresses(client: &Pod, count: u32) -> impl Iterator<Item = Ipv4Addr> {
    let own = client.ipv4.to_bits();
    (0..count)
        .map(move |number| Ipv4Addr::from_bits(own + number + if number == 0 { 0 } else { MORE_ADDRESSES }))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_whole_is_dealt_out_evenly_and_in_full() {
        let shares: Vec<u32> = (0..6).map(|part| share(100_000, part, part + 1, 6)).collect();
        assert_eq!(shares.iter().sum::<u32>(), 100_000);
        assert!(shares.iter().all(|share| (16_666..=16_667).contains(share)), "{shares:?}");
        assert_eq!([share(10, 0, 1, 3), share(10, 0, 3, 3), share(0, 0, 1, 3)], [3, 10, 0]);
    }
}
