//! The agent in the cluster, as its users meet it: installed from the shipped manifests, told what to do in Redis, asked
//! how it is by its status and metrics, and seen by what arrives in Jaeger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use super::World;
use crate::cluster::NODE_NAME;
use crate::verbs::image;
use crate::workspace;

/// The namespace of the web server and of its client.
pub(super) const SHOP: &str = "shop";
/// The web server, by its name in the cluster and in Jaeger.
pub(super) const WEB: &str = "web";
/// The client in the shop, by its name in Jaeger.
pub(super) const CLIENT: &str = "client";
/// The client in the shop, as `kubectl exec` knows it.
pub(super) const CLIENT_POD: &str = "deployment/client";
/// The agent, as `kubectl rollout` knows it.
pub(super) const AGENT: &str = "daemonset/clovisor";
/// The manifests that users apply first.
pub(super) const QUICKSTART: &str = "deploy/overlays/quickstart";
/// The capabilities of the overlay `pod-side`, NET_ADMIN (12), SYS_ADMIN (21), PERFMON (38) and BPF (39), as a
/// process's `CapEff` shows them.
pub(super) const WITH_SYS_ADMIN: &str = "000000c000201000";
/// What Jaeger is asked for at most: more than any scenario makes.
const MAX_TRACES: usize = 20_000;

/// The commands of a document's section as users type them: the lines of its code that begin so.
pub(super) fn commands(document: &str, heading: &str, begin: &str) -> Result<Vec<String>> {
    let file = workspace::root().join(document);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let (_, section) = text
        .split_once(&format!("\n## {heading}\n"))
        .with_context(|| format!("{document} has no section `{heading}`"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(blocks.flat_map(str::lines).filter(|line| line.starts_with(begin)).map(str::to_owned).collect())
}

/// The shop and nothing of ours: what an earlier scenario left is taken away.
pub(super) fn shop_alone(world: &mut World) -> Result<()> {
    if !world.has_agent_image {
        let image = image::build(concat!("clovisor:", env!("CARGO_PKG_VERSION")))?;
        world.cluster.load_image(&image)?;
        world.has_agent_image = true;
    }
    world.kubectl(&["delete", "namespace", "clovisor", "clover-system", "--ignore-not-found"])?;
    world.kubectl(&["delete", "clusterrole,clusterrolebinding", "clovisor", "--ignore-not-found"])?;
    world.apply(include_str!("manifests/web.yaml"), &[])?;
    world.rollout(SHOP, CLIENT_POD)?;
    serving(world, 2)
}

/// The shop, and the shipped quickstart that traces all of it on both sides: two web servers and a client.
pub(super) fn install(world: &mut World) -> Result<()> {
    shop_alone(world)?;
    world.kubectl(&["apply", "--kustomize", &workspace::root().join(QUICKSTART).display().to_string()])?;
    ready(world)?;
    trace_the_shop(world)
}

/// Waits until all that the quickstart deploys is there.
pub(super) fn ready(world: &World) -> Result<()> {
    for (namespace, workload) in
        [("clover-system", "deployment/redis"), ("clovisor", "deployment/jaeger"), ("clovisor", AGENT)]
    {
        world.rollout(namespace, workload)?;
    }
    Ok(())
}

/// Asks for all of the shop: the servers' side of a request, and the client's.
pub(super) fn trace_the_shop(world: &mut World) -> Result<()> {
    configure(world)?;
    interfaces(world, 3)
}

/// Sets the three keys for the shop.
pub(super) fn configure(world: &World) -> Result<()> {
    set(world, "clovisor_labels", SHOP)?;
    set(world, "clovisor_egress_match", "0:80:client")?;
    set(world, "clovisor_jaeger_server", "jaeger-collector.clovisor:4317")
}

/// Sets a key of the configuration.
pub(super) fn set(world: &World, key: &str, value: &str) -> Result<()> {
    world.redis(&["set", key, value]).map(drop)
}

/// A field of the agent's status in Redis.
pub(super) fn status(world: &World, field: &str) -> Result<String> {
    world.redis(&["hget", &format!("clovisor_status:{NODE_NAME}"), field])
}

/// Waits until so many interfaces are traced: the agent says so, and the kernel agrees.
pub(super) fn interfaces(world: &mut World, count: usize) -> Result<()> {
    world.wait_until(&format!("{count} interfaces are traced"), |world| {
        let said = status(world, "interfaces")?;
        let there = attached(world)?.lines().count();
        ensure!(said == count.to_string() && there == count, "the agent says {said}, the kernel {there}");
        Ok(Some(()))
    })
}

/// The clsact qdiscs of the node, a line each.
pub(super) fn attached(world: &World) -> Result<String> {
    let all = world.cluster.node().output("tc", &["qdisc", "show"])?;
    Ok(all.lines().filter(|line| line.contains("clsact")).map(|line| format!("{line}\n")).collect())
}

/// Everything that is attached to the node's interfaces, by whatever means.
pub(super) fn hooks(world: &World) -> Result<[String; 2]> {
    let node = world.cluster.node();
    Ok([node.output("tc", &["qdisc", "show"])?, node.output("bpftool", &["net", "show"])?])
}

/// The process id of the agent.
pub(super) fn pid(world: &World) -> Result<String> {
    // A process that ends meanwhile makes grep fail, whatever it has found.
    let find = "grep --files-with-matches --line-regexp clovisor /proc/[0-9]*/comm 2>/dev/null || :";
    let found = world.cluster.node().output("sh", &["-c", find])?;
    found.split('/').nth(2).map(str::to_owned).context("no agent runs")
}

/// The agent's effective capabilities, in the kernel's hexadecimal form.
pub(super) fn capabilities(world: &World) -> Result<String> {
    let status = world.cluster.node().output("cat", &[&format!("/proc/{}/status", pid(world)?)])?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.map(|mask| mask.trim().to_owned()).context("the kernel says nothing of the agent's capabilities")
}

/// The agent's counters and gauges, by name and labels as they are written.
pub(super) fn metrics(world: &World) -> Result<BTreeMap<String, f64>> {
    let text = world.get("http://127.0.0.1:9465/metrics")?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| -> Result<(String, f64)> {
        let (name, value) = line.rsplit_once(' ').with_context(|| format!("a strange metric: {line}"))?;
        Ok((name.to_owned(), value.parse()?))
    });
    parsed.collect()
}

/// One metric; all of its labels together.
pub(super) fn metric(world: &World, name: &str) -> Result<u64> {
    total(&metrics(world)?, name)
}

/// One metric of those of one moment; all of its labels together.
pub(super) fn total(metrics: &BTreeMap<String, f64>, name: &str) -> Result<u64> {
    let is_it = |key: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let values: Vec<f64> = metrics.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| *value).collect();
    ensure!(!values.is_empty(), "there is no metric {name}");
    Ok(values.iter().sum::<f64>() as u64)
}

