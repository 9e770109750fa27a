//! Live runs: a client at a rate or as fast as it goes, without a tracer and with each in turn.

use anyhow::Result;
use serde_json::Value;

use super::tracer::{Kind, Tracer};
use super::world::{Task, World};

/// Connections of the client.
pub(crate) const CONNECTIONS: u32 = 64;

/// One run.
pub(crate) struct Run {
    /// What the load client says.
    pub(crate) load: Value,
    /// The tracer, if there was one, and what it did.
    pub(crate) tracer: Option<(Kind, Value)>,
}

/// One run, with or without a tracer.
pub(crate) fn run(world: &World, rate: u32, seconds: u16, kind: Option<Kind>) -> Result<Run> {
    let task = Task { connections: CONNECTIONS, rate, seconds, long: None };
    let Some(kind) = kind else {
        return Ok(Run { load: world.open(task)?.run()?, tracer: None });
    };
    let (load, traced) = traced(world, task, kind)?;
    Ok(Run { load, tracer: Some((kind, traced)) })
}

/// A task under the eyes of a tracer: what the client says, and what became of the tracer.
pub(crate) fn traced(world: &World, task: Task, kind: Kind) -> Result<(Value, Value)> {
    under(world, task, Tracer::start(world, kind)?)
}

/// The same with a tracer that is ready.
pub(crate) fn under(world: &World, task: Task, mut tracer: Tracer) -> Result<(Value, Value)> {
    let mut client = world.open(task)?;
    tracer.begin()?;
    let before = world.packets()?;
    let load = client.run()?;
    let used = tracer.used()?;
    let packets = world.packets()? - before;
    drop(client);
    let answered = load["answered"].as_f64().unwrap_or_default();
    let mut traced = tracer.finish()?.json(&used, answered);
    traced["packets_per_request"] = (packets as f64 / answered.max(1.0)).into();
    Ok((load, traced))
}
