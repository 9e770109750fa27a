//! The agent, the API server, Redis and Jaeger stop and come back: sessions before and after are there, those during an
//! outage as far as they can be, nothing is left behind, and the metrics account for every span.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::World;
use super::agent::{self, AGENT, CLIENT, WEB};
use crate::cluster::Component;

/// How long each of them is gone.
const OUTAGE: Duration = Duration::from_secs(60);
/// Requests during an outage: ten a second, and time to spare at both ends.
const REQUESTS: usize = 450;
const PER_SECOND: usize = 10;

pub(super) fn run(world: &mut World) -> Result<()> {
    agent::install(world)?;
    agent_restarted(world).context("the agent, restarted by a rollout")?;
    agent_killed(world).context("the agent, killed")?;
    without_api_server(world).context("the API server, gone for a minute")?;
    without_redis(world).context("Redis, gone for a minute")?;
    without_jaeger(world).context("Jaeger, gone for a minute")
}

/// The one that is asked to end sends what it has; the next one begins with clean interfaces.
fn agent_restarted(world: &mut World) -> Result<()> {
    agent::request(world, "before-rollout", 50)?;
    let first = agent::pid(world)?;
    world.kubectl(&["--namespace", "clovisor", "rollout", "restart", AGENT])?;
    world.rollout("clovisor", AGENT)?;
    ensure!(agent::pid(world)? != first, "it is still the same agent");
    agent::arrived(world, "before-rollout", 50)?;
    after_restart(world, "after-rollout")
}

/// What the killed one has left is taken away by the next one.
fn agent_killed(world: &mut World) -> Result<()> {
    agent::request(world, "before-kill", 50)?;
    agent::arrived(world, "before-kill", 50)?;
    let first = agent::pid(world)?;
    world.cluster.node().output("sh", &["-c", &format!("kill -9 {first}")])?;
    world.wait_until("the agent runs again", |world| Ok((agent::pid(world)? != first).then_some(())))?;
    world.rollout("clovisor", AGENT)?;
    after_restart(world, "after-kill")
}

/// One agent's filters and no other's: two on each interface.
fn after_restart(world: &mut World, tag: &str) -> Result<()> {
    agent::interfaces(world, 3)?;
    let node = world.cluster.node();
    let attached = node.output("bpftool", &["net", "show"])?;
    let filters = attached.lines().filter(|line| line.contains("clsact")).count();
    ensure!(filters == 6, "there are {filters} filters on three interfaces:\n{attached}");
    agent::request(world, tag, 50)?;
    agent::arrived(world, tag, 50)
}

/// Nothing is lost: what is traced stays traced. What has changed meanwhile is seen afterwards.
fn without_api_server(world: &mut World) -> Result<()> {
    agent::request_on_and_on(world, "no-api", REQUESTS, PER_SECOND)?;
    let started = Instant::now();
    world.cluster.stop_component(Component::ApiServer);
    world.wait_until("the agent misses the API server", |world| {
        Ok((agent::metric(world, "clovisor_kubernetes_up")? == 0).then_some(()))
    })?;
    sit_out(world, started)?;
    world.cluster.start_component(Component::ApiServer)?;
    world.wait_until("the agent has the API server again", |world| {
        Ok((agent::metric(world, "clovisor_kubernetes_up")? == 1).then_some(()))
    })?;
    agent::answered(world, "no-api", REQUESTS)?;
    agent::arrived(world, "no-api", REQUESTS)?;
    world.kubectl(&["--namespace", agent::SHOP, "scale", "deployment/web", "--replicas=3"])?;
    agent::interfaces(world, 4)?;
    world.kubectl(&["--namespace", agent::SHOP, "scale", "deployment/web", "--replicas=2"])?;
    agent::serving(world, 2)?;
    agent::interfaces(world, 3)?;
    agent::request(world, "api-again", 10)?;
    agent::arrived(world, "api-again", 10)
}