/// Waits until so many web servers are ready and the service leads to them and to no others. That the pods are ready is
/// not enough: kube-proxy follows up to a second later, and until then sends requests to pods that are gone.
pub(super) fn serving(world: &mut World, replicas: usize) -> Result<()> {
    world.rollout(SHOP, "deployment/web")?;
    world.wait_until(&format!("the service leads to {replicas} web servers"), |world| {
        let listed = world.kubectl(&[
            "--namespace",
            SHOP,
            "get",
            "pods",
            "--selector=app=web",
            "--output=jsonpath={range .items[*]}{.status.podIP}{'\\n'}{end}",
        ])?;
        let pods: BTreeSet<&str> = listed.lines().collect();
        let rules = world.cluster.node().output("iptables-save", &["-t", "nat"])?;
        // As in `-m comment --comment "shop/web:http -> 10.244.0.8:8080"`.
        let service = format!("\"{SHOP}/{WEB}:");
        let targets = rules.lines().filter_map(|rule| rule.split_once(&service)?.1.split_once(" -> "));
        let targets: BTreeSet<&str> = targets.filter_map(|(_, to)| Some(to.split_once(':')?.0)).collect();
        ensure!(pods.len() == replicas && targets == pods, "it leads to {targets:?}, the pods are {pods:?}");
        Ok(Some(()))
    })
}

/// Requests of the client in the shop, one after the other over one connection: `/items/TAG-1` to `/items/TAG-COUNT`.
pub(super) fn request(world: &World, tag: &str, count: usize) -> Result<()> {
    let url = format!("http://{WEB}/items/{tag}-[1-{count}]");
    let said =
        world.exec(SHOP, CLIENT_POD, &["curl", "--silent", "--show-error", "--max-time", "60", &url])?;
    let expected: String = (1..=count).map(|n| format!("GET /items/{tag}-{n}\n")).collect();
    ensure!(said == expected, "the web server answers:\n{said}");
    Ok(())
}

/// As [`request`], at a steady rate and without waiting: it goes on while the API server is gone. See [`answered`].
pub(super) fn request_on_and_on(world: &World, tag: &str, count: usize, per_second: usize) -> Result<()> {
    let script = format!(
        "curl --silent --show-error --rate {per_second}/s 'http://{WEB}/items/{tag}-[1-{count}]' >/tmp/{tag} 2>&1 &"
    );
    world.exec(SHOP, CLIENT_POD, &["sh", "-c", &script]).map(drop)
}

