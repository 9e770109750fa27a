//! What users change in Redis takes effect while the agent runs: labels, egress rules, a wrong entry, Jaeger's address.

use anyhow::{Context, Result, ensure};

use super::World;
use super::agent::{self, CLIENT, CLIENT_POD, SHOP, WEB, expect, set};
use crate::cluster::OUTSIDE;

/// Where a second Jaeger is.
const ELSEWHERE: &str = "elsewhere";

pub(super) fn run(world: &mut World) -> Result<()> {
    agent::install(world)?;
    labels(world).context("labels")?;
    egress(world).context("egress rules")?;
    wrong_entries(world).context("a wrong entry")?;
    other_jaeger(world).context("Jaeger's address")
}

/// From namespace to namespace, and by a label; what is not asked for is not traced.
fn labels(world: &mut World) -> Result<()> {
    for (labels, count) in [("default", 0), ("shop:app:web", 2), ("other,shop:app:client", 1), (SHOP, 3)] {
        set(world, "clovisor_labels", labels)?;
        agent::interfaces(world, count).with_context(|| format!("with {labels}"))?;
        agent::request(world, &format!("labels{count}"), 1)?;
    }
    agent::arrived(world, "labels3", 1)?;
    // With two, the servers alone; with one, the client alone.
    for (tag, service, count) in [
        ("labels0", WEB, 0),
        ("labels0", CLIENT, 0),
        ("labels2", WEB, 1),
        ("labels2", CLIENT, 0),
        ("labels1", WEB, 0),
        ("labels1", CLIENT, 1),
    ] {
        let there = agent::tagged(world, service, tag)?.len();
        ensure!(there == count, "Jaeger has {there} spans of {service} for {tag}, not {count}");
    }
    Ok(())
}

/// With and without an address and with a pod's prefix, inside and outside the cluster.
fn egress(world: &mut World) -> Result<()> {
    let service = world.service_ip(SHOP, WEB)?;
    let rules = [
        // Rule, and which requests the client's side is then seen of: to the service, to the outside host.
        ("any", "0:80".to_owned(), [true, true]),
        ("outside", format!("{OUTSIDE}:80"), [false, true]),
        ("service", format!("{service}:80:client"), [true, false]),
        ("port", "0:8080:client".to_owned(), [false, false]),
        ("prefix", "0:80:cli".to_owned(), [true, true]),
        ("other", "0:80:other".to_owned(), [false, false]),
        ("both", format!("{service}:80\n{OUTSIDE}:80:client"), [true, true]),
    ];
    for (tag, rule, _) in &rules {
        let version: u64 = agent::status(world, "config_version")?.parse()?;
        set(world, "clovisor_egress_match", rule)?;
        world.wait_until(&format!("the rule {rule} is in force"), |world| {
            let now: u64 = agent::status(world, "config_version")?.parse()?;
            Ok((now > version).then_some(()))
        })?;
        for (host, name) in [(OUTSIDE.to_string(), "outside"), (WEB.to_owned(), "service")] {
            world.get_from(SHOP, CLIENT_POD, &format!("http://{host}/items/{name}-{tag}"))?;
        }
    }
    // The server's side is seen with every rule. When it is there, so is the client's.
    for (tag, rule, expected) in &rules {
        agent::found(world, WEB, &format!("/items/service-{tag}"))?;
        for (name, expected) in ["service", "outside"].into_iter().zip(expected) {
            let wanted = format!("/items/{name}-{tag}");
            if *expected {
                let span = agent::found(world, CLIENT, &wanted).with_context(|| format!("with {rule}"))?;
                expect(&span, "span.kind", "client")?;
                expect(&span, "clovisor.outcome", "complete")?;
            } else {
                let spans = agent::tagged(world, CLIENT, name)?;
                let there = spans.iter().any(|span| agent::path(span) == wanted);
                ensure!(!there, "with the rule {rule}, {wanted} is traced");
            }
        }
    }
    let url = format!("http://{OUTSIDE}/items/outside-outside");
    expect(&agent::found(world, CLIENT, "/items/outside-outside")?, "url.full", &url)
}

/// It is reported, and the entry beside it is in force.
fn wrong_entries(world: &mut World) -> Result<()> {
    set(world, "clovisor_egress_match", "somewhere:80,0:80:client")?;
    world.wait_until("the wrong entry is reported", |world| {
        let said = agent::status(world, "error:clovisor_egress_match")?;
        Ok(said.contains("somewhere:80").then_some(()))
    })?;
    let wrong = agent::metric(world, "clovisor_config_errors")?;
    ensure!(wrong == 1, "the metrics say that {wrong} entries are wrong");
    agent::request(world, "wrong", 3)?;
    agent::arrived(world, "wrong", 3)?;
    set(world, "clovisor_egress_match", "0:80:client")?;
    world.wait_until("nothing is wrong", |world| {
        Ok(agent::status(world, "error:clovisor_egress_match")?.is_empty().then_some(()))
    })
}

/// Spans go to the new one from then on, and none is lost in between: requests go on all the time.
fn other_jaeger(world: &mut World) -> Result<()> {
    const REQUESTS: usize = 200;
    world.apply(include_str!("manifests/jaeger.yaml"), &[("clovisor", ELSEWHERE)])?;
    world.rollout(ELSEWHERE, "deployment/jaeger")?;
    let dropped = agent::metric(world, "clovisor_spans_dropped_total")?;
    agent::request_on_and_on(world, "moved", REQUESTS, 20)?;
    world.wait_until("requests are on their way", |world| {
        Ok((agent::tagged(world, CLIENT, "moved")?.len() > 20).then_some(()))
    })?;
    set(world, "clovisor_jaeger_server", &format!("jaeger-collector.{ELSEWHERE}:4317"))?;
    agent::answered(world, "moved", REQUESTS)?;
    for service in [WEB, CLIENT] {
        world.wait_until(&format!("the two have all of {service}"), |world| {
            let first = agent::tagged(world, service, "moved")?;
            let second = agent::tagged_at(world, &format!("jaeger-query.{ELSEWHERE}"), service, "moved")?;
            let mut paths: Vec<_> = first.iter().chain(&second).map(agent::path).collect();
            paths.sort();
            paths.dedup();
            let counts = (first.len(), second.len(), paths.len());
            let all = first.len() + second.len() == REQUESTS && paths.len() == REQUESTS;
            ensure!(
                all && !first.is_empty() && !second.is_empty(),
                "spans here and there, and paths: {counts:?}"
            );
            Ok(Some(()))
        })?;
    }
    let dropped = agent::metric(world, "clovisor_spans_dropped_total")? - dropped;
    ensure!(dropped == 0, "{dropped} spans were dropped");
    set(world, "clovisor_jaeger_server", "jaeger-collector.clovisor:4317")?;
    agent::request(world, "back", 3)?;
    agent::arrived(world, "back", 3)?;
    world.kubectl(&["delete", "namespace", ELSEWHERE]).map(drop)
}
