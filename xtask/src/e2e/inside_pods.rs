//! A pod without a veth is traced inside its network namespace by the overlay `pod-side`: under containerd's own
//! seccomp profile, through the folder of namespaces as the manifest mounts it, with the one right that it adds.

use anyhow::{Context, Result, ensure};

use super::World;
use super::agent::{self, SHOP, expect};
use crate::workspace;

const OVERLAY: &str = "deploy/overlays/pod-side";
/// Gives the pod of namespace `$1` and address `$2` a macvlan in the place of its veth pair, as a CNI with macvlans
/// does, and the node another, by which it reaches the pod.
const WITHOUT_VETH: &str = "
    ip link add base0 type veth peer name base1
    ip link add link base0 name host0 type macvlan mode bridge
    for link in base0 base1 host0; do ip link set $link up; done
    gateway=$(ip -n $1 -o route show default | sed 's/.*via \\([^ ]*\\).*/\\1/')
    ip -n $1 link delete eth0
    ip link add link base0 name pod0 type macvlan mode bridge
    ip link set pod0 netns $1 name eth0
    ip -n $1 address add $2/32 dev eth0
    ip -n $1 link set eth0 up
    ip -n $1 route add $gateway dev eth0
    ip -n $1 route add default via $gateway
    ip route add $2 dev host0";

pub(super) fn run(world: &mut World) -> Result<()> {
    agent::shop_alone(world)?;
    world.kubectl(&["--namespace", SHOP, "scale", "deployment/web", "--replicas=1"])?;
    agent::serving(world, 1)?;
    let address = world.kubectl(&[
        "--namespace",
        SHOP,
        "get",
        "pods",
        "--selector=app=web",
        "--output=jsonpath={.items[0].status.podIP}",
    ])?;
    let namespace = namespace_of(world, &address)?;
    let node = world.cluster.node();
    node.output("sh", &["-e", "-c", WITHOUT_VETH, "sh", &namespace, &address])?;
    let inside_before = node.output("tc", &["-netns", &namespace, "qdisc", "show"])?;

    for overlay in [agent::QUICKSTART, OVERLAY] {
        world.kubectl(&["apply", "--kustomize", &workspace::root().join(overlay).display().to_string()])?;
    }
    agent::ready(world)?;
    let rights = agent::capabilities(world)?;
    ensure!(rights == agent::WITH_SYS_ADMIN, "the agent runs with the capabilities {rights}");
    agent::configure(world)?;
    world.wait_until("the client is traced at the node, the web server inside", |world| {
        let metrics = agent::metrics(world)?;
        let of =
            |side: &str| metrics.get(&format!("clovisor_interfaces_attached{{side=\"{side}\"}}")).copied();
        let found = (of("host"), of("pod"));
        ensure!(found == (Some(1.0), Some(1.0)), "there are {found:?} interfaces traced");
        Ok(Some(()))
    })?;
    let inside = world.cluster.node().output("tc", &["-netns", &namespace, "qdisc", "show"])?;
    ensure!(inside.contains("clsact"), "the kernel knows of nothing inside:\n{inside}");
    agent::request(world, "inside", 10)?;
    agent::arrived(world, "inside", 10)?;
    let span = agent::found(world, agent::WEB, "/items/inside-10")?;
    expect(&span, "k8s.namespace.name", SHOP)?;

    world.kubectl(&["delete", "--kustomize", &workspace::root().join(OVERLAY).display().to_string()])?;
    let after = world.cluster.node().output("tc", &["-netns", &namespace, "qdisc", "show"])?;
    ensure!(after == inside_before, "inside there were\n{inside_before}\nand are\n{after}");
    world.kubectl(&["--namespace", SHOP, "delete", "deployment/web", "--wait"])?;
    world.cluster.node().output("ip", &["link", "delete", "base0"]).map(drop)
}

/// The name of the network namespace of the pod with this address.
fn namespace_of(world: &World, address: &str) -> Result<String> {
    let node = world.cluster.node();
    let all = node.output("ip", &["netns", "list"])?;
    let names = all.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with("cni-")) {
        if node.output("ip", &["-n", name, "address", "show"])?.contains(&format!("inet {address}/")) {
            return Ok(name.to_owned());
        }
    }
    None.with_context(|| format!("no network namespace has the address {address}"))
}