/// Waits until all requests of [`request_on_and_on`] are answered.
pub(super) fn answered(world: &mut World, tag: &str, count: usize) -> Result<()> {
    world.wait_until(&format!("{count} requests are answered"), |world| {
        let said = world.exec(SHOP, CLIENT_POD, &["busybox", "cat", &format!("/tmp/{tag}")])?;
        let right =
            (1..=count).zip(said.lines()).filter(|(n, line)| *line == format!("GET /items/{tag}-{n}"));
        let right = right.count();
        ensure!(right == count, "{right} of them are");
        Ok(Some(()))
    })
}

/// Waits until Jaeger has each request with this tag once, on both sides, and complete.
pub(super) fn arrived(world: &mut World, tag: &str, count: usize) -> Result<()> {
    for (service, kind) in [(WEB, "server"), (CLIENT, "client")] {
        world
            .wait_until(&format!("{count} requests of {tag} are in Jaeger on the {kind}'s side"), |world| {
                let spans = tagged(world, service, tag)?;
                let paths = spans.iter().map(path).collect::<BTreeSet<_>>();
                ensure!(
                    paths.len() == count && spans.len() == count,
                    "{} spans, {} paths",
                    spans.len(),
                    paths.len()
                );
                Ok(Some(spans))
            })?
            .iter()
            .try_for_each(|span| {
                expect(span, "span.kind", kind)?;
                expect(span, "clovisor.outcome", "complete")?;
                expect(span, "http.response.status_code", "200")
            })?;
    }
    Ok(())
}

/// The spans of a service for requests with this tag.
pub(super) fn tagged(world: &World, service: &str, tag: &str) -> Result<Vec<Value>> {
    tagged_at(world, "jaeger-query.clovisor", service, tag)
}

/// As [`tagged`], of the Jaeger with this `service.namespace`.
pub(super) fn tagged_at(world: &World, jaeger: &str, service: &str, tag: &str) -> Result<Vec<Value>> {
    let start = format!("/items/{tag}-");
    let all = spans(world, jaeger, service)?;
    Ok(all.into_iter().filter(|span| path(span).starts_with(&start)).collect())
}

/// Waits for one span of a service by its path.
pub(super) fn found(world: &mut World, service: &str, wanted: &str) -> Result<Value> {
    world.wait_until(&format!("Jaeger has {wanted} of {service}"), |world| {
        let all = spans(world, "jaeger-query.clovisor", service)?;
        Ok(all.into_iter().find(|span| path(span) == wanted))
    })
}

/// All spans of a service that a Jaeger has: the tags of each and of its process, by key; and its identifiers, as
/// `trace.id`, `span.id` and `parent.id`.
pub(super) fn spans(world: &World, jaeger: &str, service: &str) -> Result<Vec<Value>> {
    let traces = world.jaeger_at(jaeger, &format!("traces?service={service}&limit={MAX_TRACES}"))?;
    let traces = traces.as_array().into_iter().flatten();
    let all = traces.flat_map(|trace| {
        let spans = trace["spans"].as_array().into_iter().flatten();
        spans.map(|span| {
            let process = &trace["processes"][span["processID"].as_str().unwrap_or_default()];
            let tags = [&span["tags"], &process["tags"]].into_iter().filter_map(Value::as_array).flatten();
            let by_key =
                |tag: &Value| (tag["key"].as_str().unwrap_or_default().to_owned(), tag["value"].clone());
            let mut all: Map<String, Value> = tags.map(by_key).collect();
            all.insert("service.name".to_owned(), process["serviceName"].clone());
            for (key, value) in [
                ("trace.id", &span["traceID"]),
                ("span.id", &span["spanID"]),
                ("parent.id", &span["references"][0]["spanID"]),
            ] {
                all.insert(key.to_owned(), value.clone());
            }
            Value::Object(all)
        })
    });
    Ok(all.filter(|span| span["service.name"] == service).collect())
}

/// The path of a span's request: a server's span has it alone, a client's within the URL.
pub(super) fn path(span: &Value) -> String {
    let url =
        span["url.full"].as_str().and_then(|url| url.splitn(4, '/').nth(3)).map(|path| format!("/{path}"));
    span["url.path"].as_str().map(str::to_owned).or(url).unwrap_or_default()
}

/// Fails unless an attribute of a span has this value.
pub(super) fn expect(span: &Value, key: &str, value: &str) -> Result<()> {
    let found = match &span[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ensure!(found == value, "{key} is {found}, not {value}, in {span}");
    Ok(())
}
