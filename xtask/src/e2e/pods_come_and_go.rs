//! The cluster changes and the agent follows: a Deployment scaled to twenty and to none, pods restarted, a service's
//! port renamed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::World;
use super::agent::{self, SHOP, WEB};

pub(super) fn run(world: &mut World) -> Result<()> {
    agent::install(world)?;
    let begun = lost(world)?;
    scaled(world).context("a Deployment scaled")?;
    restarted(world).context("pods restarted")?;
    renamed(world).context("a service renamed")?;
    let lost = lost(world)? - begun;
    ensure!(lost == 0, "{lost} packets and spans were lost");
    Ok(())
}

fn lost(world: &World) -> Result<u64> {
    let packets = agent::metric(world, "clovisor_packets_lost_total")?;
    Ok(packets + agent::metric(world, "clovisor_spans_dropped_total")?)
}

/// All of 20 are traced, and none is left behind of those that go.
fn scaled(world: &mut World) -> Result<()> {
    agent::request(world, "two", 10)?;
    agent::arrived(world, "two", 10)?;
    for replicas in [20, 0, 2] {
        let started = Instant::now();
        scale(world, replicas)?;
        // With the client.
        agent::interfaces(world, replicas + 1)?;
        eprintln!("  {replicas} web servers after {} s", started.elapsed().as_secs());
        if replicas == 20 {
            agent::serving(world, replicas)?;
            // A connection each, so that kube-proxy spreads them.
            for n in 1..=40 {
                agent::request(world, &format!("of-twenty{n}"), 1)?;
            }
            world.wait_until("all forty are in Jaeger", |world| {
                let spans = agent::tagged(world, WEB, "of")?;
                let spans: Vec<_> =
                    spans.iter().filter(|span| agent::path(span).contains("of-twenty")).collect();
                let mut pods: Vec<_> = spans.iter().map(|span| span["k8s.pod.name"].to_string()).collect();
                pods.sort();
                pods.dedup();
                ensure!(spans.len() == 40 && pods.len() > 5, "{} spans of {} pods", spans.len(), pods.len());
                Ok(Some(()))
            })?;
        }
    }
    agent::serving(world, 2)?;
    agent::request(world, "two-again", 10)?;
    agent::arrived(world, "two-again", 10)
}

fn scale(world: &World, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    world.kubectl(&["--namespace", SHOP, "scale", "deployment/web", &replicas]).map(drop)
}

/// New pods under the old service.
fn restarted(world: &mut World) -> Result<()> {
    world.kubectl(&["--namespace", SHOP, "rollout", "restart", "deployment/web"])?;
    agent::serving(world, 2)?;
    agent::interfaces(world, 3)?;
    agent::request(world, "restarted", 10)?;
    agent::arrived(world, "restarted", 10)
}

/// A port that says `tcp` is one session a connection; renamed, its requests are seen.
fn renamed(world: &mut World) -> Result<()> {
    let name = |world: &World, name: &str| {
        let patch = format!(r#"[{{"op": "replace", "path": "/spec/ports/0/name", "value": "{name}"}}]"#);
        world.kubectl(&["--namespace", SHOP, "patch", "service", WEB, "--type=json", "--patch", &patch])
    };
    let connections = |world: &World| -> Result<usize> {
        let spans = agent::spans(world, "jaeger-query.clovisor", WEB)?;
        Ok(spans.iter().filter(|span| agent::path(span).is_empty()).count())
    };
    let before = connections(world)?;
    name(world, "tcp")?;
    let mut tries = 0;
    world.wait_until("connections are traced and not requests", |world| {
        tries += 1;
        agent::request(world, &format!("as-tcp{tries}"), 2)?;
        Ok((connections(world)? > before).then_some(()))
    })?;
    // The last was seen as one connection, or is about to be: its requests never are.
    let last = format!("as-tcp{tries}");
    name(world, "http")?;
    let mut tries = 0;
    world.wait_until("requests are traced again", |world| {
        tries += 1;
        agent::request(world, &format!("as-http{tries}"), 1)?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        Ok((!agent::tagged(world, WEB, &format!("as-http{tries}"))?.is_empty()).then_some(()))
    })?;
    let seen = agent::tagged(world, WEB, &last)?.len();
    ensure!(seen == 0, "{seen} requests were read on a port that says tcp");
    agent::request(world, "renamed", 10)?;
    agent::arrived(world, "renamed", 10)
}
