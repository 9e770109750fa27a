//! The README's way through a cluster, word for word: apply, three keys in Redis, traces in Jaeger of both sides of a
//! request; what the agent may do; and that removal leaves nothing behind.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::World;
use super::agent::{self, SHOP, WEB, expect};
use crate::cache;
use crate::cluster::NODE_NAME;

/// A client in a namespace that is traced whole, as the README's first key says.
const VISITOR: &str = "visitor";
/// The capabilities NET_ADMIN (12), PERFMON (38) and BPF (39), as a process's `CapEff` shows them.
const CAPABILITIES: &str = "000000c000001000";

pub(super) fn run(world: &mut World) -> Result<()> {
    agent::shop_alone(world)?;
    let sleep = ["--", "/bin/sleep", "2147483647"];
    let image = "--image=clovisor.test/web:1";
    world.kubectl(&[&["create", "deployment", VISITOR, image][..], &sleep].concat())?;
    world.rollout("default", "deployment/visitor")?;
    let before = agent::hooks(world)?;

    let readme = agent::commands("README.md", "Trace a cluster", "kubectl ")?;
    let (forward, setup) = readme.split_last().context("the README has no commands")?;
    ensure!(setup.len() >= 4, "the README has only {} commands", readme.len());
    for command in setup {
        eprintln!("  $ {command}");
        world.cluster.shell(command)?;
    }
    agent::ready(world)?;
    // Two web servers and a visitor.
    agent::interfaces(world, 3)?;
    both_sides(world).context("traces of both sides")?;
    in_metrics(world).context("metrics")?;
    ui(world, forward).context("Jaeger's UI")?;
    rights(world).context("the agent's rights")?;
    own_account(world).context("the agent's status")?;
    removed(world, &before).context("removal")
}

/// One request, seen by both pods.
fn both_sides(world: &mut World) -> Result<()> {
    let answer = world.get_from("default", "deployment/visitor", "http://web.shop/items/first")?;
    ensure!(answer == "GET /items/first\n", "the web server answers {answer:?}");
    let server = agent::found(world, WEB, "/items/first")?;
    let client = agent::found(world, VISITOR, "/items/first")?;
    for (span, namespace, service, kind) in
        [(&server, SHOP, WEB, "server"), (&client, "default", VISITOR, "client")]
    {
        expect(span, "span.kind", kind)?;
        expect(span, "http.request.method", "GET")?;
        expect(span, "http.response.status_code", "200")?;
        expect(span, "clovisor.outcome", "complete")?;
        expect(span, "service.name", service)?;
        expect(span, "k8s.namespace.name", namespace)?;
        expect(span, "k8s.deployment.name", service)?;
        expect(span, "k8s.node.name", NODE_NAME)?;
        let pods = world.kubectl(&["--namespace", namespace, "get", "pods", "--output=name"])?;
        let pod = span["k8s.pod.name"].as_str().unwrap_or_default();
        ensure!(pods.lines().any(|line| line == format!("pod/{pod}")), "there is no pod {pod}");
    }
    // One trace, though the service's address stood between the two.
    let id = |span: &Value, key: &str| span[key].as_str().unwrap_or_default().to_owned();
    expect(&server, "trace.id", &id(&client, "trace.id"))?;
    expect(&server, "parent.id", &id(&client, "span.id"))?;
    ensure!(client["parent.id"].is_null(), "the client's span has a parent: {client}");
    // Nobody traces kubelet, so nothing is said to be above its probes.
    let probes = world.wait_until("Jaeger has spans of kubelet's probes", |world| {
        let all = agent::spans(world, "jaeger-query.clovisor", WEB)?;
        let probes: Vec<_> = all.into_iter().filter(|span| agent::path(span) == "/").collect();
        Ok((!probes.is_empty()).then_some(probes))
    })?;
    ensure!(probes.iter().all(|span| span["parent.id"].is_null()), "a probe's span has a parent: {probes:?}");
    expect(&server, "k8s.container.name", WEB)?;
    expect(&client, "service.peer.name", WEB)?;
    expect(&server, "service.peer.name", VISITOR)
}

/// The same request in the metrics: who asked whom, once, though both sides are traced.
fn in_metrics(world: &World) -> Result<()> {
    let metrics = agent::metrics(world)?;
    let edge = format!(
        "traces_service_graph_request_total{{client=\"{VISITOR}\",server=\"{WEB}\",\
         client_service_namespace=\"default\",server_service_namespace=\"{SHOP}\"}}"
    );
    ensure!(metrics.get(&edge) == Some(&1.0), "{edge} is {:?}", metrics.get(&edge));
    Ok(())
}

/// Jaeger as users see it, through the README's last command, which goes on until it is stopped.
fn ui(world: &mut World, forward: &str) -> Result<()> {
    eprintln!("  $ {forward}");
    let mut command = world.cluster.user("sh");
    command.args(["-c", &format!("exec {forward}")]);
    let _forward =
        world.cluster.node().start("kubectl port-forward", command, &cache::log("e2e/port-forward"))?;
    world.wait_until("Jaeger's UI knows the services", |world| {
        // The page itself is not in a Jaeger that is built from its Go module; what it asks for is.
        world.get("http://localhost:16686/search")?;
        let services = world.get("http://localhost:16686/api/services")?;
        ensure!(services.contains(WEB) && services.contains(VISITOR), "it knows {services}");
        Ok(Some(()))
    })
}

fn rights(world: &mut World) -> Result<()> {
    let list = world.kubectl(&["auth", "can-i", "--list", "--as=system:serviceaccount:clovisor:clovisor"])?;
    // What every service account may: ask what it may, and the public addresses of the API.
    let own = |line: &&str| !line.contains("authorization.k8s.io") && !line.contains("authentication.k8s.io");
    let lines = list.lines().skip(1).filter(own).filter(|line| !line.starts_with(' '));
    let mut found: Vec<_> = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    found.sort();
    let expected = ["pods [] [] [get list watch]", "services [] [] [get list watch]"];
    ensure!(found == expected, "the service account may:\n{list}");

    let effective = agent::capabilities(world)?;
    ensure!(effective == CAPABILITIES, "the agent runs with the capabilities {effective}");
    Ok(())
}

/// The status as deploy/README.md tells users to read it.
fn own_account(world: &mut World) -> Result<()> {
    let commands = agent::commands("deploy/README.md", "Configuration", "kubectl ")?;
    let ask = commands.iter().find(|line| line.contains("hgetall")).context("nothing asks for the status")?;
    let said = world.cluster.shell(&ask.replace("NODE", NODE_NAME))?;
    for field in ["config_version", "applied_at", "pods", "interfaces", "exporter", "spans", "drops"] {
        ensure!(said.lines().any(|line| line == field), "there is no {field} in the status:\n{said}");
    }
    ensure!(!said.contains("error:"), "the README's keys are wrong:\n{said}");
    Ok(())
}

/// By the document's own command; then the node's interfaces are as if the agent had never been.
fn removed(world: &mut World, before: &[String; 2]) -> Result<()> {
    for command in agent::commands("deploy/README.md", "Removal", "kubectl ")? {
        eprintln!("  $ {command}");
        world.cluster.shell(&command)?;
    }
    // The pods of the quickstart take their interfaces with them; it may take a moment.
    world.wait_until("the interfaces are as before", |world| {
        let after = agent::hooks(world)?;
        ensure!(after == *before, "they were\n{}\nand are\n{}", before.join("\n"), after.join("\n"));
        Ok(Some(()))
    })?;
    world.kubectl(&["delete", "deployment", VISITOR]).map(drop)
}