/// Nothing is lost while it is gone. The quickstart's Redis keeps its keys in memory, so they are set again.
fn without_redis(world: &mut World) -> Result<()> {
    agent::request_on_and_on(world, "no-redis", REQUESTS, PER_SECOND)?;
    let started = Instant::now();
    scale(world, "clover-system", "redis", 0)?;
    world.wait_until("the agent misses Redis", |world| {
        Ok((agent::metric(world, "clovisor_redis_up")? == 0).then_some(()))
    })?;
    sit_out(world, started)?;
    let attached = agent::attached(world)?.lines().count();
    ensure!(attached == 3, "without Redis {attached} interfaces are traced");
    agent::answered(world, "no-redis", REQUESTS)?;
    agent::arrived(world, "no-redis", REQUESTS)?;
    scale(world, "clover-system", "redis", 1)?;
    world.rollout("clover-system", "deployment/redis")?;
    agent::trace_the_shop(world)?;
    agent::request(world, "redis-again", 10)?;
    agent::arrived(world, "redis-again", 10)
}

/// Spans wait in the agent, or are counted as lost: every session's is in Jaeger or in that count.
fn without_jaeger(world: &mut World) -> Result<()> {
    agent::request(world, "before-jaeger", 10)?;
    agent::arrived(world, "before-jaeger", 10)?;
    let dropped = agent::metric(world, "clovisor_spans_dropped_total")?;
    let started = Instant::now();
    scale(world, "clovisor", "jaeger", 0)?;
    agent::request_on_and_on(world, "no-jaeger", REQUESTS, PER_SECOND)?;
    sit_out(world, started)?;
    agent::answered(world, "no-jaeger", REQUESTS)?;
    scale(world, "clovisor", "jaeger", 1)?;
    world.rollout("clovisor", "deployment/jaeger")?;
    agent::request(world, "jaeger-again", 10)?;
    agent::arrived(world, "jaeger-again", 10)?;
    world.wait_until("every span is in Jaeger or counted as lost", |world| {
        // Of one moment: probes go on, and are traced as well.
        let metrics = agent::metrics(world)?;
        let of = |name: &str| agent::total(&metrics, name);
        let all_dropped = of("clovisor_spans_dropped_total")?;
        let accounted = of("clovisor_spans_exported_total")? + all_dropped + of("clovisor_spans_queued")?;
        let spans = of("clovisor_spans_total")?;
        let mut there = 0;
        for service in [WEB, CLIENT] {
            for tag in ["no-jaeger", "jaeger-again"] {
                there += agent::tagged(world, service, tag)?.len() as u64;
            }
        }
        // Some of those lost may be of probes.
        let missing = 2 * (REQUESTS as u64 + 10) - there;
        let dropped = all_dropped - dropped;
        let said = format!(
            "{there} spans are in Jaeger, {missing} are missing; the metrics say {dropped} lost, and account for \
             {accounted} of {spans} spans"
        );
        ensure!(missing <= dropped && accounted == spans, said);
        eprintln!("  {said}");
        Ok(Some(()))
    })
}

/// Scales a Deployment; to none means that its pods are gone.
fn scale(world: &World, namespace: &str, name: &str, replicas: usize) -> Result<()> {
    let (deployment, replicas_of) = (format!("deployment/{name}"), format!("--replicas={replicas}"));
    world.kubectl(&["--namespace", namespace, "scale", &deployment, &replicas_of])?;
    if replicas == 0 {
        let of = format!("--selector=app.kubernetes.io/name={name}");
        world.kubectl(&["--namespace", namespace, "wait", "--for=delete", "pod", &of, "--timeout=60s"])?;
    }
    Ok(())
}

/// Waits until a minute has passed since the outage began.
fn sit_out(world: &mut World, started: Instant) -> Result<()> {
    while started.elapsed() < OUTAGE {
        world.cluster.check()?;
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
