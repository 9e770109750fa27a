//! The README's way through a cluster: apply, three keys in Redis, traces in Jaeger; then what users change live, what
//! dies, and that nothing stays behind.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{World, images};
use crate::cluster::{NODE_NAME, OUTSIDE};
use crate::verbs::image;
use crate::workspace;

const SHOP: &str = "shop";
const CLIENT: &str = "deployment/client";
const AGENT: &str = "daemonset/clovisor";
/// The capabilities NET_ADMIN (12), PERFMON (38) and BPF (39), as a process's `CapEff` shows them.
const CAPABILITIES: &str = "000000c000001000";

pub(super) fn run(world: &mut World) -> Result<()> {
    let image = image::build(concat!("clovisor:", env!("CARGO_PKG_VERSION")))?;
    world.cluster.load_image(&image)?;
    make_room(world)?;
    let before = attached(world)?;
    ensure!(before.is_empty(), "there is a clsact before the agent: {before}");
    world.apply(include_str!("manifests/web.yaml"), &[])?;
    for workload in ["deployment/web", CLIENT] {
        world.rollout(SHOP, workload)?;
    }
    let manifest = quickstart(world)?;
    world.apply(
        &manifest,
        &[("redis:7.4-alpine", images::REDIS), ("jaegertracing/all-in-one:1.62.0", images::JAEGER)],
    )?;
    for (namespace, workload) in
        [("clover-system", "deployment/redis"), ("clovisor", "deployment/jaeger"), ("clovisor", AGENT)]
    {
        world.rollout(namespace, workload)?;
    }
    both_sides(world).context("traces of both sides")?;
    rights(world).context("the agent's rights")?;
    out_of_the_cluster(world).context("an egress rule with an address")?;
    wrong_entries(world).context("a wrong entry")?;
    labels(world).context("labels changed live")?;
    pods_come_and_go(world).context("pods come and go")?;
    killed(world).context("kill -9")?;
    removed(world, &manifest).context("kubectl delete")
}

/// Other scenarios deploy a Redis and a Jaeger of their own.
fn make_room(world: &World) -> Result<()> {
    world.kubectl(&["delete", "namespace", "clovisor", "clover-system", "--ignore-not-found"]).map(drop)
}

fn quickstart(world: &World) -> Result<String> {
    let folder = workspace::root().join("deploy/overlays/quickstart");
    world.kubectl(&["kustomize", &folder.display().to_string()])
}

/// The README's three keys, and one request seen from both ends.
fn both_sides(world: &mut World) -> Result<()> {
    world.redis(&["set", "clovisor_labels", SHOP])?;
    world.redis(&["set", "clovisor_egress_match", "0:80:client"])?;
    world.redis(&["set", "clovisor_jaeger_server", "jaeger-collector.clovisor:4317"])?;
    // Two of the server, one of the client.
    interfaces(world, 3)?;
    let (server, client) = session(world, "http://web/items/first", "/items/first")?;
    for (span, service, kind) in [(&server, "web", "server"), (&client, "client", "client")] {
        expect(span, "span.kind", kind)?;
        expect(span, "http.request.method", "GET")?;
        expect(span, "http.response.status_code", "200")?;
        expect(span, "clovisor.outcome", "complete")?;
        expect(span, "service.name", service)?;
        expect(span, "k8s.namespace.name", SHOP)?;
        expect(span, "k8s.deployment.name", service)?;
        expect(span, "k8s.container.name", service)?;
        expect(span, "k8s.node.name", NODE_NAME)?;
    }
    expect(&client, "service.peer.name", "web")?;
    expect(&server, "service.peer.name", "client")
}

fn rights(world: &mut World) -> Result<()> {
    let list = world.kubectl(&["auth", "can-i", "--list", "--as=system:serviceaccount:clovisor:clovisor"])?;
    // What every service account may: ask what it may, and the public addresses of the API.
    let own = |line: &&str| !line.contains("authorization.k8s.io") && !line.contains("authentication.k8s.io");
    let mut lines = list.lines().skip(1).filter(own).filter(|line| !line.starts_with(' '));
    let of = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let mut found: Vec<_> = lines.by_ref().map(of).collect();
    found.sort();
    let expected = ["pods [] [] [get list watch]", "services [] [] [get list watch]"];
    ensure!(found == expected, "the service account may:\n{list}");

    let status = world.cluster.node().output("cat", &[&format!("/proc/{}/status", agent(world)?)])?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
    ensure!(effective == CAPABILITIES, "the agent runs with the capabilities {effective}");
    Ok(())
}

fn out_of_the_cluster(world: &mut World) -> Result<()> {
    world.redis(&["set", "clovisor_egress_match", &format!("{OUTSIDE}:80:client")])?;
    applied(world, "the egress rule", "config_version")?;
    let url = format!("http://{OUTSIDE}/items/outside");
    world.get_from(SHOP, CLIENT, &url)?;
    let span = found(world, "client", "/items/outside")?;
    expect(&span, "url.full", &url)?;
    world.redis(&["set", "clovisor_egress_match", "0:80:other"])?;
    interfaces(world, 2)
}

fn wrong_entries(world: &mut World) -> Result<()> {
    world.redis(&["set", "clovisor_egress_match", "0:80:client,somewhere:80"])?;
    interfaces(world, 3)?;
    world.wait_until("the wrong entry is reported", |world| {
        let said = status(world, "error:clovisor_egress_match")?;
        Ok(said.contains("somewhere:80").then_some(()))
    })
}

fn labels(world: &mut World) -> Result<()> {
    for (labels, count) in [("default", 0), ("shop:app:web", 2), ("other,shop:app:client", 1), (SHOP, 3)] {
        world.redis(&["set", "clovisor_labels", labels])?;
        interfaces(world, count).with_context(|| format!("with {labels}"))?;
    }
    Ok(())
}

fn pods_come_and_go(world: &mut World) -> Result<()> {
    for replicas in [8, 0, 2] {
        let replicas_of = format!("--replicas={replicas}");
        world.kubectl(&["--namespace", SHOP, "scale", "deployment/web", &replicas_of])?;
        interfaces(world, replicas + 1)?;
    }
    world.rollout(SHOP, "deployment/web")?;
    session(world, "http://web/items/rescaled", "/items/rescaled").map(drop)
}

fn killed(world: &mut World) -> Result<()> {
    let first = agent(world)?;
    world.cluster.node().output("kill", &["-9", &first])?;
    world.wait_until("the agent runs again", |world| Ok((agent(world)? != first).then_some(())))?;
    world.rollout("clovisor", AGENT)?;
    interfaces(world, 3)?;
    session(world, "http://web/items/after-kill", "/items/after-kill").map(drop)
}

fn removed(world: &mut World, manifest: &str) -> Result<()> {
    let file = world.cluster.node().dir().join("quickstart.yaml");
    std::fs::write(&file, manifest).with_context(|| format!("cannot write {}", file.display()))?;
    world.kubectl(&["delete", "--filename", &file.display().to_string()])?;
    let after = attached(world)?;
    ensure!(after.is_empty(), "after the agent there is still: {after}");
    Ok(())
}

/// A request of the client pod, and its spans: the server's and the client's.
fn session(world: &mut World, url: &str, path: &str) -> Result<(Value, Value)> {
    let answer = world.get_from(SHOP, CLIENT, url)?;
    ensure!(answer == format!("GET {path}\n"), "{url} answers {answer:?}");
    Ok((found(world, "web", path)?, found(world, "client", path)?))
}

/// The span of a service with this path or URL: its tags and those of its process, by key, as Jaeger has them.
fn found(world: &mut World, service: &str, path: &str) -> Result<Value> {
    world.wait_until(&format!("Jaeger has {path} of {service}"), |world| {
        let traces = world.jaeger(&format!("traces?service={service}&limit=200"))?;
        let traces = traces.as_array().into_iter().flatten();
        let spans = traces.flat_map(|trace| {
            let spans = trace["spans"].as_array().into_iter().flatten();
            spans.map(|span| {
                let process = &trace["processes"][span["processID"].as_str().unwrap_or_default()];
                let tags =
                    [&span["tags"], &process["tags"]].map(|tags| tags.as_array().into_iter().flatten());
                let mut all: serde_json::Map<String, Value> = tags
                    .into_iter()
                    .flatten()
                    .map(|tag| (tag["key"].as_str().unwrap_or_default().to_owned(), tag["value"].clone()))
                    .collect();
                all.insert("service.name".to_owned(), process["serviceName"].clone());
                Value::Object(all)
            })
        });
        let has = |span: &Value, key: &str| span[key].as_str().is_some_and(|value| value.ends_with(path));
        let mut spans = spans.filter(|span| span["service.name"] == service);
        Ok(spans.find(|span| has(span, "url.path") || has(span, "url.full")))
    })
}

fn expect(span: &Value, key: &str, value: &str) -> Result<()> {
    let found = match &span[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ensure!(found == value, "{key} is {found}, not {value}, in {span}");
    Ok(())
}

/// A field of the agent's status in Redis.
fn status(world: &World, field: &str) -> Result<String> {
    world.redis(&["hget", &format!("clovisor_status:{NODE_NAME}"), field])
}

/// Waits until a field of the status has changed from what it is.
fn applied(world: &mut World, what: &str, field: &str) -> Result<()> {
    let before = status(world, field)?;
    let changed = world.wait_for(what, std::time::Duration::from_secs(2), |world| {
        Ok((status(world, field)? != before).then_some(()))
    });
    // It may have been applied before it was asked for the first time.
    _ = changed;
    Ok(())
}

/// Waits until the agent says that so many interfaces are attached, and the kernel agrees.
fn interfaces(world: &mut World, count: usize) -> Result<()> {
    world.wait_until(&format!("{count} interfaces are traced"), |world| {
        let said = status(world, "interfaces")?;
        let there = attached(world)?.lines().count();
        Ok((said == count.to_string() && there == count).then_some(()))
    })
}

/// The clsact qdiscs of the node, a line each.
fn attached(world: &World) -> Result<String> {
    let all = world.cluster.node().output("tc", &["qdisc", "show"])?;
    Ok(all.lines().filter(|line| line.contains("clsact")).map(|line| format!("{line}\n")).collect())
}

/// The process id of the agent.
fn agent(world: &World) -> Result<String> {
    let found = world.cluster.node().output("pgrep", &["-x", "clovisor"])?;
    found.lines().next().map(str::to_owned).context("no agent runs")
}
